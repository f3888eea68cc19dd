//! What can go wrong with a data set: each error says where, what was found, what was expected, what exists.

use std::io;
use std::path::{Path, PathBuf};

use super::array::DType;

/// Result of the functions of this module.
pub type Result<T> = std::result::Result<T, DataError>;

/// A data set could not be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The text of the spec is wrong.
    #[error("data spec '{spec}': {problem}")]
    Spec {
        /// The spec as given.
        spec: String,
        /// What is wrong with it.
        problem: SpecProblem,
    },
    /// The wish for `mean`, `std` or `raw255` is wrong, or does not fit the data.
    #[error("{0}")]
    Preprocess(#[from] PreprocessError),
    /// An archive could not be written.
    #[error("{0}")]
    Output(#[from] gs_text::output::OutputError),
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
    /// A file that belongs to the data set is not there.
    #[error("{}: no such file{}", path.display(), existing("the folder holds", found))]
    FileMissing {
        /// The file looked for.
        path: PathBuf,
        /// Some of the names in its folder; empty if there is no folder.
        found: Vec<String>,
    },
    /// A file is there, but is not what it should be.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: FileProblem,
    },
    /// An array of an `.npz` is missing or unfit.
    #[error("{}: {problem}", path.display())]
    Array {
        /// The archive.
        path: PathBuf,
        /// What is wrong.
        problem: ArrayProblem,
    },
    /// The data set has no labels, and labels were asked for.
    #[error("'{spec}' has no labels: {reason}")]
    NoLabels {
        /// The spec of the data set.
        spec: String,
        /// Why not.
        reason: String,
    },
    /// Pictures were to be mirrored or moved, and there are none.
    #[error("'{spec}' holds arrays, not pictures, so nothing can be mirrored or moved")]
    NoPictures {
        /// The spec of the data set.
        spec: String,
    },
    /// The data set holds no item.
    #[error("'{spec}' is empty")]
    Empty {
        /// The spec of the data set.
        spec: String,
    },
    /// An index at or beyond the end was asked for.
    #[error("item {index} was asked for, but '{spec}' has {len}")]
    OutOfRange {
        /// The spec of the data set.
        spec: String,
        /// The greatest index asked for.
        index: usize,
        /// How many items there are.
        len: usize,
    },
    /// A batch is too large for the machine's addresses.
    #[error("a batch of {items} items of {item_bytes} bytes does not fit the memory")]
    TooLarge {
        /// Items asked for.
        items: usize,
        /// Bytes of one item.
        item_bytes: usize,
    },
}

/// What is wrong with the text of a spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecProblem {
    /// The word before the first colon is unknown.
    #[error("unknown kind of data '{found}', expected {}", one_of(known))]
    UnknownKind {
        /// The word.
        found: String,
        /// The forms that exist.
        known: &'static [&'static str],
    },
    /// A part is missing.
    #[error("{part} is missing, expected '{form}'")]
    MissingPart {
        /// Name of the part.
        part: &'static str,
        /// The whole form.
        form: &'static str,
    },
    /// There are more parts than the form has.
    #[error("'{rest}' is one part too many, expected '{form}'")]
    TooManyParts {
        /// What is left over.
        rest: String,
        /// The whole form.
        form: &'static str,
    },
    /// The split is unknown.
    #[error("unknown split '{found}', expected train or test")]
    UnknownSplit {
        /// The word.
        found: String,
    },
    /// The count is no positive number.
    #[error("'{found}' is no count, expected a whole number from 1 to {most}")]
    BadCount {
        /// The word.
        found: String,
        /// The largest count.
        most: usize,
    },
}

/// What is wrong with the preprocessing asked for.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PreprocessError {
    /// A number does not parse, or is not finite.
    #[error("{option}: '{found}' is no finite number")]
    NotANumber {
        /// `mean` or `std`.
        option: &'static str,
        /// The text.
        found: String,
    },
    /// A standard deviation is zero or negative.
    #[error("std: {found} is not positive")]
    NotPositive {
        /// The value.
        found: f32,
    },
    /// `raw255` and `mean` or `std` exclude each other.
    #[error("raw255 leaves the pixels alone, so it excludes mean and std")]
    Contradiction,
    /// As many numbers as channels, or one for all, were expected.
    #[error("{option} has {found} numbers, but the images have {channels} channels")]
    Channels {
        /// `mean` or `std`.
        option: &'static str,
        /// How many numbers were given.
        found: usize,
        /// Channels of the data.
        channels: usize,
    },
    /// Only 8-bit images can be preprocessed.
    #[error(
        "mean, std and raw255 are for 8-bit images u8[N, C, H, W], but array '{array}' is {dtype}{shape:?}"
    )]
    NotImages {
        /// The array.
        array: String,
        /// Its element type.
        dtype: DType,
        /// Its shape.
        shape: Vec<usize>,
    },
}

/// What is wrong with a file of images or labels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileProblem {
    /// The first bytes say that this is another kind of file.
    #[error("is no {expected}: it starts with {found:#010x}, not {magic:#010x}")]
    Magic {
        /// What the file should be.
        expected: &'static str,
        /// The number expected.
        magic: u32,
        /// The number found.
        found: u32,
    },
    /// The file ends too early.
    #[error("is cut off: {expected} bytes expected, {found} found")]
    Truncated {
        /// Bytes announced.
        expected: u64,
        /// Bytes there.
        found: u64,
    },
    /// The file goes on where it should end.
    #[error("has bytes after its end: {expected} bytes expected, more found")]
    Trailing {
        /// Bytes announced.
        expected: u64,
    },
    /// The compressed stream is damaged.
    #[error("cannot be unpacked as {format}: {message}")]
    Compression {
        /// `gzip`, `WebP` or `zip`.
        format: &'static str,
        /// What the decoder says.
        message: String,
    },
    /// A sheet of images has another size than the format says.
    #[error("is {found_width} x {found_height} pixels, but a sheet is {width} x {height}")]
    SheetSize {
        /// Width that a sheet has.
        width: u32,
        /// Height that a sheet has.
        height: u32,
        /// Width of the file.
        found_width: u32,
        /// Height of the file.
        found_height: u32,
    },
    /// The images have another size than the data set's.
    #[error("holds images of {rows} x {columns}, expected 28 x 28")]
    ImageSize {
        /// Rows found.
        rows: u32,
        /// Columns found.
        columns: u32,
    },
    /// Labels and images do not match in number.
    #[error("holds {labels} labels, but there are {images} images")]
    Counts {
        /// Number of labels.
        labels: usize,
        /// Number of images.
        images: usize,
    },
    /// A label is no class.
    #[error("label {index} is {label}, but there are only {classes} classes")]
    Label {
        /// Which label.
        index: usize,
        /// Its value.
        label: u8,
        /// How many classes there are.
        classes: usize,
    },
}

/// What is wrong with an array of an `.npz`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArrayProblem {
    /// None of the names looked for is there.
    #[error("has no array {}{}", one_of(wanted), existing("it holds", found))]
    Missing {
        /// The names looked for.
        wanted: Vec<String>,
        /// The names that exist.
        found: Vec<String>,
    },
    /// Two arrays have one name.
    #[error("holds two arrays named '{array}'")]
    Duplicate {
        /// The name.
        array: String,
    },
    /// An array's own header is malformed.
    #[error("array '{array}': {problem}")]
    Header {
        /// The array.
        array: String,
        /// What is wrong.
        problem: NpyProblem,
    },
    /// The array has no axis to cut batches from.
    #[error("array '{array}' is a single number; its first axis should count the items")]
    NoBatchAxis {
        /// The array.
        array: String,
    },
    /// The arrays differ in the number of items.
    #[error("array '{array}' has {rows} rows, but array '{first}' has {first_rows}")]
    Rows {
        /// An array.
        array: String,
        /// Its rows.
        rows: usize,
        /// Another array.
        first: String,
        /// The other's rows.
        first_rows: usize,
    },
    /// Rows of different shape or type were appended to one array.
    #[error("array '{array}' holds rows {dtype}{shape:?}; {other_dtype}{other_shape:?} cannot be appended")]
    Append {
        /// The array.
        array: String,
        /// Its element type.
        dtype: DType,
        /// Shape of one of its rows.
        shape: Vec<usize>,
        /// Element type of the new rows.
        other_dtype: DType,
        /// Shape of one new row.
        other_shape: Vec<usize>,
    },
    /// Shape and bytes of an array do not agree.
    #[error("array '{array}': {bytes} bytes are not {dtype}{shape:?}")]
    Bytes {
        /// The array.
        array: String,
        /// Its element type.
        dtype: DType,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes given.
        bytes: usize,
    },
    /// An array has more axes than numpy reads.
    #[error("array '{array}' has {axes} axes; {most} is the limit of the format")]
    Axes {
        /// The array.
        array: String,
        /// How many it has.
        axes: usize,
        /// The limit.
        most: usize,
    },
    /// An array without a name cannot be written.
    #[error("cannot write an array without a name")]
    Unnamed,
}

/// What is wrong with the header of an `.npy`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NpyProblem {
    /// The first bytes are not those of the format.
    #[error("is not in the .npy format")]
    Magic,
    /// A version that does not exist.
    #[error("has .npy version {major}.{minor}, known are 1.0, 2.0 and 3.0")]
    Version {
        /// First byte of the version.
        major: u8,
        /// Second byte of the version.
        minor: u8,
    },
    /// The header's text does not parse.
    #[error("has a malformed header at byte {at}: expected {expected}")]
    Syntax {
        /// Offset in the header's text.
        at: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// The header is longer than any sensible one.
    #[error("has a header of {found} bytes; {most} is the limit")]
    HeaderSize {
        /// Length found.
        found: u64,
        /// The limit.
        most: u64,
    },
    /// An element type that this module does not read.
    #[error("has element type '{found}', supported are {}", one_of(known))]
    DType {
        /// The type string.
        found: String,
        /// The types that are read.
        known: Vec<&'static str>,
    },
    /// The shape is too large for the machine's addresses.
    #[error("has the shape {shape:?}, which is too large")]
    Shape {
        /// The shape.
        shape: Vec<usize>,
    },
    /// The data has another length than the header says.
    #[error("should have {expected} bytes of data, but has {found}")]
    Length {
        /// Bytes by the header.
        expected: u64,
        /// Bytes there.
        found: u64,
    },
}

/// `a, b or c`.
fn one_of<T: AsRef<str>>(names: &[T]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("'{}'", name.as_ref())).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// `; the folder holds a, b` with the first few names, or nothing.
fn existing(verb: &str, names: &[String]) -> String {
    const SHOWN: usize = 12;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    match names.len() {
        0 => String::new(),
        n if n > SHOWN => format!("; {verb} {}, and {} more", shown.join(", "), n - SHOWN),
        _ => format!("; {verb} {}", shown.join(", ")),
    }
}

/// The error for a file that could not be opened: names the folder's contents where the file is not there.
pub(super) fn open_error(path: &Path, source: io::Error) -> DataError {
    if source.kind() != io::ErrorKind::NotFound {
        return DataError::Io { path: path.to_path_buf(), source };
    }
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .map(|entries| {
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        })
        .unwrap_or_default();
    found.sort();
    DataError::FileMissing { path: path.to_path_buf(), found }
}

/// Short form for a problem with a whole file.
pub(super) fn file_error(path: &Path, problem: FileProblem) -> DataError {
    DataError::File { path: path.to_path_buf(), problem }
}

/// Short form for a refusal of the operating system.
pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> DataError {
    let path = path.to_path_buf();
    move |source| DataError::Io { path, source }
}
