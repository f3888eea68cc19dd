//! Writes a data set as a numpy archive: `x` and, where there are labels, `y`.
//!
//! `cargo run --release -p gs-opt --example dump_data -- SPEC OUT.npz [--bytes]`
//! With `--bytes` the pixels stay `u8`; otherwise they are `f32`, pixel / 255.

use std::path::Path;
use std::process::ExitCode;

use gs_opt::data::{DataError, Dataset, NamedArray, NpzWriter, Preprocess};

const BATCH: usize = 500;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        [spec, out] => dump(spec, Path::new(out), None),
        [spec, out, "--bytes"] => dump(spec, Path::new(out), Some(&Preprocess::Bytes)),
        _ => return fail(2, "usage: dump_data SPEC OUT.npz [--bytes]"),
    };
    result.map_or_else(|error| fail(1, &error.to_string()), |()| ExitCode::SUCCESS)
}

#[allow(clippy::print_stderr)]
fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("{message}");
    ExitCode::from(code)
}

fn dump(spec: &str, out: &Path, preprocess: Option<&Preprocess>) -> Result<(), DataError> {
    let data = Dataset::open(spec, preprocess)?;
    let mut writer = NpzWriter::new(out);
    for start in (0..data.len()).step_by(BATCH) {
        let range = start..data.len().min(start + BATCH);
        for mut array in data.batch(range.clone())? {
            array.name.get_or_insert_with(|| "x".to_owned());
            writer.append(&array)?;
        }
        if data.has_labels() {
            let labels = data.labels(range)?;
            writer.append(&NamedArray::from_i64(Some("y"), vec![labels.len()], &labels))?;
        }
    }
    writer.finish()
}
