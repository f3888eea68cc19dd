//! From 8-bit pixels to the numbers that a network takes.

use super::array::DType;
use super::error::{PreprocessError, Result};

/// Name of the model metadata that holds the mean, numbers separated by commas.
pub const MEAN_KEY: &str = "normalize_mean";

/// Name of the model metadata that holds the standard deviation, numbers separated by commas.
pub const STD_KEY: &str = "normalize_std";

/// What is done to each pixel.
#[derive(Clone, Debug, PartialEq)]
pub enum Preprocess {
    /// `(pixel / 255 - mean) / std` in `f32`, rounded after each of the three steps, as numpy does.
    Normalize {
        /// Per channel, or one number for all.
        mean: Vec<f32>,
        /// Per channel, or one number for all.
        std: Vec<f32>,
    },
    /// The pixel as `f32`, 0 to 255.
    Raw255,
    /// The pixel as `u8`.
    Bytes,
}

/// Of which arrays preprocessing is wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wanted<'a> {
    /// Of none; pictures become `pixel / 255`.
    Nothing,
    /// Of all, as the user says: arrays that are no 8-bit images are an error.
    Always(&'a Preprocess),
    /// Of 8-bit images, as the model says; other arrays are taken to be in the form of the network's input.
    OfImages(&'a Preprocess),
}

impl<'a> Wanted<'a> {
    /// What is done to images, if anything.
    pub(super) fn preprocess(self) -> Option<&'a Preprocess> {
        match self {
            Wanted::Nothing => None,
            Wanted::Always(p) | Wanted::OfImages(p) => Some(p),
        }
    }
}

impl Default for Preprocess {
    /// `pixel / 255`.
    fn default() -> Preprocess {
        Preprocess::Normalize { mean: vec![0.0], std: vec![1.0] }
    }
}

impl Preprocess {
    /// From the options `--mean a,b,c`, `--std a,b,c` and `--raw255`; `None` if none of them is given.
    ///
    /// # Errors
    /// A text that is no list of finite numbers, a standard deviation that is not positive, or `raw255`
    /// together with one of the others.
    pub fn from_options(mean: Option<&str>, std: Option<&str>, raw255: bool) -> Result<Option<Preprocess>> {
        if mean.is_none() && std.is_none() {
            return Ok(raw255.then_some(Preprocess::Raw255));
        }
        if raw255 {
            return Err(PreprocessError::Contradiction.into());
        }
        let mean = mean.map_or_else(|| Ok(vec![0.0]), |text| numbers("mean", text))?;
        let std = std.map_or_else(|| Ok(vec![1.0]), |text| numbers("std", text))?;
        if let Some(&found) = std.iter().find(|&&value| value <= 0.0) {
            return Err(PreprocessError::NotPositive { found }.into());
        }
        Ok(Some(Preprocess::Normalize { mean, std }))
    }

    /// From a model's metadata, [`MEAN_KEY`] and [`STD_KEY`]; `None` if the model has neither.
    ///
    /// # Errors
    /// As [`Preprocess::from_options`].
    pub fn from_metadata<'a>(lookup: impl Fn(&str) -> Option<&'a str>) -> Result<Option<Preprocess>> {
        Preprocess::from_options(lookup(MEAN_KEY), lookup(STD_KEY), false)
    }

    /// The element type that comes out.
    pub fn dtype(&self) -> DType {
        if matches!(self, Preprocess::Bytes) { DType::U8 } else { DType::F32 }
    }
}

fn numbers(option: &'static str, text: &str) -> std::result::Result<Vec<f32>, PreprocessError> {
    let number = |word: &str| word.trim().parse::<f32>().ok().filter(|value| value.is_finite());
    text.split(',')
        .map(|word| {
            number(word).ok_or_else(|| PreprocessError::NotANumber { option, found: word.to_owned() })
        })
        .collect()
}

/// A [`Preprocess`] worked out for a number of channels: what each of the 256 pixel values becomes.
#[derive(Debug)]
pub(super) enum PixelMap {
    /// Left as they are.
    Bytes,
    /// One table of little-endian `f32` per channel, or one for all.
    Tables(Vec<[[u8; 4]; 256]>),
}

impl PixelMap {
    pub(super) fn new(preprocess: &Preprocess, channels: usize) -> Result<PixelMap> {
        let tables = match preprocess {
            Preprocess::Bytes => return Ok(PixelMap::Bytes),
            Preprocess::Raw255 => vec![table(|pixel| pixel)],
            Preprocess::Normalize { mean, std } => {
                for (option, values) in [("mean", mean), ("std", std)] {
                    let found = values.len();
                    if found != 1 && found != channels {
                        return Err(PreprocessError::Channels { option, found, channels }.into());
                    }
                }
                let number = mean.len().max(std.len());
                let numbers = mean.iter().cycle().zip(std.iter().cycle()).take(number);
                numbers.map(|(mean, std)| table(|pixel| (pixel / 255.0 - mean) / std)).collect()
            }
        };
        Ok(PixelMap::Tables(tables))
    }

    /// Appends the images in `pixels`, each `channels` planes of `plane` bytes.
    pub(super) fn apply(&self, pixels: &[u8], plane: usize, out: &mut Vec<u8>) {
        match self {
            PixelMap::Bytes => out.extend_from_slice(pixels),
            PixelMap::Tables(tables) => {
                for (pixels, table) in pixels.chunks_exact(plane.max(1)).zip(tables.iter().cycle()) {
                    out.extend(pixels.iter().flat_map(|&pixel| table[usize::from(pixel)]));
                }
            }
        }
    }
}

fn table(map: impl Fn(f32) -> f32) -> [[u8; 4]; 256] {
    std::array::from_fn(|pixel| map(pixel as f32).to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_strictly() {
        let parse = Preprocess::from_options;
        assert_eq!(parse(None, None, false).unwrap(), None);
        assert_eq!(parse(None, None, true).unwrap(), Some(Preprocess::Raw255));
        let both = Preprocess::Normalize { mean: vec![0.5, 0.25], std: vec![1.0, 2.0] };
        assert_eq!(parse(Some("0.5, 0.25"), Some("1,2"), false).unwrap(), Some(both));
        let text = |mean, std, raw| parse(mean, std, raw).unwrap_err().to_string();
        assert_eq!(text(Some("0.5,x"), None, false), "mean: 'x' is no finite number");
        assert_eq!(text(Some("nan"), None, false), "mean: 'nan' is no finite number");
        assert_eq!(text(None, Some("1,0"), false), "std: 0 is not positive");
        assert!(text(Some("1"), None, true).contains("excludes"));
    }

    #[test]
    fn number_of_channels_is_checked() {
        let two = Preprocess::Normalize { mean: vec![0.0; 2], std: vec![1.0] };
        let error = PixelMap::new(&two, 3).unwrap_err().to_string();
        assert_eq!(error, "mean has 2 numbers, but the images have 3 channels");
        assert!(PixelMap::new(&two, 2).is_ok());
        assert!(PixelMap::new(&Preprocess::default(), 0).is_ok());
    }

    #[test]
    fn planes_take_the_table_of_their_channel() {
        let map =
            PixelMap::new(&Preprocess::Normalize { mean: vec![0.0, 1.0], std: vec![1.0, 0.5] }, 2).unwrap();
        let mut out = Vec::new();
        map.apply(&[255, 0, 255, 0, 255, 0, 255, 0], 2, &mut out);
        let (words, _) = out.as_chunks::<4>();
        let values: Vec<f32> = words.iter().map(|&word| f32::from_le_bytes(word)).collect();
        assert_eq!(values, [1.0, 0.0, 0.0, -2.0, 1.0, 0.0, 0.0, -2.0]);
    }
}
