//! The checkpoint of a run in its folder.

use crate::convert::CHECKPOINT;
use crate::failure::{Failure, Outcome};
use gs_runtime::trainer::{Checkpoint, CheckpointError};
use gs_text::output::{OutputError, atomic_write};
use std::fs;
use std::io::Write;
use std::path::Path;

/// Reads a checkpoint.
///
/// # Errors
/// A file that cannot be read, or is none.
pub(super) fn load(path: &Path) -> Outcome<Checkpoint> {
    let bytes = fs::read(path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    Checkpoint::from_bytes(&bytes).map_err(|e| Failure::new(format!("{}: {e}", path.display())))
}

/// Writes a checkpoint in place of the one before, which stays where that fails.
///
/// # Errors
/// A place that cannot be written, such as a full disk.
pub(super) fn save(checkpoint: &Checkpoint, folder: &Path) -> Result<(), CheckpointError> {
    let path = folder.join(CHECKPOINT);
    let bytes = checkpoint.to_bytes()?;
    atomic_write(&path, |out: &mut dyn Write| {
        out.write_all(&bytes).map_err(|source| OutputError { path: path.clone(), source })
    })
    .map_err(|e| CheckpointError::Write(e.into()))
}
