//! Writing files such that a failed run leaves nothing half-written.
//!
//! The bytes go to a temporary file beside the target, which takes the target's name when it is complete. So a
//! file that is being read or mapped is not touched either: the old contents live on until the last reader
//! lets go. What is no regular file, such as `/dev/null` or a pipe, is written directly. Links are followed.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

/// Links to links beyond this number are taken for a circle, as by the Linux kernel.
const MOST_LINKS: usize = 40;

/// An output file could not be written. What stood there before is unharmed, if it was a regular file.
#[derive(Debug, thiserror::Error)]
#[error("{}: it cannot be written: {}", path.display(), reason(path, source))]
pub struct OutputError {
    /// The file asked for.
    pub path: PathBuf,
    /// What the operating system says.
    pub source: io::Error,
}

impl OutputError {
    /// What to do, where that can be told.
    pub fn help(&self) -> Option<String> {
        match self.source.kind() {
            io::ErrorKind::NotFound if !folder(&self.path).exists() => {
                Some(format!("create the folder first: mkdir -p {}", folder(&self.path).display()))
            }
            io::ErrorKind::IsADirectory => Some("name a file in it".to_owned()),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Some("choose another place, or give yourself leave to write there".to_owned())
            }
            io::ErrorKind::StorageFull => Some("make room, or choose another place".to_owned()),
            _ => None,
        }
    }
}

/// Why a path cannot be written, in terms of that path.
fn reason(path: &Path, error: &io::Error) -> String {
    let folder = folder(path);
    match error.kind() {
        io::ErrorKind::NotFound if !folder.exists() => format!("there is no folder {}", folder.display()),
        io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        io::ErrorKind::NotADirectory => format!("{} is no folder", folder.display()),
        io::ErrorKind::PermissionDenied if path.exists() => "the file is write-protected".to_owned(),
        io::ErrorKind::PermissionDenied => format!("no leave to write in {}", folder.display()),
        _ => error.to_string(),
    }
}

/// Whether a path can be written, as far as that can be told without writing it: for saying so before long work.
///
/// # Errors
/// As [`AtomicFile::create`].
pub fn check(path: &Path) -> Result<(), OutputError> {
    match fs::metadata(path) {
        // Opening a pipe and closing it again would end it for its reader.
        Ok(old) if !old.is_file() && !old.is_dir() => Ok(()),
        _ => AtomicFile::create(path).map(drop),
    }
}

/// A file that appears under its name at [`AtomicFile::commit`], or never.
#[derive(Debug)]
pub struct AtomicFile {
    asked: PathBuf,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Beside { temp: NamedTempFile, target: PathBuf },
    Direct(File),
}

impl AtomicFile {
    /// Prepares to write `path`.
    ///
    /// # Errors
    /// A folder, a file without leave to write, a circle of links, or a refusal of the operating system.
    pub fn create(path: &Path) -> Result<AtomicFile, OutputError> {
        let failed = |source| OutputError { path: path.to_path_buf(), source };
        let place = match fs::metadata(path) {
            Ok(old) if old.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            // Opened by the path as given: what `/dev/stdout` links to is no path when it is a pipe.
            Ok(old) if !old.is_file() => OpenOptions::new().write(true).open(path).map(Place::Direct),
            Ok(old) if old.permissions().readonly() => Err(io::ErrorKind::PermissionDenied.into()),
            Ok(old) => fs::canonicalize(path).and_then(|target| beside(target, Some(&old))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                follow_links(path).and_then(|target| beside(target, None))
            }
            Err(error) => Err(error),
        };
        Ok(AtomicFile { asked: path.to_path_buf(), place: place.map_err(failed)? })
    }

    /// Whether the bytes go to a regular file, in which one can seek.
    pub fn is_regular(&self) -> bool {
        matches!(self.place, Place::Beside { .. })
    }

    /// Writes through a buffer, to the end of what was written before.
    ///
    /// # Errors
    /// Those of `write` and of the operating system.
    pub fn write(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), OutputError> {
        let mut out = BufWriter::with_capacity(1 << 20, self.file());
        let written = write(&mut out).and_then(|()| out.flush());
        drop(out);
        written.map_err(|source| OutputError { path: self.asked.clone(), source })
    }

    /// Where to write.
    pub fn file(&mut self) -> &mut File {
        match &mut self.place {
            Place::Beside { temp, .. } => temp.as_file_mut(),
            Place::Direct(file) => file,
        }
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// The operating system's; the temporary file is gone then.
    pub fn commit(self) -> Result<(), OutputError> {
        let failed = |source| OutputError { path: self.asked.clone(), source };
        match self.place {
            Place::Direct(mut file) => file.flush().map_err(failed),
            Place::Beside { temp, target } => {
                // Without this a crash soon after could leave the new name on an empty file.
                temp.as_file().sync_all().map_err(failed)?;
                temp.persist(&target).map(drop).map_err(|error| failed(error.error))
            }
        }
    }
}

/// Writes `path` with `write`, buffered. If `write` fails, the path is as it was before.
///
/// # Errors
/// Those of `write`, and [`OutputError`].
pub fn atomic_write<T, E: From<OutputError>>(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<T, E> {
    let mut file = AtomicFile::create(path)?;
    let mut buffered = BufWriter::new(file.file());
    let value = write(&mut buffered)?;
    let flushed = buffered.flush();
    drop(buffered);
    flushed.map_err(|source| OutputError { path: path.to_path_buf(), source })?;
    file.commit()?;
    Ok(value)
}

/// The path at the end of a chain of links to something that does not exist yet.
fn follow_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&path) {
            // A relative link starts in the folder that holds it; `join` keeps an absolute one as it is.
            Ok(link) => path = folder(&path).join(link),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many links"))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn beside(target: PathBuf, old: Option<&Metadata>) -> io::Result<Place> {
    let mut builder = Builder::new();
    builder.prefix(".gs-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Less what the user's umask forbids; the default of the crate would be readable by the owner alone.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let temp = builder.tempfile_in(folder(&target)).map_err(without_path)?;
    if let Some(old) = old {
        temp.as_file().set_permissions(old.permissions())?;
    }
    Ok(Place::Beside { temp, target })
}

/// The error without the name of the temporary file, which nobody asked for.
fn without_path(error: io::Error) -> io::Error {
    let text = error.to_string();
    match text.split_once(" at path ") {
        Some((text, _)) => io::Error::new(error.kind(), text),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn put(path: &Path, text: &str) -> Result<(), OutputError> {
        atomic_write(path, |out| {
            out.write_all(text.as_bytes()).map_err(|source| OutputError { path: path.to_path_buf(), source })
        })
    }

    #[test]
    fn writes_and_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        put(&path, "one, and longer").unwrap();
        put(&path, "two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(names(dir.path()), ["a"]);
    }

    #[test]
    fn a_failed_writer_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        put(&path, "old").unwrap();
        let failed: Result<(), OutputError> = atomic_write(&path, |out| {
            out.write_all(&[7; 100_000]).unwrap();
            Err(OutputError { path: path.clone(), source: io::Error::other("on purpose") })
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(dir.path()), ["a"]);
    }

    #[test]
    fn folders_and_missing_folders_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(put(dir.path(), "x").unwrap_err().source.kind(), io::ErrorKind::IsADirectory);
        let lost = dir.path().join("no/such/a");
        let error = put(&lost, "x").unwrap_err();
        assert_eq!((error.source.kind(), &error.path), (io::ErrorKind::NotFound, &lost));
        let (text, help) = (error.to_string(), error.help().unwrap_or_default());
        assert!(
            text.ends_with(&format!("there is no folder {}", dir.path().join("no/such").display())),
            "{text}"
        );
        assert!(help.contains("mkdir") && !text.contains(".gs-"), "{text} {help}");
        assert!(check(&lost).is_err() && check(dir.path()).is_err());
        check(&dir.path().join("b")).unwrap();
        assert!(names(dir.path()).is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_stay() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        symlink("link2", at("link1")).unwrap();
        symlink("sub/real", at("link2")).unwrap();
        // The end of the chain does not exist the first time.
        for text in ["one", "two"] {
            put(&at("link1"), text).unwrap();
            assert_eq!(fs::read_to_string(at("sub/real")).unwrap(), text);
        }
        assert!(fs::symlink_metadata(at("link1")).unwrap().is_symlink());
        symlink("circle", at("circle")).unwrap();
        assert!(put(&at("circle"), "x").is_err());
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_kept() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        put(&path, "new").unwrap();
        let plain = dir.path().join("plain");
        fs::write(&plain, "x").unwrap();
        assert_eq!(mode(&path), mode(&plain));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        put(&path, "newer").unwrap();
        assert_eq!(mode(&path), 0o640);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        assert_eq!(put(&path, "x").unwrap_err().source.kind(), io::ErrorKind::PermissionDenied);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn devices_and_pipes_are_written_directly() {
        use std::io::Read;
        use std::os::fd::AsRawFd;
        put(Path::new("/dev/null"), "x").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        let (mut reader, writer) = io::pipe().unwrap();
        put(Path::new(&format!("/proc/self/fd/{}", writer.as_raw_fd())), "through").unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }
}
