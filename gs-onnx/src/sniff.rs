//! Guesses what a file is that turned out not to be ONNX, so that the message can say it.

use std::fmt;

/// A kind of file, recognised by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// GSIR text.
    Gsir,
    /// Pointer of git-lfs.
    GitLfs,
    /// JSON text.
    Json,
    /// HTML page, often a saved error page.
    Html,
    /// Text form of ONNX.
    OnnxText,
    /// Other text.
    Text,
    /// ZIP archive, also the form of PyTorch checkpoints and npz.
    Zip,
    /// safetensors.
    Safetensors,
    /// Pickle, also the old form of PyTorch checkpoints.
    Pickle,
    /// NumPy array.
    Npy,
    /// GGUF.
    Gguf,
    /// HDF5, also the form of Keras weights.
    Hdf5,
    /// TensorFlow Lite.
    Tflite,
    /// ONNX Runtime's own format.
    Ort,
    /// Compressed with gzip.
    Gzip,
    /// Compressed with zstd.
    Zstd,
    /// A stored ONNX tensor, not a model.
    OnnxTensor,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gsir => "GSIR text",
            Self::GitLfs => "a git-lfs pointer (run `git lfs pull`)",
            Self::Json => "JSON",
            Self::Html => "an HTML page (a failed download?)",
            Self::OnnxText => "the text form of ONNX (convert it with onnx.parser)",
            Self::Text => "text",
            Self::Zip => "a ZIP archive (PyTorch checkpoint or npz?)",
            Self::Safetensors => "safetensors (weights without a graph)",
            Self::Pickle => "a pickle (old PyTorch checkpoint?)",
            Self::Npy => "a NumPy array",
            Self::Gguf => "GGUF",
            Self::Hdf5 => "HDF5 (Keras weights?)",
            Self::Tflite => "TensorFlow Lite",
            Self::Ort => "ONNX Runtime's .ort format (start from the .onnx file)",
            Self::Gzip => "gzip (unpack it first)",
            Self::Zstd => "zstd (unpack it first)",
            Self::OnnxTensor => "a stored ONNX tensor, not a model",
        })
    }
}

/// Says what `bytes` seem to be, if that can be told.
pub fn sniff(bytes: &[u8]) -> Option<Format> {
    const MAGIC: [(usize, &[u8], Format); 10] = [
        (0, b"PK\x03\x04", Format::Zip),
        (0, b"\x93NUMPY", Format::Npy),
        (0, b"GGUF", Format::Gguf),
        (0, b"\x89HDF", Format::Hdf5),
        (4, b"TFL3", Format::Tflite),
        (4, b"ORTM", Format::Ort),
        (0, b"\x1f\x8b", Format::Gzip),
        (0, b"\x28\xb5\x2f\xfd", Format::Zstd),
        (8, b"{\"", Format::Safetensors),
        (0, b"\x80\x02", Format::Pickle),
    ];
    MAGIC
        .iter()
        .find(|(at, magic, _)| bytes.get(*at..).is_some_and(|rest| rest.starts_with(magic)))
        .map(|(_, _, format)| *format)
        .or_else(|| sniff_text(bytes))
}

fn sniff_text(bytes: &[u8]) -> Option<Format> {
    let head = bytes.get(..512).unwrap_or(bytes);
    let printable = |b: &u8| b.is_ascii_graphic() || b.is_ascii_whitespace() || *b >= 0x80;
    if head.is_empty() || !head.iter().all(printable) {
        return None;
    }
    let text = String::from_utf8_lossy(head);
    let text = text.trim_start();
    let lower = text.to_ascii_lowercase();
    Some(if text.starts_with("gsir ") {
        Format::Gsir
    } else if text.starts_with("version https://git-lfs") {
        Format::GitLfs
    } else if text.starts_with(['{', '[']) {
        Format::Json
    } else if lower.starts_with("<!doctype html") || lower.starts_with("<html") {
        Format::Html
    } else if text.starts_with('<') && text.contains("ir_version") {
        Format::OnnxText
    } else {
        Format::Text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_files_are_recognised() {
        let cases: [(&[u8], Option<Format>); 9] = [
            (b"PK\x03\x04rest", Some(Format::Zip)),
            (b"\x20\x00\x00\x00\x00\x00\x00\x00{\"w\":1}", Some(Format::Safetensors)),
            (b"gsir 1\n", Some(Format::Gsir)),
            (b"{ \"a\": 1 }", Some(Format::Json)),
            (b"version https://git-lfs.github.com/spec/v1\n", Some(Format::GitLfs)),
            (b"<\n  ir_version: 8\n>", Some(Format::OnnxText)),
            (b"<!DOCTYPE HTML>", Some(Format::Html)),
            (b"\x08\x07\x12\x00", None),
            (b"", None),
        ];
        for (bytes, want) in cases {
            assert_eq!(sniff(bytes), want, "{bytes:?}");
        }
    }
}
