//! What a run goes through: a line of JSON and one of words for every hundred steps, and for every epoch.

use super::folder::LOG;
use super::held_out;
use crate::failure::{Failure, Outcome};
use crate::say;
use gs_runtime::trainer::StepDone;
use gs_text::output::{OutputError, atomic_write};
use serde_json::{Map, Value, json};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Steps of a row.
const STEPS: u64 = 100;

/// The log of a run.
pub(super) struct Log {
    path: PathBuf,
    file: File,
    batch: usize,
    row: Sums,
    epoch: Sums,
    failed: Option<std::io::Error>,
}

/// Sums over the steps of a row.
struct Sums {
    began: Instant,
    /// Seconds spent on it before the run was taken up again.
    earlier: f64,
    steps: u64,
    loss: f64,
    right: Option<f64>,
}

impl Sums {
    fn new() -> Self {
        Self { began: Instant::now(), earlier: 0.0, steps: 0, loss: 0.0, right: None }
    }

    /// As they are written beside a checkpoint.
    fn stored(&self) -> Value {
        json!({ "steps": self.steps, "loss": self.loss, "right": self.right, "seconds": self.seconds() })
    }

    /// Those that were written; none where they are not as they should be.
    fn restored(stored: &Value) -> Option<Self> {
        Some(Self {
            began: Instant::now(),
            earlier: stored.get("seconds")?.as_f64()?,
            steps: stored.get("steps")?.as_u64()?,
            loss: stored.get("loss")?.as_f64()?,
            right: stored.get("right").and_then(Value::as_f64),
        })
    }

    fn add(&mut self, done: &StepDone<'_>) {
        self.steps += 1;
        self.loss += done.loss;
        if let Some(accuracy) = done.accuracy {
            *self.right.get_or_insert(0.0) += accuracy;
        }
    }

    fn seconds(&self) -> f64 {
        (self.earlier + self.began.elapsed().as_secs_f64()).max(1e-9)
    }

    fn mean(&self, sum: f64) -> f64 {
        sum / self.steps.max(1) as f64
    }

    fn row(&self, done: &StepDone<'_>, batch: usize) -> Map<String, Value> {
        let speed = (self.steps as f64 * batch as f64 / self.seconds()).round();
        let mut row = Map::new();
        let mut put = |key: &str, value: Value| row.insert(key.to_owned(), value);
        put("step", json!(done.step));
        put("epoch", json!(done.epoch));
        put("loss", json!(self.mean(self.loss)));
        if let Some(right) = self.right {
            put("accuracy", json!(self.mean(right)));
        }
        put("images_per_second", json!(speed));
        let own = |k: &&String| ![held_out::TOP1, held_out::SECONDS].contains(&k.as_str());
        done.metrics.iter().filter(|(k, _)| own(k)).for_each(|(k, v)| drop(put(k, json!(v))));
        row
    }
}

impl Log {
    /// Opens the log of a folder. A run that is taken up again goes on after the steps that it keeps: what was written
    /// of later ones is taken out.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub(super) fn open(folder: &Path, resumed_at: Option<u64>, batch: usize) -> Outcome<Self> {
        let path = folder.join(LOG);
        let failed = |e: std::io::Error| Failure::new(format!("{}: {e}", path.display()));
        let (mut row, mut epoch) = (Sums::new(), Sums::new());
        match resumed_at {
            Some(step) if path.exists() => {
                let text = fs::read_to_string(&path).map_err(failed)?;
                keep_until(&path, step, &text)?;
                if let Some(sums) = sums_at(step, &text) {
                    (row, epoch) = sums;
                }
            }
            _ => drop(File::create(&path).map_err(failed)?),
        }
        let file = OpenOptions::new().append(true).create(true).open(&path).map_err(failed)?;
        Ok(Self { path, file, batch, row, epoch, failed: None })
    }

    /// A step was done.
    pub(super) fn step(&mut self, done: &StepDone<'_>, per_epoch: u64) {
        self.row.add(done);
        self.epoch.add(done);
        let epoch_ends = done.step.is_multiple_of(per_epoch.max(1));
        if epoch_ends {
            // What was spent on held-out samples is no training.
            let spent = Duration::from_secs_f64(done.metrics.get(held_out::SECONDS).copied().unwrap_or(0.0));
            (self.row.began, self.epoch.began) = (self.row.began + spent, self.epoch.began + spent);
        }
        if done.step.is_multiple_of(STEPS) || done.step == done.steps {
            self.write(&self.row.row(done, self.batch));
            say!("{}", in_words(&self.row, done, self.batch));
            self.row = Sums::new();
        }
        if epoch_ends {
            let mut row = self.epoch.row(done, self.batch);
            row.insert("event".to_owned(), json!("epoch"));
            row.insert("seconds".to_owned(), json!((self.epoch.seconds() * 10.0).round() / 10.0));
            let top1 = done.metrics.get(held_out::TOP1);
            if let Some(top1) = top1 {
                row.insert(held_out::TOP1.to_owned(), json!(top1));
                say!("epoch {}: top-1 on held-out samples {:.2} %", done.epoch, 100.0 * top1);
            }
            self.write(&row);
            self.epoch = Sums::new();
        }
    }

    /// A checkpoint of this step is to be written: a run that goes on from it finds here what its rows have begun with.
    pub(super) fn saving(&mut self, done: &StepDone<'_>) {
        let row = json!({
            "event": "saved", "step": done.step, "row": self.row.stored(), "epoch_so_far": self.epoch.stored(),
        });
        if let Value::Object(row) = row {
            self.write(&row);
        }
    }

    fn write(&mut self, row: &Map<String, Value>) {
        let text = serde_json::to_string(row).unwrap_or_default();
        let result = writeln!(self.file, "{text}");
        self.failed = self.failed.take().or(result.err());
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// What could not be written on the way.
    pub(super) fn finish(self) -> Outcome<()> {
        match self.failed {
            Some(source) => Err(OutputError { path: self.path, source }.into()),
            None => Ok(()),
        }
    }
}

/// What the rows had begun with at a step, if a checkpoint was written then.
fn sums_at(step: u64, text: &str) -> Option<(Sums, Sums)> {
    let rows = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let is_it = |r: &Value| {
        r.get("event").and_then(Value::as_str) == Some("saved")
            && r.get("step").and_then(Value::as_u64) == Some(step)
    };
    let saved = rows.into_iter().find(is_it)?;
    Some((Sums::restored(saved.get("row")?)?, Sums::restored(saved.get("epoch_so_far")?)?))
}

/// Takes the rows after a step out of a log. A last row that was not written whole goes too.
fn keep_until(path: &Path, step: u64, text: &str) -> Outcome<()> {
    let within = |line: &&str| {
        let row: Option<Value> = serde_json::from_str(line).ok();
        row.and_then(|r| r.get("step").and_then(Value::as_u64)).is_some_and(|s| s <= step)
    };
    let kept: Vec<&str> = text.lines().filter(within).collect();
    atomic_write(path, |out: &mut dyn Write| {
        kept.iter()
            .try_for_each(|line| writeln!(out, "{line}"))
            .map_err(|source| OutputError { path: path.to_owned(), source })
    })?;
    Ok(())
}

fn in_words(sums: &Sums, done: &StepDone<'_>, batch: usize) -> String {
    let per_step = sums.seconds() / sums.steps.max(1) as f64;
    let accuracy = sums.right.map_or(String::new(), |r| format!("  accuracy {:.2} %", 100.0 * sums.mean(r)));
    let left = (done.steps - done.step) as f64 * per_step;
    let left = if done.step == done.steps { String::new() } else { format!("  {} left", duration(left)) };
    format!(
        "step {:>6}/{}  loss {:.4}{accuracy}  {:.0} images/s{left}",
        done.step,
        done.steps,
        sums.mean(sums.loss),
        batch as f64 / per_step
    )
}

/// Seconds as people say them.
fn duration(seconds: f64) -> String {
    let total = Duration::from_secs_f64(seconds.clamp(0.0, 1e9)).as_secs();
    match (total / 3600, total / 60 % 60, total % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s:02} s"),
        (h, m, _) => format!("{h} h {m:02} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_in_words() {
        assert_eq!(duration(12.4), "12 s");
        assert_eq!(duration(125.0), "2 min 05 s");
        assert_eq!(duration(7500.0), "2 h 05 min");
        assert_eq!(duration(f64::INFINITY), "277777 h 46 min");
    }

    #[test]
    fn rows_after_the_checkpoint_and_half_rows_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(LOG);
        let text = "{\"step\":100}\n{\"step\":150,\"event\":\"epoch\"}\n{\"step\":200}\n{\"step\":2";
        keep_until(&path, 150, text).expect("written");
        let kept = fs::read_to_string(&path).expect("a log");
        assert_eq!(kept, "{\"step\":100}\n{\"step\":150,\"event\":\"epoch\"}\n");
    }

    #[test]
    fn rows_go_on_where_the_checkpoint_was() {
        let sums = Sums { earlier: 3.5, steps: 58, loss: 41.25, right: Some(40.5), ..Sums::new() };
        let row = json!({"event": "saved", "step": 158, "row": sums.stored(), "epoch_so_far": sums.stored()});
        let text = format!("{{\"step\":100}}\n{row}\n{{\"step\":200}}\n{{\"half\":");
        let (row, epoch) = sums_at(158, &text).expect("sums");
        for found in [row, epoch] {
            assert_eq!((found.steps, found.loss, found.right), (58, 41.25, Some(40.5)));
            assert!((3.5..60.0).contains(&found.seconds()));
        }
        assert!(sums_at(100, &text).is_none() && sums_at(159, &text).is_none() && sums_at(158, "").is_none());
    }
}
