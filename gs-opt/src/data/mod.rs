//! Data sets: from a text such as `cifar10:data/cifar10:test` to batches of arrays.
//!
//! A [`Dataset`] is addressed by index and always gives the same items, so that a run can be repeated,
//! resumed and spread. Pixels stay bytes, and files stay packed, until a batch asks for them: a data set needs
//! far less memory than its arrays would. Nothing here knows of networks; whoever runs one adapts
//! [`NamedArray`] to its own tensors.

mod array;
mod cifar10;
mod error;
mod mnist;
mod npy;
mod npz;
mod npz_writer;
mod preprocess;
pub mod shapes;
mod spec;

use std::borrow::Cow;
use std::ops::Range;

pub use array::{ArrayInfo, DType, NamedArray};
pub use error::{ArrayProblem, DataError, FileProblem, NpyProblem, PreprocessError, Result, SpecProblem};
pub use npz::read_npz;
pub use npz_writer::NpzWriter;
pub use preprocess::{MEAN_KEY, Preprocess, STD_KEY, Wanted};
pub use spec::{FORMS, Spec, Split};

use preprocess::PixelMap;

/// Memory that decoded pictures may take, unless [`Dataset::set_cache_bytes`] says otherwise.
const CACHE_BYTES: usize = 64 << 20;

/// A picture of a data set, and how it is changed: mirrored left to right, then moved; what comes in is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// Its number.
    pub index: usize,
    /// Pixels that it is moved down by.
    pub down: isize,
    /// Pixels that it is moved right by.
    pub right: isize,
    /// Whether it is mirrored.
    pub mirror: bool,
}

/// Items with a number, each one or several arrays and maybe a label.
#[derive(Debug)]
pub struct Dataset {
    spec: String,
    len: usize,
    source: Source,
    labels: Labels,
}

#[derive(Debug)]
enum Source {
    Images { images: Images, map: PixelMap, info: ArrayInfo },
    Arrays(Vec<ArraySource>),
}

#[derive(Debug)]
struct ArraySource {
    rows: npz::Rows,
    /// For arrays of 8-bit images that are to be preprocessed.
    map: Option<PixelMap>,
    info: ArrayInfo,
}

/// Where the pixels of a picture come from.
#[derive(Debug)]
enum Images {
    Cifar10(cifar10::Cifar10),
    Mnist(mnist::Mnist),
    Shapes(shapes::Shapes),
}

#[derive(Debug)]
enum Labels {
    Bytes(Vec<u8>),
    Shapes(shapes::Shapes),
    Words(Vec<i64>),
    /// There are none, and why.
    None(String),
}

impl Dataset {
    /// Opens the data set that `spec` names, see [`FORMS`]. Images become `pixel / 255` unless `preprocess`
    /// says otherwise; arrays of an archive stay as they are unless `preprocess` is given, which they must
    /// then fit: `u8[N, C, H, W]`.
    ///
    /// # Errors
    /// A malformed spec, files that are missing or damaged or do not fit together, an empty data set.
    pub fn open(spec: &str, preprocess: Option<&Preprocess>) -> Result<Dataset> {
        Dataset::open_for(spec, preprocess.map_or(Wanted::Nothing, Wanted::Always), &[])
    }

    /// As [`Dataset::open`]; from an archive, takes the arrays named like `model_inputs` if it has them all.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn open_for(spec: &str, wanted: Wanted<'_>, model_inputs: &[&str]) -> Result<Dataset> {
        let parsed = Spec::parse(spec)?;
        let (source, labels, len) = match parsed {
            Spec::Cifar10 { dir, split } => {
                let (images, labels) = cifar10::open(&dir, split, CACHE_BYTES)?;
                (Source::images(Images::Cifar10(images), wanted)?, Labels::Bytes(labels), None)
            }
            Spec::Mnist { dir, split } => {
                let (images, labels) = mnist::open(&dir, split)?;
                (Source::images(Images::Mnist(images), wanted)?, Labels::Bytes(labels), None)
            }
            Spec::Shapes { split, count } => {
                let shapes = shapes::Shapes::new(split == Split::Train);
                (Source::images(Images::Shapes(shapes), wanted)?, Labels::Shapes(shapes), Some(count))
            }
            Spec::Npz { file, inputs, labels } => {
                let opened = npz::open(&file, &inputs, labels.as_deref(), model_inputs)?;
                let len = opened.inputs.first().map(|(_, rows)| rows.rows);
                let labels = opened.labels.map_or_else(Labels::None, Labels::Words);
                (Source::arrays(opened.inputs, wanted)?, labels, len)
            }
        };
        let len = len.or_else(|| labels.len()).unwrap_or_default();
        match len {
            0 => Err(DataError::Empty { spec: spec.to_owned() }),
            _ => Ok(Dataset { spec: spec.to_owned(), len, source, labels }),
        }
    }

    /// The text it was opened with.
    pub fn spec(&self) -> &str {
        &self.spec
    }

    /// Number of items.
    #[allow(clippy::len_without_is_empty)] // An empty data set does not open.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether its items are pictures, whose pixels become numbers on the way.
    pub fn has_pictures(&self) -> bool {
        matches!(self.source, Source::Images { .. })
    }

    /// Whether [`Dataset::labels`] will work.
    pub fn has_labels(&self) -> bool {
        !matches!(self.labels, Labels::None(_))
    }

    /// What the arrays of a batch look like, in their order.
    pub fn inputs(&self) -> Vec<&ArrayInfo> {
        match &self.source {
            Source::Images { info, .. } => vec![info],
            Source::Arrays(arrays) => arrays.iter().map(|array| &array.info).collect(),
        }
    }

    /// How much memory decoded pictures may take. Reading CIFAR-10 in random order is slow unless all of its
    /// pictures fit: 3,072,000 bytes per 1,000 images.
    pub fn set_cache_bytes(&self, bytes: usize) {
        if let Source::Images { images: Images::Cifar10(cifar10), .. } = &self.source {
            cifar10.set_cache_bytes(bytes);
        }
    }

    /// The items of a range, stacked along a new first axis.
    ///
    /// # Errors
    /// A range that goes beyond the end; a file that cannot be read or decoded.
    pub fn batch(&self, range: Range<usize>) -> Result<Vec<NamedArray>> {
        self.check(range.end.checked_sub(1))?;
        let count = range.len();
        match &self.source {
            Source::Images { .. } => self.gather(&range.collect::<Vec<_>>()),
            Source::Arrays(arrays) => arrays
                .iter()
                .map(|array| array.stack(count, |out| array.rows.read(range.start, count, out)))
                .collect(),
        }
    }

    /// The items with these numbers, in this order, stacked along a new first axis.
    ///
    /// # Errors
    /// As [`Dataset::batch`].
    pub fn gather(&self, indices: &[usize]) -> Result<Vec<NamedArray>> {
        self.check(indices.iter().max().copied())?;
        match &self.source {
            Source::Images { images, map, info } => {
                let plain = |&index| Picture { index, ..Picture::default() };
                Ok(vec![images.stack(&indices.iter().map(plain).collect::<Vec<_>>(), map, info)?])
            }
            Source::Arrays(arrays) => arrays
                .iter()
                .map(|array| {
                    array.stack(indices.len(), |out| {
                        indices.iter().try_for_each(|&index| array.rows.read(index, 1, out))
                    })
                })
                .collect(),
        }
    }

    /// As [`Dataset::gather`], with pictures mirrored and moved before pixels become numbers.
    ///
    /// # Errors
    /// As [`Dataset::batch`]; something that is no picture is to be changed.
    pub fn gather_moved(&self, pictures: &[Picture]) -> Result<Vec<NamedArray>> {
        let indices: Vec<usize> = pictures.iter().map(|p| p.index).collect();
        self.check(indices.iter().max().copied())?;
        match &self.source {
            Source::Images { images, map, info } => Ok(vec![images.stack(pictures, map, info)?]),
            Source::Arrays(_)
                if pictures.iter().all(|p| *p == Picture { index: p.index, ..Picture::default() }) =>
            {
                self.gather(&indices)
            }
            Source::Arrays(_) => Err(DataError::NoPictures { spec: self.spec.clone() }),
        }
    }

    /// The classes of the items of a range.
    ///
    /// # Errors
    /// A range that goes beyond the end; [`DataError::NoLabels`].
    pub fn labels(&self, range: Range<usize>) -> Result<Vec<i64>> {
        self.check(range.end.checked_sub(1))?;
        range.map(|index| self.label(index)).collect()
    }

    /// The class of one item.
    ///
    /// # Errors
    /// As [`Dataset::labels`].
    pub fn label(&self, index: usize) -> Result<i64> {
        self.check(Some(index))?;
        let label = match &self.labels {
            Labels::Bytes(labels) => labels.get(index).map(|&label| i64::from(label)),
            Labels::Words(labels) => labels.get(index).copied(),
            Labels::Shapes(shapes) => Some(i64::from(shapes.label(index))),
            Labels::None(reason) => {
                return Err(DataError::NoLabels { spec: self.spec.clone(), reason: reason.clone() });
            }
        };
        label.ok_or_else(|| self.out_of_range(index))
    }

    fn check(&self, last: Option<usize>) -> Result<()> {
        match last {
            Some(index) if index >= self.len => Err(self.out_of_range(index)),
            _ => Ok(()),
        }
    }

    fn out_of_range(&self, index: usize) -> DataError {
        DataError::OutOfRange { spec: self.spec.clone(), index, len: self.len }
    }
}

impl Source {
    fn images(images: Images, wanted: Wanted<'_>) -> Result<Source> {
        let default = Preprocess::default();
        let preprocess = wanted.preprocess().unwrap_or(&default);
        let (channels, side) = images.size();
        let map = PixelMap::new(preprocess, channels)?;
        let info =
            ArrayInfo { name: None, dtype: preprocess.dtype(), item_shape: vec![channels, side, side] };
        Ok(Source::Images { images, map, info })
    }

    fn arrays(inputs: Vec<(Option<String>, npz::Rows)>, wanted: Wanted<'_>) -> Result<Source> {
        let prepare = |(name, rows): (Option<String>, npz::Rows)| {
            let mut info = ArrayInfo { name, dtype: rows.dtype, item_shape: rows.item_shape.clone() };
            let map = match (wanted.preprocess(), rows.dtype, rows.item_shape.as_slice()) {
                (None, ..) => None,
                (Some(preprocess), DType::U8, &[channels, _, _]) => {
                    info.dtype = preprocess.dtype();
                    Some(PixelMap::new(preprocess, channels)?)
                }
                (Some(_), ..) if matches!(wanted, Wanted::OfImages(_)) => None,
                (Some(_), dtype, _) => {
                    let shape = std::iter::once(rows.rows).chain(rows.item_shape.iter().copied()).collect();
                    let array = info.name.unwrap_or_else(|| "x".to_owned());
                    return Err(PreprocessError::NotImages { array, dtype, shape }.into());
                }
            };
            Ok(ArraySource { rows, map, info })
        };
        Ok(Source::Arrays(inputs.into_iter().map(prepare).collect::<Result<_>>()?))
    }
}

impl ArraySource {
    /// An array of `count` items, whose bytes `read` appends.
    fn stack(&self, count: usize, read: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<NamedArray> {
        let mut stored = reserve(count, self.rows.item_bytes)?;
        read(&mut stored)?;
        let bytes = match &self.map {
            None => stored,
            Some(map) => {
                let mut mapped = reserve(count, item_bytes(&self.info))?;
                let plane = self.info.item_shape.iter().skip(1).product();
                map.apply(&stored, plane, &mut mapped);
                mapped
            }
        };
        Ok(stacked(&self.info, count, bytes))
    }
}

impl Images {
    /// Channels, and pixels along either side.
    fn size(&self) -> (usize, usize) {
        match self {
            Images::Cifar10(_) => (cifar10::CHANNELS, cifar10::SIDE),
            Images::Mnist(_) => (1, mnist::SIDE),
            Images::Shapes(_) => (shapes::CHANNELS, shapes::SIDE),
        }
    }

    fn stack(&self, pictures: &[Picture], map: &PixelMap, info: &ArrayInfo) -> Result<NamedArray> {
        let mut bytes = reserve(pictures.len(), item_bytes(info))?;
        let (channels, side) = self.size();
        let mut image = vec![0; channels * side * side];
        for picture in pictures {
            let index = picture.index;
            match self {
                Images::Cifar10(cifar10) => cifar10.read(index, &mut image)?,
                Images::Mnist(mnist) => mnist.read(index, &mut image),
                Images::Shapes(shapes) => shapes.draw(index, &mut image),
            }
            map.apply(&picture.moved(&image, side), side * side, &mut bytes);
        }
        Ok(stacked(info, pictures.len(), bytes))
    }
}

impl Picture {
    /// The pixels of an image (channels of squares) after the change.
    fn moved<'p>(&self, image: &'p [u8], side: usize) -> Cow<'p, [u8]> {
        if *self == (Picture { index: self.index, ..Picture::default() }) {
            return Cow::Borrowed(image);
        }
        let from = |at: usize, by: isize| at.checked_add_signed(by.checked_neg()?).filter(|&x| x < side);
        let pixel = |plane: &[u8], y: usize, x: usize| -> Option<u8> {
            let (y, x) = (from(y, self.down)?, from(x, self.right)?);
            plane.get(y * side + if self.mirror { side - 1 - x } else { x }).copied()
        };
        let mut out = Vec::with_capacity(image.len());
        for plane in image.chunks(side * side) {
            for y in 0..side {
                out.extend((0..side).map(|x| pixel(plane, y, x).unwrap_or(0)));
            }
        }
        Cow::Owned(out)
    }
}

impl Labels {
    /// How many there are, where that is known.
    fn len(&self) -> Option<usize> {
        match self {
            Labels::Bytes(labels) => Some(labels.len()),
            Labels::Words(labels) => Some(labels.len()),
            Labels::Shapes(_) | Labels::None(_) => None,
        }
    }
}

fn item_bytes(info: &ArrayInfo) -> usize {
    // The largest size stands for one that does not fit; no batch of it can be reserved.
    array::byte_size(info.dtype, &info.item_shape).unwrap_or(usize::MAX)
}

/// Room for a batch, or an error where there is none: the size of a batch is somebody's wish.
fn reserve(items: usize, item_bytes: usize) -> Result<Vec<u8>> {
    let too_large = || DataError::TooLarge { items, item_bytes };
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(items.checked_mul(item_bytes).ok_or_else(too_large)?).map_err(|_| too_large())?;
    Ok(bytes)
}

fn stacked(info: &ArrayInfo, count: usize, bytes: Vec<u8>) -> NamedArray {
    let shape = std::iter::once(count).chain(info.item_shape.iter().copied()).collect();
    NamedArray { name: info.name.clone(), dtype: info.dtype, shape, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_mirrored_then_moved() {
        let image = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        let of =
            |down, right, mirror| Picture { index: 0, down, right, mirror }.moved(&image, 3).into_owned();
        assert_eq!(of(0, 0, false), image);
        assert_eq!(of(0, 0, true), [3, 2, 1, 6, 5, 4, 9, 8, 7]);
        assert_eq!(of(1, 0, false), [0, 0, 0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(of(0, -1, false), [2, 3, 0, 5, 6, 0, 8, 9, 0]);
        assert_eq!(of(-1, 1, true), [0, 6, 5, 0, 9, 8, 0, 0, 0]);
        assert_eq!(of(5, 0, false), [0; 9]);
    }
}
