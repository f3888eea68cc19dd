//! The folder of a run: one run at a time writes to it, nobody else's files are replaced, and a run that fails before
//! its first checkpoint leaves none of its own.

use super::saved;
use crate::convert::{BEGAN_WITH, CHECKPOINT, TRAINED};
use crate::failure::{Failure, Outcome};
use gs_runtime::trainer::Checkpoint;
use gs_text::output::OutputError;
use std::cell::Cell;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// The log of a run.
pub(super) const LOG: &str = "log.jsonl";
/// The weights beside the trained network.
const WEIGHTS: &str = "trained.gsir.safetensors";
/// What a run writes, but for its checkpoint.
const OWN: [&str; 4] = [BEGAN_WITH, LOG, TRAINED, WEIGHTS];

/// The file that a run holds a lock on. The operating system takes the lock off a process that ends in any way; the
/// file stays behind if it was killed, and says that what else is there are the remains of a run.
const LOCK: &str = "run.lock";

/// Attempts to lock a file that others take away meanwhile.
const ATTEMPTS: usize = 8;

/// The folder of a run that writes to it.
pub(super) struct RunFolder {
    path: PathBuf,
    /// Folders that were made for it, the innermost first.
    made: Vec<PathBuf>,
    /// Whether what lies in it stays in any case.
    kept: Cell<bool>,
    lock: Option<File>,
}

impl RunFolder {
    /// Whether a new run can go into a folder; nothing is written.
    ///
    /// # Errors
    /// A folder that holds a run, or files that this one would replace.
    pub(super) fn check_new(path: &Path) -> Outcome<()> {
        if path.join(CHECKPOINT).exists() {
            return Err(Failure::new(format!("{} holds a run already", path.display()))
                .help("--resume goes on with it; another folder begins a new one"));
        }
        if path.join(LOCK).exists() {
            return Ok(());
        }
        let there: Vec<&str> = OWN.into_iter().filter(|name| path.join(name).is_file()).collect();
        if there.is_empty() {
            return Ok(());
        }
        Err(Failure::new(format!("{} holds {}, which a run would replace", path.display(), there.join(", ")))
            .help("name another folder, or move what is there away"))
    }

    /// Makes the folder of a new run, and takes it.
    ///
    /// # Errors
    /// As [`Self::check_new`]; a folder that cannot be made, or that another run writes to.
    pub(super) fn begin(path: &Path) -> Outcome<Self> {
        let missing = |p: &&Path| !p.as_os_str().is_empty() && !p.exists();
        let made: Vec<PathBuf> = path.ancestors().take_while(missing).map(Path::to_owned).collect();
        fs::create_dir_all(path)
            .map_err(|e| Failure::new(format!("{}: it cannot be made a folder: {e}", path.display())))?;
        let mut folder = Self { path: path.to_owned(), made, kept: Cell::new(true), lock: None };
        folder.lock = Some(lock(path)?);
        // Another run may have come and gone since it was asked; its lock is ours now, and says nothing.
        if path.join(CHECKPOINT).exists() {
            Self::check_new(path)?;
        }
        folder.kept.set(false);
        Ok(folder)
    }

    /// Takes the folder of a run that goes on.
    ///
    /// # Errors
    /// A folder without a checkpoint or with a damaged one, or one that another run writes to.
    pub(super) fn resume(path: &Path) -> Outcome<(Self, Checkpoint)> {
        let checkpoint = path.join(CHECKPOINT);
        if !checkpoint.exists() {
            return Err(Failure::new(format!(
                "{}: there is no checkpoint to go on from",
                checkpoint.display()
            ))
            .help("leave --resume out to begin"));
        }
        let lock = Some(lock(path)?);
        let folder = Self { path: path.to_owned(), made: Vec::new(), kept: Cell::new(true), lock };
        Ok((folder, saved::load(&checkpoint)?))
    }

    /// What lies in it is worth keeping, whatever happens.
    pub(super) fn keep(&self) {
        self.kept.set(true);
    }

    /// Whether there is something to go on with.
    pub(super) fn is_kept(&self) -> bool {
        self.kept.get()
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // What cannot be taken away stays; there is nothing to be done about it.
        if !self.kept.get() {
            let own = OWN.into_iter().map(|name| self.path.join(name)).filter(|p| p.is_file());
            own.for_each(|file| drop(fs::remove_file(file)));
        }
        if let Some(lock) = self.lock.take() {
            let _ = fs::remove_file(self.path.join(LOCK));
            drop(lock);
        }
        // Only those that are empty go.
        self.made.iter().for_each(|folder| drop(fs::remove_dir(folder)));
    }
}

/// Locks a folder for this process.
fn lock(folder: &Path) -> Outcome<File> {
    let path = folder.join(LOCK);
    let failed = |source| OutputError { path: path.clone(), source };
    let own = format!("{}\n", std::process::id());
    for _ in 0..ATTEMPTS {
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        // On a file system without locks two runs at once cannot be told.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(busy(folder, &mut file));
        }
        file.set_len(0).and_then(|()| file.write_all(own.as_bytes())).map_err(failed)?;
        // A run that ended takes its file away: what is locked must be what others find. Where a locked file cannot be
        // read, it cannot be taken away either.
        match fs::read_to_string(&path) {
            Ok(text) if text != own => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            _ => return Ok(file),
        }
    }
    Err(Failure::new(format!("{}: other runs come and go there", folder.display()))
        .help("name another folder"))
}

fn busy(folder: &Path, file: &mut File) -> Failure {
    let mut process = String::new();
    let _ = file.read_to_string(&mut process);
    let process = match process.trim() {
        "" => String::new(),
        id => format!(" (process {id})"),
    };
    Failure::new(format!("{}: another run{process} writes to this folder", folder.display()))
        .help("wait for its end, or name another folder")
}
