//! The checkpoint of a run in its folder.

use crate::failure::{Failure, Outcome};
use gs_runtime::trainer::{Checkpoint, CheckpointError};
use gs_text::output::{OutputError, atomic_write};
use std::fs;
use std::io::Write;
use std::path::Path;

const CHECKPOINT: &str = "checkpoint.safetensors";

/// The checkpoint to go on from, if that was asked for; a folder with a run in it is not overwritten otherwise.
///
/// # Errors
/// A folder that holds a run where a new one was meant, or none to go on with.
pub(super) fn load(folder: &Path, resume: bool) -> Outcome<Option<Checkpoint>> {
    let path = folder.join(CHECKPOINT);
    match (resume, path.exists()) {
        (false, false) => Ok(None),
        (false, true) => Err(Failure::new(format!("{} holds a run already", folder.display()))
            .help("--resume goes on with it; another folder begins a new one")),
        (true, false) => {
            Err(Failure::new(format!("{}: there is no checkpoint to go on from", path.display()))
                .help("leave --resume out to begin"))
        }
        (true, true) => {
            let bytes = fs::read(&path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
            let read = Checkpoint::from_bytes(&bytes);
            Ok(Some(read.map_err(|e| Failure::new(format!("{}: {e}", path.display())))?))
        }
    }
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
