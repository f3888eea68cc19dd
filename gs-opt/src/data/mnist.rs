//! MNIST as the original IDX files, packed with gzip or plain.
//!
//! IDX: a big-endian magic number, a big-endian count per axis, then the bytes.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;

use super::error::{DataError, FileProblem, Result, file_error, open_error};
use super::spec::Split;

pub(super) const SIDE: usize = 28;
pub(super) const IMAGE_BYTES: usize = SIDE * SIDE;
const CLASSES: usize = 10;
const IMAGES_MAGIC: u32 = 0x0803;
const LABELS_MAGIC: u32 = 0x0801;

/// The images of one split, all of them unpacked.
#[derive(Debug)]
pub(super) struct Mnist {
    pixels: Vec<u8>,
}

/// Reads both files of a split.
pub(super) fn open(dir: &Path, split: Split) -> Result<(Mnist, Vec<u8>)> {
    let stem = if split == Split::Train { "train" } else { "t10k" };
    let mut images = Idx::open(&dir.join(format!("{stem}-images-idx3-ubyte.gz")))?;
    images.magic("IDX file of images", IMAGES_MAGIC)?;
    let [count, rows, columns] = [images.word()?, images.word()?, images.word()?];
    if (rows as usize, columns as usize) != (SIDE, SIDE) {
        return Err(file_error(&images.path, FileProblem::ImageSize { rows, columns }));
    }
    let pixels = images.rest(u64::from(count) * IMAGE_BYTES as u64)?;

    let mut labels = Idx::open(&dir.join(format!("{stem}-labels-idx1-ubyte.gz")))?;
    labels.magic("IDX file of labels", LABELS_MAGIC)?;
    let label_count = labels.word()?;
    let classes = labels.rest(u64::from(label_count))?;
    if label_count != count {
        let problem = FileProblem::Counts { labels: label_count as usize, images: count as usize };
        return Err(file_error(&labels.path, problem));
    }
    if let Some((index, &label)) =
        classes.iter().enumerate().find(|&(_, &label)| usize::from(label) >= CLASSES)
    {
        return Err(file_error(&labels.path, FileProblem::Label { index, label, classes: CLASSES }));
    }
    Ok((Mnist { pixels }, classes))
}

impl Mnist {
    /// Writes image `index` to `out`: row, column.
    pub(super) fn read(&self, index: usize, out: &mut [u8]) {
        let image = self.pixels.chunks_exact(IMAGE_BYTES).nth(index).unwrap_or_default();
        for (byte, &pixel) in out.iter_mut().zip(image) {
            *byte = pixel;
        }
    }
}

/// A file being read from its front.
struct Idx {
    path: PathBuf,
    reader: Box<dyn Read>,
    consumed: u64,
}

impl Idx {
    /// Opens `path`, or the file without `.gz` where there is no packed one.
    fn open(path: &Path) -> Result<Idx> {
        let plain = path.with_extension("");
        if !path.exists() && plain.exists() {
            let file = File::open(&plain).map_err(|source| open_error(&plain, source))?;
            return Ok(Idx { path: plain, reader: Box::new(BufReader::new(file)), consumed: 0 });
        }
        let file = File::open(path).map_err(|source| open_error(path, source))?;
        let reader = Box::new(GzDecoder::new(BufReader::new(file)));
        Ok(Idx { path: path.to_path_buf(), reader, consumed: 0 })
    }

    fn magic(&mut self, expected: &'static str, magic: u32) -> Result<()> {
        match self.word()? {
            found if found == magic => Ok(()),
            found => Err(file_error(&self.path, FileProblem::Magic { expected, magic, found })),
        }
    }

    fn word(&mut self) -> Result<u32> {
        let bytes = self.take(4)?;
        Ok(bytes.iter().fold(0, |word, &byte| word << 8 | u32::from(byte)))
    }

    /// The next `count` bytes. Memory grows with what the file really holds, not with what it announces.
    fn take(&mut self, count: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.reader.by_ref().take(count).read_to_end(&mut bytes);
        read.map_err(|error| self.read_error(error))?;
        if (bytes.len() as u64) < count {
            let (expected, found) = (self.consumed + count, self.consumed + bytes.len() as u64);
            return Err(file_error(&self.path, FileProblem::Truncated { expected, found }));
        }
        self.consumed += count;
        Ok(bytes)
    }

    /// The next `count` bytes, which must be the last.
    fn rest(&mut self, count: u64) -> Result<Vec<u8>> {
        let bytes = self.take(count)?;
        let more = self.reader.by_ref().take(1).read_to_end(&mut Vec::new());
        match more.map_err(|error| self.read_error(error))? {
            0 => Ok(bytes),
            _ => Err(file_error(&self.path, FileProblem::Trailing { expected: self.consumed })),
        }
    }

    fn read_error(&self, source: io::Error) -> DataError {
        match source.kind() {
            // What gzip says of a damaged stream, and of one that ends too early.
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                let message = source.to_string();
                file_error(&self.path, FileProblem::Compression { format: "gzip", message })
            }
            _ => DataError::Io { path: self.path.clone(), source },
        }
    }
}
