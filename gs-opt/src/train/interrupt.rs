//! Ctrl-C while a network is trained: the run stops after a step, with a checkpoint.

use crate::failure::STOPPED;
use crate::warn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether somebody wants the run to stop.
pub(super) struct Interrupt {
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    /// Watches for Ctrl-C from now on; the second one ends the program at once, as it does where nobody watches.
    pub(super) fn watch() -> Self {
        let asked = Arc::new(AtomicBool::new(false));
        let seen = asked.clone();
        // Refused where the signal is ignored, as in the background of a script: then it stays so.
        let _ = ctrlc::try_set_handler(move || {
            if seen.swap(true, Ordering::Relaxed) {
                std::process::exit(i32::from(STOPPED));
            }
            warn!("stopping after this step; Ctrl-C again stops at once");
        });
        Self { asked }
    }

    /// Whether the run is to stop.
    pub(super) fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}
