//! Changes the corpus at random and gives the results to a target, for a while: `loop TARGET SECONDS [SEED]`.
//!
//! It does not see which code an input reaches, so it finds less than libFuzzer, but runs wherever the library does.
//! The input at work is in `found/TARGET.current`: there it lies when the process dies of it. Of each place that
//! panics, the smallest input is kept, made smaller at the end.

use gs_fuzz::bodies;
use gs_fuzz::mutate::{Rng, changed, truncated};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// An input that takes longer than this is a finding too.
const SLOW: Duration = Duration::from_secs(1);

/// Inputs that did not panic are kept with this chance, one in so many, to be changed further.
const KEEP: usize = 64;

/// How many inputs beyond the corpus are kept to be changed.
const POOL: usize = 400;

/// Time for making a finding smaller.
const SHRINK: Duration = Duration::from_secs(10);

thread_local! {
    /// Where the last panic was, and what it said.
    static LAST: RefCell<(String, String)> = const { RefCell::new((String::new(), String::new())) };
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (target, seconds): (fn(&[u8]), u64) = match args.as_slice() {
        [name, seconds, ..] if name == "text" => (bodies::text, seconds.parse().unwrap_or(60)),
        [name, seconds, ..] if name == "onnx" => (bodies::onnx, seconds.parse().unwrap_or(60)),
        _ => {
            eprintln!("usage: loop text|onnx SECONDS [SEED]");
            return ExitCode::from(2);
        }
    };
    let name = args.first().map_or("", String::as_str);
    let seed = args.get(2).and_then(|s| s.parse().ok()).unwrap_or(0);
    match run(name, target, Duration::from_secs(seconds), seed) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("loop: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs the target until `time` is over; the number of findings.
fn run(name: &str, target: fn(&[u8]), time: Duration, seed: u64) -> io::Result<usize> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = here.join("found");
    std::fs::create_dir_all(&found)?;
    let current = found.join(format!("{name}.current"));
    let corpus = read_all(&here.join("corpus").join(name))?;
    panic::set_hook(Box::new(|info| {
        let place =
            info.location().map_or_else(|| "unknown".to_owned(), |l| format!("{}:{}", l.file(), l.line()));
        let said = info.payload_as_str().unwrap_or("").to_owned();
        LAST.set((place, said));
    }));

    let mut at_work = File::create(&current)?;
    let mut rng = Rng::new(seed);
    let mut pool = corpus.clone();
    let mut findings: BTreeMap<String, (Vec<u8>, String)> = BTreeMap::new();
    let (start, mut runs, mut slowest) = (Instant::now(), 0_u64, Duration::ZERO);
    while start.elapsed() < time {
        let Some(base) = rng.pick(&pool).cloned() else { break };
        let input =
            if rng.below(20) == 0 { truncated(&mut rng, &base) } else { changed(&mut rng, &base, &corpus) };
        note(&mut at_work, &input)?;
        let began = Instant::now();
        let panicked = place_of_panic(target, &input);
        let took = began.elapsed();
        runs += 1;
        if took > slowest {
            slowest = took;
        }
        if took > SLOW {
            keep_smaller(&mut findings, "slow".to_owned(), &input, &format!("{took:?}"));
        } else if let Some((place, said)) = panicked {
            keep_smaller(&mut findings, place, &input, &said);
        } else if rng.below(KEEP) == 0 && input.len() < 1 << 13 {
            keep(&mut rng, &mut pool, corpus.len(), input);
        }
    }
    eprintln!("{name}: seed {seed}, {runs} runs in {:.0?}, slowest {slowest:.0?}", start.elapsed());
    for (place, (input, said)) in &findings {
        report(&found, name, target, place, input, said)?;
    }
    std::fs::remove_file(&current)?;
    Ok(findings.len())
}

/// Writes the input to a file that stays open: to open it each time takes longer than most runs.
fn note(file: &mut File, input: &[u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    file.write_all(input)?;
    file.set_len(input.len() as u64)
}

fn read_all(folder: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect::<io::Result<_>>()?;
    // The order of a folder is not the same everywhere, and the seed must say it all.
    files.sort();
    files.iter().map(std::fs::read).collect()
}

fn place_of_panic(target: fn(&[u8]), input: &[u8]) -> Option<(String, String)> {
    panic::catch_unwind(AssertUnwindSafe(|| target(input))).is_err().then(|| LAST.take())
}

fn keep_smaller(findings: &mut BTreeMap<String, (Vec<u8>, String)>, place: String, input: &[u8], said: &str) {
    let known = findings.get(&place).is_some_and(|(old, _)| old.len() <= input.len());
    if !known {
        findings.insert(place, (input.to_vec(), said.to_owned()));
    }
}

/// Adds an input to those that are changed; when they are many, in place of one that is not of the corpus.
fn keep(rng: &mut Rng, pool: &mut Vec<Vec<u8>>, fixed: usize, input: Vec<u8>) {
    if pool.len() < fixed + POOL {
        pool.push(input);
    } else {
        let at = fixed + rng.below(POOL);
        pool[at] = input;
    }
}

/// Makes a finding smaller, writes it and says where it is.
fn report(
    found: &Path,
    name: &str,
    target: fn(&[u8]),
    place: &str,
    input: &[u8],
    said: &str,
) -> io::Result<()> {
    let small = if place == "slow" {
        input.to_vec()
    } else {
        shrink(input, |i| place_of_panic(target, i).is_some_and(|(p, _)| p == place))
    };
    let words: String = place.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let file = found.join(format!("{name}-{words}"));
    std::fs::write(&file, &small)?;
    eprintln!("finding at {place}: {} bytes in {}\n{said}", small.len(), file.display());
    Ok(())
}

/// Cuts out pieces, from half the input down to single bytes, as long as it stays a finding.
fn shrink(input: &[u8], is_finding: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let start = Instant::now();
    let mut best = input.to_vec();
    let mut piece = best.len() / 2;
    while piece > 0 {
        let mut at = 0;
        let mut cut = false;
        while at < best.len() && start.elapsed() < SHRINK {
            let mut less = best.clone();
            less.drain(at..(at + piece).min(best.len()));
            if is_finding(&less) {
                best = less;
                cut = true;
            } else {
                at += piece;
            }
        }
        if !cut || start.elapsed() >= SHRINK {
            piece /= 2;
        }
    }
    best
}
