//! CIFAR-10 as lossless WebP sheets of 1,000 images, with one byte per label beside them.
//!
//! A sheet is 256 x 4,000 pixels: 8 columns and 125 rows of images, filled row by row. Sheets are decoded when
//! an image of them is asked for and kept, within a budget, as bytes.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use image_webp::WebPDecoder;

use super::error::{FileProblem, Result, file_error, open_error};
use super::spec::Split;

pub(super) const CHANNELS: usize = 3;
pub(super) const SIDE: usize = 32;
pub(super) const IMAGE_BYTES: usize = CHANNELS * SIDE * SIDE;
const CLASSES: usize = 10;
const COLUMNS: usize = 8;
const IMAGES_PER_SHEET: usize = 1000;
const SHEET_WIDTH: u32 = 256;
const SHEET_HEIGHT: u32 = 4000;
const SHEET_BYTES: usize = IMAGES_PER_SHEET * IMAGE_BYTES;

/// The images of one split.
#[derive(Debug)]
pub(super) struct Cifar10 {
    sheets: Vec<PathBuf>,
    cache: Mutex<Cache>,
}

/// The decoded sheets, the one used last at the end.
#[derive(Debug)]
struct Cache {
    most: usize,
    sheets: Vec<(usize, Arc<Vec<u8>>)>,
}

/// Checks that all files of a split are there and fit together; decodes nothing yet.
pub(super) fn open(dir: &Path, split: Split, cache_bytes: usize) -> Result<(Cifar10, Vec<u8>)> {
    let stem = if split == Split::Train { "train" } else { "test" };
    let labels_path = dir.join(format!("{stem}-labels.bin"));
    let labels = std::fs::read(&labels_path).map_err(|source| open_error(&labels_path, source))?;
    if let Some(index) = labels.iter().position(|&label| usize::from(label) >= CLASSES) {
        let label = labels.get(index).copied().unwrap_or_default();
        return Err(file_error(&labels_path, FileProblem::Label { index, label, classes: CLASSES }));
    }
    let sheet = |number: usize| dir.join(format!("{stem}-{number:02}.webp"));
    let sheets: Vec<PathBuf> = (0..labels.len().div_ceil(IMAGES_PER_SHEET)).map(sheet).collect();
    for path in &sheets {
        open_sheet(path)?;
    }
    let extra = (sheets.len()..).take_while(|&number| sheet(number).exists()).count();
    let images = (sheets.len() + extra) * IMAGES_PER_SHEET;
    if labels.len() != images {
        return Err(file_error(&labels_path, FileProblem::Counts { labels: labels.len(), images }));
    }
    let cifar10 = Cifar10 { sheets, cache: Mutex::new(Cache { most: 1, sheets: Vec::new() }) };
    cifar10.set_cache_bytes(cache_bytes);
    Ok((cifar10, labels))
}

impl Cifar10 {
    /// How much memory decoded sheets may take; at least one sheet is kept.
    pub(super) fn set_cache_bytes(&self, bytes: usize) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.most = (bytes / SHEET_BYTES).max(1);
        let surplus = cache.sheets.len().saturating_sub(cache.most);
        cache.sheets.drain(..surplus);
    }

    /// Writes image `index` to `out`: channel, row, column.
    pub(super) fn read(&self, index: usize, out: &mut [u8]) -> Result<()> {
        let sheet = self.sheet(index / IMAGES_PER_SHEET)?;
        let place = index % IMAGES_PER_SHEET;
        let stride = SHEET_WIDTH as usize * CHANNELS;
        let corner = place / COLUMNS * SIDE * stride + place % COLUMNS * SIDE * CHANNELS;
        for (y, row) in sheet.get(corner..).unwrap_or_default().chunks(stride).take(SIDE).enumerate() {
            for (x, pixel) in row.chunks_exact(CHANNELS).take(SIDE).enumerate() {
                for (plane, &value) in out.chunks_exact_mut(SIDE * SIDE).zip(pixel) {
                    if let Some(byte) = plane.get_mut(y * SIDE + x) {
                        *byte = value;
                    }
                }
            }
        }
        Ok(())
    }

    fn sheet(&self, number: usize) -> Result<Arc<Vec<u8>>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = match cache.sheets.iter().position(|entry| entry.0 == number) {
            Some(place) => cache.sheets.remove(place),
            None => {
                let path = self.sheets.get(number).map(PathBuf::as_path).unwrap_or(Path::new(""));
                let surplus = (cache.sheets.len() + 1).saturating_sub(cache.most);
                cache.sheets.drain(..surplus);
                (number, Arc::new(decode(path)?))
            }
        };
        cache.sheets.push(entry.clone());
        Ok(entry.1)
    }
}

/// Reads a sheet's header.
fn open_sheet(path: &Path) -> Result<WebPDecoder<BufReader<File>>> {
    let file = File::open(path).map_err(|source| open_error(path, source))?;
    let decoder = WebPDecoder::new(BufReader::new(file)).map_err(|error| webp_error(path, &error))?;
    let (found_width, found_height) = decoder.dimensions();
    if (found_width, found_height) != (SHEET_WIDTH, SHEET_HEIGHT) {
        let (width, height) = (SHEET_WIDTH, SHEET_HEIGHT);
        return Err(file_error(path, FileProblem::SheetSize { width, height, found_width, found_height }));
    }
    Ok(decoder)
}

/// The pixels of a sheet: row, column, RGB.
fn decode(path: &Path) -> Result<Vec<u8>> {
    let mut decoder = open_sheet(path)?;
    let opaque = !decoder.has_alpha();
    let mut pixels = vec![0; decoder.output_buffer_size().unwrap_or_default()];
    decoder.read_image(&mut pixels).map_err(|error| webp_error(path, &error))?;
    if !opaque {
        pixels =
            pixels.chunks_exact(CHANNELS + 1).flat_map(|rgba| rgba.iter().take(CHANNELS)).copied().collect();
    }
    Ok(pixels)
}

fn webp_error(path: &Path, error: &image_webp::DecodingError) -> super::DataError {
    file_error(path, FileProblem::Compression { format: "WebP", message: error.to_string() })
}
