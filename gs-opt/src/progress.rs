//! Progress on a terminal; nothing in a pipe.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

/// Shows one bar at a time on standard error, if that is a terminal.
pub struct Progress {
    bar: Option<(String, ProgressBar)>,
    shown: bool,
}

impl Progress {
    /// Shows nothing yet.
    pub fn new() -> Self {
        Self { bar: None, shown: std::io::stderr().is_terminal() }
    }

    /// Tells how much of something is done. A new name starts a new bar.
    pub fn tell(&mut self, what: &str, done: usize, total: usize) {
        if !self.shown {
            return;
        }
        if self.bar.as_ref().is_none_or(|(name, _)| name != what) {
            self.finish();
            let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{msg:12} {bar:32} {pos}/{len} {eta}") {
                bar.set_style(style);
            }
            bar.set_message(what.to_owned());
            self.bar = Some((what.to_owned(), bar));
        }
        if let Some((_, bar)) = &self.bar {
            bar.set_position(done as u64);
        }
    }

    /// Takes the bar away.
    pub fn finish(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
