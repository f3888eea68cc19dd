//! Weights that lie in files beside the model.
//!
//! A location is a path relative to the model's folder. It may not leave that folder, neither by `..` nor by a
//! link: a model from a stranger must not be able to pull other files into what we write. One kind of link is
//! let through, because download caches are made of them: when the model itself is a link, its weights may lie
//! in the folder where the model really is.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use crate::error::{Error, ExternalProblem};
use crate::map::map_file;
use crate::proto::TensorProto;

/// The folder of a model and the external files mapped so far.
#[derive(Debug)]
pub struct ExternalFiles {
    folder: PathBuf,
    real_folders: Vec<PathBuf>,
    maps: BTreeMap<String, Bytes>,
}

impl ExternalFiles {
    /// Files beside the model at `model`.
    pub fn beside(model: &Path) -> Self {
        let folder = model.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let real_model = model.canonicalize().ok();
        let beside_real = real_model.as_deref().and_then(Path::parent).map(Path::to_owned);
        let real_folders = folder.canonicalize().ok().into_iter().chain(beside_real).collect();
        Self { folder: folder.to_owned(), real_folders, maps: BTreeMap::new() }
    }

    /// The bytes of a tensor of `needed` bytes, as a slice of the mapped file.
    ///
    /// # Errors
    /// Names tensor, file and offset: the entry is malformed, the path leaves the folder, the file is missing or
    /// too short.
    pub fn slice(&mut self, tensor: &TensorProto, needed: u64) -> Result<Bytes, Error> {
        let entry =
            |key: &str| tensor.external_data.iter().find(|e| e.key() == key).map(|e| e.value().to_owned());
        let location = entry("location").unwrap_or_default();
        let mut offset = 0;
        let result = number("offset", entry("offset")).and_then(|at| {
            offset = at.unwrap_or(0);
            let length = number("length", entry("length"))?.unwrap_or(needed);
            if location.is_empty() {
                return Err(ExternalProblem::NoLocation);
            }
            let file = self.file(&location)?;
            cut(&file, offset, needed, length)
        });
        result.map_err(|problem| Error::External {
            tensor: tensor.name().to_owned(),
            location,
            offset,
            problem,
        })
    }

    fn file(&mut self, location: &str) -> Result<Bytes, ExternalProblem> {
        if let Some(map) = self.maps.get(location) {
            return Ok(map.clone());
        }
        let path = self.resolve(location)?;
        let map = map_file(&path).map_err(|e| match e {
            Error::Io { source, .. } => ExternalProblem::Io(source),
            other => ExternalProblem::Io(std::io::Error::other(other)),
        })?;
        self.maps.insert(location.to_owned(), map.clone());
        Ok(map)
    }

    fn resolve(&self, location: &str) -> Result<PathBuf, ExternalProblem> {
        let relative = Path::new(location);
        if !relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
            return Err(ExternalProblem::Escapes);
        }
        let real = self.folder.join(relative).canonicalize().map_err(ExternalProblem::Io)?;
        if self.real_folders.iter().any(|folder| real.starts_with(folder)) {
            return Ok(real);
        }
        Err(ExternalProblem::Escapes)
    }
}

fn number(key: &'static str, text: Option<String>) -> Result<Option<u64>, ExternalProblem> {
    text.map(|value| value.parse().map_err(|_| ExternalProblem::NotANumber { key, value })).transpose()
}

fn cut(file: &Bytes, offset: u64, needed: u64, length: u64) -> Result<Bytes, ExternalProblem> {
    let file_length = file.len() as u64;
    // A stated length shorter than the tensor is as wrong as a short file; a longer one may hold padding.
    let end = offset.checked_add(needed).filter(|&end| end <= file_length && needed <= length);
    match end {
        Some(end) => Ok(file.slice(offset as usize..end as usize)),
        None => Err(ExternalProblem::OutOfRange {
            needed,
            file_length: file_length.min(offset.saturating_add(length)),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::StringStringEntryProto;

    fn tensor(entries: &[(&str, &str)]) -> TensorProto {
        let entry = |(k, v): &(&str, &str)| StringStringEntryProto {
            key: Some((*k).to_owned()),
            value: Some((*v).to_owned()),
        };
        TensorProto {
            name: Some("w".into()),
            external_data: entries.iter().map(entry).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn slices_come_from_the_folder_and_from_nowhere_else() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let inner = dir.path().join("model");
        std::fs::create_dir(&inner).expect("folder");
        std::fs::write(inner.join("w.bin"), b"0123456789").expect("write");
        std::fs::write(dir.path().join("secret"), b"0123456789").expect("write");
        let mut files = ExternalFiles::beside(&inner.join("m.onnx"));
        let got = files.slice(&tensor(&[("location", "w.bin"), ("offset", "2"), ("length", "4")]), 4);
        assert_eq!(&got.expect("slice")[..], b"2345");

        let absolute = inner.join("w.bin");
        let absolute = absolute.to_str().expect("path");
        for bad in ["../secret", absolute, "a/../../secret"] {
            let got = files.slice(&tensor(&[("location", bad)]), 1);
            assert!(matches!(got, Err(Error::External { problem: ExternalProblem::Escapes, .. })), "{bad}");
        }
        for (bad, needed) in [("7", 4), ("18446744073709551615", 4)] {
            let got = files.slice(&tensor(&[("location", "w.bin"), ("offset", bad)]), needed);
            assert!(matches!(got, Err(Error::External { problem: ExternalProblem::OutOfRange { .. }, .. })));
        }
        let short = files.slice(&tensor(&[("location", "w.bin"), ("length", "2")]), 4);
        assert!(matches!(short, Err(Error::External { problem: ExternalProblem::OutOfRange { .. }, .. })));
        let missing = files.slice(&tensor(&[("location", "none.bin"), ("offset", "16")]), 4);
        let text = missing.expect_err("missing file").to_string();
        assert!(text.contains("'w'") && text.contains("none.bin") && text.contains("16"), "{text}");
        let no_number = files.slice(&tensor(&[("location", "w.bin"), ("offset", "x")]), 4);
        assert!(matches!(
            no_number,
            Err(Error::External { problem: ExternalProblem::NotANumber { .. }, .. })
        ));
    }

    #[cfg(unix)]
    #[test]
    fn links_out_of_the_folder_are_refused_unless_the_model_is_linked_there_too() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().expect("temporary folder");
        let (cache, snapshot) = (dir.path().join("blobs"), dir.path().join("snapshot"));
        std::fs::create_dir(&cache).expect("folder");
        std::fs::create_dir(&snapshot).expect("folder");
        std::fs::write(cache.join("w"), b"abcd").expect("write");
        std::fs::write(cache.join("m"), b"model").expect("write");
        symlink(cache.join("w"), snapshot.join("w.bin")).expect("link");
        let wanted = tensor(&[("location", "w.bin")]);
        let refused = ExternalFiles::beside(&snapshot.join("m.onnx")).slice(&wanted, 4);
        assert!(matches!(refused, Err(Error::External { problem: ExternalProblem::Escapes, .. })));
        symlink(cache.join("m"), snapshot.join("m.onnx")).expect("link");
        let taken = ExternalFiles::beside(&snapshot.join("m.onnx")).slice(&wanted, 4);
        assert_eq!(&taken.expect("slice")[..], b"abcd");
    }
}
