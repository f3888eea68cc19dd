//! Writing numpy archives (`.npz`), whole arrays or batch by batch.
//!
//! An archive holds one array after the other, each with its length in front, while a network yields a batch
//! of every output at a time. So rows are collected per array, in memory while they are few and in temporary
//! files beyond that, and put together at the end.

use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::SpooledTempFile;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::array::{DType, NamedArray, byte_size};
use super::error::{ArrayProblem, DataError, Result, io_error};
use super::npy;
use gs_text::output::{AtomicFile, OutputError};

/// Arrays up to this size stay in memory until the end.
const SPOOL_BYTES: usize = 4 << 20;

/// Collects arrays for one archive. Nothing exists at `path` before [`NpzWriter::finish`].
#[derive(Debug)]
pub struct NpzWriter {
    path: PathBuf,
    arrays: Vec<Pending>,
}

#[derive(Debug)]
struct Pending {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    data: SpooledTempFile,
}

impl NpzWriter {
    /// A writer for an archive at `path`.
    pub fn new(path: &Path) -> NpzWriter {
        NpzWriter { path: path.to_path_buf(), arrays: Vec::new() }
    }

    /// Adds a whole array, of any rank.
    ///
    /// # Errors
    /// An array without a name or with one that is taken; bytes that do not fit the shape; a full disk.
    pub fn add(&mut self, array: &NamedArray) -> Result<()> {
        let name = self.check(array)?;
        if self.arrays.iter().any(|pending| pending.name == name) {
            return Err(self.problem(ArrayProblem::Duplicate { array: name }));
        }
        self.start(name, array)
    }

    /// Appends the rows of a batch to the array of that name, or starts it. Type and shape of the rows must be
    /// those of the rows before.
    ///
    /// # Errors
    /// As [`NpzWriter::add`], and rows that do not fit the array.
    pub fn append(&mut self, batch: &NamedArray) -> Result<()> {
        let name = self.check(batch)?;
        let Some((&rows, item_shape)) = batch.shape.split_first() else {
            return Err(self.problem(ArrayProblem::NoBatchAxis { array: name }));
        };
        let Some(pending) = self.arrays.iter_mut().find(|pending| pending.name == name) else {
            return self.start(name, batch);
        };
        match pending.shape.split_first_mut() {
            Some((total, shape)) if shape == item_shape && pending.dtype == batch.dtype => {
                *total += rows;
                pending.data.write_all(&batch.bytes).map_err(io_error(&self.path))
            }
            _ => {
                let problem = ArrayProblem::Append {
                    array: name,
                    dtype: pending.dtype,
                    shape: pending.shape.get(1..).unwrap_or_default().to_vec(),
                    other_dtype: batch.dtype,
                    other_shape: item_shape.to_vec(),
                };
                Err(self.problem(problem))
            }
        }
    }

    /// Writes the archive in one step: it is whole or it is not there.
    ///
    /// # Errors
    /// The operating system's.
    pub fn finish(self) -> Result<()> {
        let path = self.path.clone();
        let mut file = AtomicFile::create(&path)?;
        // A pipe cannot be wound back to fill in lengths; they then follow the data.
        let written = if file.is_regular() {
            self.write(ZipWriter::new(BufWriter::new(file.file())))
        } else {
            self.write(ZipWriter::new_stream(BufWriter::new(file.file())))
        };
        written.map_err(|source| OutputError { path, source })?;
        Ok(file.commit()?)
    }

    fn write<W: Write + Seek>(mut self, mut zip: ZipWriter<W>) -> io::Result<()> {
        for pending in &mut self.arrays {
            let header = npy::write_header(pending.dtype, &pending.shape);
            let bytes = pending.data.seek(SeekFrom::End(0))? + header.len() as u64;
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Stored)
                // The same arrays make the same file at any time.
                .last_modified_time(DateTime::default())
                .large_file(bytes >= u64::from(u32::MAX));
            zip.start_file(format!("{}.npy", pending.name), options)?;
            zip.write_all(&header)?;
            pending.data.rewind()?;
            io::copy(&mut pending.data, &mut zip)?;
        }
        zip.finish()?.flush()
    }

    /// The array's name, if its bytes fit its shape and the format can say that shape.
    fn check(&self, array: &NamedArray) -> Result<String> {
        let name = array.name.clone().ok_or_else(|| self.problem(ArrayProblem::Unnamed))?;
        let (axes, most) = (array.shape.len(), npy::MOST_AXES);
        if axes > most {
            return Err(self.problem(ArrayProblem::Axes { array: name, axes, most }));
        }
        if byte_size(array.dtype, &array.shape) == Some(array.bytes.len()) {
            return Ok(name);
        }
        let (dtype, shape, bytes) = (array.dtype, array.shape.clone(), array.bytes.len());
        Err(self.problem(ArrayProblem::Bytes { array: name, dtype, shape, bytes }))
    }

    fn start(&mut self, name: String, array: &NamedArray) -> Result<()> {
        let mut data = tempfile::spooled_tempfile(SPOOL_BYTES);
        data.write_all(&array.bytes).map_err(io_error(&self.path))?;
        self.arrays.push(Pending { name, dtype: array.dtype, shape: array.shape.clone(), data });
        Ok(())
    }

    fn problem(&self, problem: ArrayProblem) -> DataError {
        DataError::Array { path: self.path.clone(), problem }
    }
}
