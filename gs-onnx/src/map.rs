//! Files as [`Bytes`] without copying: a memory map that lives as long as any slice of it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;

use crate::error::Error;

/// Largest input taken from something that cannot be mapped; no protobuf message may be larger.
const PIPE_LIMIT: u64 = i32::MAX as u64;

/// Maps a file. What is no regular file (a pipe, say) is read to its end instead.
///
/// # Errors
/// The file cannot be opened, mapped or read; or a pipe gives more than 2 GiB.
pub fn map_file(path: &Path) -> Result<Bytes, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    let meta = file.metadata().map_err(io)?;
    if !meta.is_file() {
        return read_limited(file, path);
    }
    if meta.len() == 0 {
        return Ok(Bytes::new()); // an empty map is an error on some systems
    }
    map_regular(&file).map_err(io)
}

fn map_regular(file: &File) -> std::io::Result<Bytes> {
    // SAFETY: the map is read-only and private to this process, and `Bytes` keeps it alive for every slice.
    // Soundness needs that nobody shortens or rewrites the file meanwhile. No program can check that; this one
    // keeps its side of it by writing outputs to a new file that is renamed, never into a mapped one.
    let map = unsafe { memmap2::Mmap::map(file)? };
    Ok(Bytes::from_owner(map))
}

fn read_limited(file: File, path: &Path) -> Result<Bytes, Error> {
    let mut bytes = Vec::new();
    file.take(PIPE_LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| Error::Io { path: path.to_owned(), source })?;
    if bytes.len() as u64 > PIPE_LIMIT {
        return Err(Error::Endless { path: path.to_owned(), limit: PIPE_LIMIT });
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_outlives_the_handle_and_empty_files_are_fine() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let full = dir.path().join("full");
        std::fs::write(&full, b"abcdef").expect("write");
        let part = map_file(&full).expect("map").slice(2..4);
        assert_eq!(&part[..], b"cd");
        let empty = dir.path().join("empty");
        std::fs::write(&empty, b"").expect("write");
        assert!(map_file(&empty).expect("map").is_empty());
        assert!(matches!(map_file(&dir.path().join("none")), Err(Error::Io { .. })));
        assert!(matches!(map_file(dir.path()), Err(Error::Io { .. })));
    }
}
