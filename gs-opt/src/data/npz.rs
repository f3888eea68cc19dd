//! Reading numpy archives (`.npz`): which arrays are inputs and labels, and rows of them on demand.
//!
//! What numpy's `savez` writes is read in place, row by row, so that a large archive costs no memory. Packed
//! arrays go through a temporary file if they are large; column-major and big-endian ones pass through
//! memory once, to be put in order.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::array::{DType, NamedArray};
use super::error::{
    ArrayProblem, DataError, FileProblem, NpyProblem, Result, file_error, io_error, open_error,
};
use super::npy::{self, Header};

/// Names that labels may have where the spec names none.
const LABEL_NAMES: [&str; 2] = ["y", "labels"];

/// Name of the input where neither the spec nor the model names one.
const INPUT_NAME: &str = "x";

/// Arrays up to this size stay in memory when they cannot be read in place.
const SPOOL_BYTES: usize = 16 << 20;

/// The arrays of an archive that make up a data set.
#[derive(Debug)]
pub(super) struct Npz {
    pub(super) inputs: Vec<(Option<String>, Rows)>,
    /// The labels, or why there are none.
    pub(super) labels: std::result::Result<Vec<i64>, String>,
}

/// Opens an archive. `inputs` and `labels` are the names in the spec, `model` those of the model's inputs.
pub(super) fn open(path: &Path, inputs: &[String], labels: Option<&str>, model: &[&str]) -> Result<Npz> {
    let mut archive = Archive::open(path)?;
    let label_name = archive.label_name(labels)?;
    let names = archive.input_names(inputs, label_name.as_deref(), model)?;
    let mut opened = Vec::new();
    for (input, array) in names {
        opened.push((input, array.clone(), archive.rows(&array)?));
    }
    let labels = match &label_name {
        None => Err(format!("{} holds no array 'y' or 'labels'", path.display())),
        Some(name) => archive.labels(name)?,
    };
    check_rows(path, &opened, labels.as_ref().ok().zip(label_name.as_deref()))?;
    let inputs = opened.into_iter().map(|(input, _, rows)| (input, rows)).collect();
    Ok(Npz { inputs, labels })
}

/// All arrays, as they are. For goldens and for tests.
///
/// # Errors
/// As for [`super::Dataset::open`].
pub fn read_npz(path: &Path) -> Result<Vec<NamedArray>> {
    let mut archive = Archive::open(path)?;
    let mut arrays = Vec::new();
    for name in archive.names.clone() {
        arrays.push(archive.whole(&name)?);
    }
    Ok(arrays)
}

/// All arrays and the labels must have one number of rows.
fn check_rows(
    path: &Path,
    inputs: &[(Option<String>, String, Rows)],
    labels: Option<(&Vec<i64>, &str)>,
) -> Result<()> {
    let labels = labels.map(|(labels, name)| (name, labels.len()));
    let mut counts = inputs.iter().map(|(_, array, rows)| (array.as_str(), rows.rows)).chain(labels);
    let Some((first, first_rows)) = counts.next() else { return Ok(()) };
    match counts.find(|&(_, rows)| rows != first_rows) {
        None => Ok(()),
        Some((array, rows)) => {
            let problem =
                ArrayProblem::Rows { array: array.to_owned(), rows, first: first.to_owned(), first_rows };
            Err(DataError::Array { path: path.to_path_buf(), problem })
        }
    }
}

struct Archive {
    path: PathBuf,
    zip: ZipArchive<BufReader<File>>,
    /// In the order of the archive.
    names: Vec<String>,
}

impl Archive {
    fn open(path: &Path) -> Result<Archive> {
        let file = File::open(path).map_err(|source| open_error(path, source))?;
        let zip = ZipArchive::new(BufReader::new(file)).map_err(|error| zip_error(path, error))?;
        let mut names: Vec<String> = Vec::new();
        for name in zip.file_names().flatten() {
            names.extend(name.strip_suffix(".npy").map(str::to_owned));
        }
        let archive = Archive { path: path.to_path_buf(), zip, names };
        match archive.zip.has_duplicate_names() {
            true => Err(archive.problem(ArrayProblem::Duplicate { array: archive.names.join(", ") })),
            false => Ok(archive),
        }
    }

    fn problem(&self, problem: ArrayProblem) -> DataError {
        DataError::Array { path: self.path.clone(), problem }
    }

    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|existing| existing == name)
    }

    fn missing(&self, wanted: Vec<String>) -> DataError {
        self.problem(ArrayProblem::Missing { wanted, found: self.names.clone() })
    }

    fn label_name(&self, asked: Option<&str>) -> Result<Option<String>> {
        match asked {
            Some(name) if !self.has(name) => Err(self.missing(vec![name.to_owned()])),
            Some(name) => Ok(Some(name.to_owned())),
            None => Ok(LABEL_NAMES.into_iter().find(|name| self.has(name)).map(str::to_owned)),
        }
    }

    /// Pairs of model input (`None` for the only one) and array: what the spec says; or else the arrays named
    /// like the model's inputs; or else `x`; or else the only array that holds no labels.
    fn input_names(
        &self,
        asked: &[String],
        labels: Option<&str>,
        model: &[&str],
    ) -> Result<Vec<(Option<String>, String)>> {
        let named = |names: Vec<String>| names.into_iter().map(|name| (Some(name.clone()), name)).collect();
        let absent: Vec<String> = asked.iter().filter(|name| !self.has(name)).cloned().collect();
        match asked {
            _ if !absent.is_empty() => return Err(self.missing(absent)),
            [] => {}
            [name] => return Ok(vec![(None, name.clone())]),
            _ => return Ok(named(asked.to_vec())),
        }
        if !model.is_empty() && model.iter().all(|name| self.has(name)) {
            return Ok(named(model.iter().map(|&name| name.to_owned()).collect()));
        }
        let only = |name: &str| Ok(vec![(None, name.to_owned())]);
        let others: Vec<&String> = self.names.iter().filter(|name| Some(name.as_str()) != labels).collect();
        match (model.len(), others.as_slice()) {
            (0 | 1, _) if self.has(INPUT_NAME) => only(INPUT_NAME),
            (0 | 1, [name]) => only(name),
            (0, _) => Err(self.missing(vec![INPUT_NAME.to_owned()])),
            (1, _) => {
                let mut wanted: Vec<String> = model.iter().map(|&name| name.to_owned()).collect();
                wanted.extend((!model.contains(&INPUT_NAME)).then(|| INPUT_NAME.to_owned()));
                Err(self.missing(wanted))
            }
            _ => Err(self
                .missing(model.iter().filter(|name| !self.has(name)).map(|&name| name.to_owned()).collect())),
        }
    }

    /// Prepares an array for reading by rows, and checks all of its bytes against the archive's checksum.
    fn rows(&mut self, name: &str) -> Result<Rows> {
        let (header, store, start) = self.store(name)?;
        let Some((&rows, item_shape)) = header.shape.split_first() else {
            return Err(self.problem(ArrayProblem::NoBatchAxis { array: name.to_owned() }));
        };
        let item_bytes = item_shape.iter().product::<usize>() * header.dtype.size();
        Ok(Rows {
            path: self.path.clone(),
            rows,
            dtype: header.dtype,
            item_shape: item_shape.to_vec(),
            item_bytes,
            start,
            store: Mutex::new(store),
        })
    }

    fn whole(&mut self, name: &str) -> Result<NamedArray> {
        let (header, mut store, start) = self.store(name)?;
        let mut bytes = Vec::new();
        store.seek(SeekFrom::Start(start)).map_err(io_error(&self.path))?;
        store.take(header.data_bytes).read_to_end(&mut bytes).map_err(io_error(&self.path))?;
        Ok(NamedArray { name: Some(name.to_owned()), dtype: header.dtype, shape: header.shape, bytes })
    }

    /// Labels are whole numbers, one per row. Anything else is not an error until labels are asked for.
    fn labels(&mut self, name: &str) -> Result<std::result::Result<Vec<i64>, String>> {
        let array = self.whole(name)?;
        let flat = matches!(array.shape.as_slice(), [_] | [_, 1]);
        Ok(match integers(&array) {
            Some(labels) if flat => Ok(labels),
            _ => Err(format!(
                "array '{name}' is {}{:?}, not whole numbers of shape [N]",
                array.dtype, array.shape
            )),
        })
    }

    /// The array's header, something that holds its rows in order, and where in it they start.
    fn store(&mut self, name: &str) -> Result<(Header, Box<dyn Store>, u64)> {
        let path = self.path.clone();
        let zip_failed = |error| zip_error(&path, error);
        let bad = |problem| {
            let problem = ArrayProblem::Header { array: name.to_owned(), problem };
            DataError::Array { path: path.clone(), problem }
        };
        let mut entry = self.zip.by_name(&format!("{name}.npy")).map_err(zip_failed)?;
        let header = npy::read_header(&mut entry).map_err(|error| match error {
            npy::ReadError::Npy(problem) => bad(problem),
            npy::ReadError::Io(error) => read_error(&path, error),
        })?;
        let found = entry.size().saturating_sub(header.header_bytes);
        if found != header.data_bytes {
            return Err(bad(NpyProblem::Length { expected: header.data_bytes, found }));
        }
        let swapped = header.big_endian && header.dtype.size() > 1;
        let transposed = header.fortran && header.shape.len() > 1;
        let in_place = entry.compression() == CompressionMethod::Stored && !swapped && !transposed;
        if let (true, Some(start)) = (in_place, entry.data_start()) {
            io::copy(&mut entry, &mut io::sink()).map_err(|error| read_error(&path, error))?;
            let file = File::open(&path).map_err(io_error(&path))?;
            let start = start.saturating_add(header.header_bytes);
            return Ok((header, Box::new(file), start));
        }
        let mut spool = tempfile::spooled_tempfile(SPOOL_BYTES);
        if swapped || transposed {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(|error| read_error(&path, error))?;
            let ordered = row_major(&header, bytes);
            spool.write_all(&ordered).map_err(io_error(&path))?;
        } else {
            io::copy(&mut entry, &mut spool).map_err(|error| read_error(&path, error))?;
        }
        Ok((header, Box::new(spool), 0))
    }
}

/// The elements in row-major order and little-endian.
fn row_major(header: &Header, mut bytes: Vec<u8>) -> Vec<u8> {
    let size = header.dtype.size();
    if header.big_endian {
        bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
    }
    if !header.fortran {
        return bytes;
    }
    // Walks the target in order, like an odometer, and keeps the place in the source beside it.
    let mut strides = Vec::new();
    let mut stride = size;
    for &length in &header.shape {
        strides.push(stride);
        stride *= length.max(1);
    }
    let mut ordered = Vec::with_capacity(bytes.len());
    let mut digits = vec![0; header.shape.len()];
    let mut place = 0;
    for _ in 0..bytes.len() / size {
        ordered.extend_from_slice(bytes.get(place..place + size).unwrap_or_default());
        for ((digit, &length), &stride) in digits.iter_mut().zip(&header.shape).zip(&strides).rev() {
            *digit += 1;
            place += stride;
            if *digit < length {
                break;
            }
            *digit = 0;
            place -= stride * length;
        }
    }
    ordered
}

/// The elements as `i64`, if they are whole numbers.
fn integers(array: &NamedArray) -> Option<Vec<i64>> {
    let signed = match array.dtype {
        DType::U8 | DType::U16 | DType::U32 => false,
        DType::I8 | DType::I16 | DType::I32 | DType::I64 => true,
        // No class has a number beyond that of i64.
        DType::U64 => false,
        DType::Bool | DType::F16 | DType::F32 | DType::F64 => return None,
    };
    let extend = |element: &[u8]| {
        let negative = signed && element.last().is_some_and(|&byte| byte >= 0x80);
        let mut word = [if negative { 0xff } else { 0 }; 8];
        word.iter_mut().zip(element).for_each(|(to, &from)| *to = from);
        i64::from_le_bytes(word)
    };
    Some(array.bytes.chunks_exact(array.dtype.size()).map(extend).collect())
}

trait Store: Read + Seek + Send {}

impl<T: Read + Seek + Send> Store for T {}

/// An array that is read by rows.
pub(super) struct Rows {
    path: PathBuf,
    pub(super) rows: usize,
    pub(super) dtype: DType,
    /// The shape without its first axis.
    pub(super) item_shape: Vec<usize>,
    pub(super) item_bytes: usize,
    start: u64,
    store: Mutex<Box<dyn Store>>,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} rows of {}{:?}", self.path.display(), self.rows, self.dtype, self.item_shape)
    }
}

impl Rows {
    /// Appends `count` rows from row `first` on, which must exist.
    pub(super) fn read(&self, first: usize, count: usize, out: &mut Vec<u8>) -> Result<()> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = self.start + first as u64 * self.item_bytes as u64;
        let bytes = count as u64 * self.item_bytes as u64;
        store.seek(SeekFrom::Start(offset)).map_err(io_error(&self.path))?;
        let found = store.by_ref().take(bytes).read_to_end(out).map_err(io_error(&self.path))? as u64;
        match found == bytes {
            true => Ok(()),
            // The file was whole when it was opened: somebody has changed it since.
            false => Err(file_error(
                &self.path,
                FileProblem::Truncated { expected: offset + bytes, found: offset + found },
            )),
        }
    }
}

fn zip_error(path: &Path, error: ZipError) -> DataError {
    match error {
        ZipError::Io(error) => read_error(path, error),
        other => file_error(path, FileProblem::Compression { format: "zip", message: other.to_string() }),
    }
}

/// Tells damage, which decoders report as an I/O error too, from a refusal of the operating system.
fn read_error(path: &Path, source: io::Error) -> DataError {
    match source.raw_os_error() {
        None => file_error(path, FileProblem::Compression { format: "zip", message: source.to_string() }),
        Some(_) => DataError::Io { path: path.to_path_buf(), source },
    }
}
