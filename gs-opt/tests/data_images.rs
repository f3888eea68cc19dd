//! CIFAR-10, MNIST and the generated shapes, read from the real files, and from damaged ones.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use gs_opt::data::{DataError, Dataset, FileProblem, Preprocess};
use sha2::{Digest, Sha256};

fn shared(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(folder)
}

fn real(folder: &str, split: &str) -> String {
    format!("{folder}:{}:{split}", shared(folder).display())
}

fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The pixels of a split as the checksums of the data's README take them: all images, row, column, RGB.
fn cifar10_digest(split: &str) -> String {
    let data = Dataset::open(&real("cifar10", split), Some(&Preprocess::Bytes)).unwrap();
    let mut hasher = Sha256::new();
    for start in (0..data.len()).step_by(1000) {
        for image in data.batch(start..start + 1000).unwrap()[0].bytes.chunks_exact(3072) {
            let pixels: Vec<u8> =
                (0..1024).flat_map(|at| [image[at], image[1024 + at], image[2048 + at]]).collect();
            hasher.update(&pixels);
        }
    }
    hex(hasher.finalize())
}

#[test]
fn cifar10_test_pixels_are_the_published_ones() {
    let expected = "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04";
    assert_eq!(cifar10_digest("test"), expected);
}

#[test]
fn cifar10_train_pixels_are_the_published_ones() {
    let expected = "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a";
    assert_eq!(cifar10_digest("train"), expected);
}

#[test]
fn cifar10_labels_are_the_published_ones() {
    for (split, len, first) in
        [("train", 50_000, [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]), ("test", 10_000, [3, 8, 8, 0, 6, 6, 1, 6, 3, 1])]
    {
        let data = Dataset::open(&real("cifar10", split), None).unwrap();
        assert_eq!((data.len(), data.has_labels()), (len, true));
        assert_eq!(data.labels(0..10).unwrap(), first);
        let all = data.labels(0..len).unwrap();
        for class in 0..10 {
            assert_eq!(all.iter().filter(|&&label| label == class).count(), len / 10);
        }
    }
}

/// The digests are those of the `x` that `shared/tools/cifar10_npz.py` writes for the same images with numpy.
#[test]
fn normalised_pixels_are_numpys_bit_for_bit() {
    let normalise = |mean, std| Preprocess::from_options(Some(mean), Some(std), false).unwrap();
    let cases = [
        (
            normalise("0.485,0.456,0.406", "0.229,0.224,0.225"),
            "7efdd784d0bff06681cce68d54cd80c16c88009f3a304fac713e9d08c9ad44b3",
        ),
        (None, "1fbc8d4d743cd6f574ab0c480cff7469850a7d4babe5bc92b5b8f9df6d140868"),
        (Some(Preprocess::Raw255), "34c9c3eb0ee7ace1e4b4bb27a24ab8bde9023bcfd25b1427803222f06ee7d492"),
    ];
    for (preprocess, expected) in cases {
        let data = Dataset::open(&real("cifar10", "test"), preprocess.as_ref()).unwrap();
        let batch = data.batch(0..512).unwrap();
        assert_eq!(batch[0].shape, [512, 3, 32, 32]);
        assert_eq!(hex(Sha256::digest(&batch[0].bytes)), expected, "{preprocess:?}");
    }
}

#[test]
fn any_order_and_any_cache_give_the_same_images() {
    let data = Dataset::open(&real("cifar10", "test"), None).unwrap();
    let across = data.batch(2998..3002).unwrap().remove(0);
    data.set_cache_bytes(0);
    let picked = data.gather(&[3001, 2998, 3000, 2999]).unwrap().remove(0);
    let image = |array: &[u8], at: usize| array.chunks_exact(4 * 3072).nth(at).unwrap().to_vec();
    for (at, original) in [3, 0, 2, 1].into_iter().enumerate() {
        assert_eq!(image(&picked.bytes, at), image(&across.bytes, original));
    }
    assert_eq!(data.batch(5..5).unwrap()[0].shape, [0, 3, 32, 32]);
    let beyond = data.batch(9_999..10_001).unwrap_err();
    assert!(matches!(beyond, DataError::OutOfRange { index: 10_000, len: 10_000, .. }), "{beyond}");
    assert!(
        data.gather(&[10_000]).is_err() && data.labels(0..10_001).is_err() && data.label(10_000).is_err()
    );
}

#[test]
fn mnist_files_are_the_published_ones() {
    let digests = [
        ("train", 60_000u32, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
        ("test", 10_000, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    ];
    for (split, count, expected) in digests {
        let data = Dataset::open(&real("mnist", split), Some(&Preprocess::Bytes)).unwrap();
        assert_eq!(data.inputs()[0].item_shape, [1, 28, 28]);
        let mut hasher = Sha256::new();
        for word in [0x0803, count, 28, 28] {
            hasher.update(word.to_be_bytes());
        }
        hasher.update(&data.batch(0..data.len()).unwrap()[0].bytes);
        assert_eq!(hex(hasher.finalize()), expected);
    }
    let data = Dataset::open(&real("mnist", "test"), None).unwrap();
    let labels = data.labels(0..data.len()).unwrap();
    let counts: Vec<usize> =
        (0..10).map(|class| labels.iter().filter(|&&label| label == class).count()).collect();
    assert_eq!(counts, [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]);
}

#[test]
fn shapes_need_no_files() {
    let data = Dataset::open("shapes:test:25", Some(&Preprocess::Bytes)).unwrap();
    assert_eq!(data.len(), 25);
    let batch = data.batch(0..25).unwrap().remove(0);
    assert_eq!(batch.shape, [25, 3, 32, 32]);
    assert_eq!(data.gather(&[7]).unwrap()[0].bytes, batch.bytes[7 * 3072..8 * 3072]);
    let mut first = data.labels(0..10).unwrap();
    first.sort_unstable();
    assert_eq!(first, (0..10).collect::<Vec<i64>>());
    assert!(data.labels(20..26).is_err());
}

/// A copy of the first test sheet with its 1,000 labels, to be damaged.
fn small_cifar10() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(shared("cifar10/test-00.webp"), dir.path().join("test-00.webp")).unwrap();
    let labels = fs::read(shared("cifar10/test-labels.bin")).unwrap();
    fs::write(dir.path().join("test-labels.bin"), &labels[..1000]).unwrap();
    dir
}

fn open_in(dir: &Path, kind: &str) -> Result<Dataset, DataError> {
    Dataset::open(&format!("{kind}:{}:test", dir.display()), None)
}

fn problem(error: DataError) -> FileProblem {
    match error {
        DataError::File { problem, .. } => problem,
        other => panic!("{other}"),
    }
}

#[test]
fn damaged_cifar10_is_refused_with_the_reason() {
    let dir = small_cifar10();
    let at = |name: &str| dir.path().join(name);
    assert_eq!(open_in(dir.path(), "cifar10").unwrap().len(), 1000);

    let labels = fs::read(at("test-labels.bin")).unwrap();
    fs::write(at("test-labels.bin"), &labels[..999]).unwrap();
    let found = problem(open_in(dir.path(), "cifar10").unwrap_err());
    assert_eq!(found, FileProblem::Counts { labels: 999, images: 1000 });

    fs::write(at("test-labels.bin"), [labels.as_slice(), &labels].concat()).unwrap();
    let error = open_in(dir.path(), "cifar10").unwrap_err();
    let text = format!(
        "{}: no such file; the folder holds test-00.webp, test-labels.bin",
        at("test-01.webp").display()
    );
    assert_eq!(error.to_string(), text);

    fs::write(at("test-labels.bin"), [10; 1000]).unwrap();
    let found = problem(open_in(dir.path(), "cifar10").unwrap_err());
    assert_eq!(found, FileProblem::Label { index: 0, label: 10, classes: 10 });

    fs::write(at("test-labels.bin"), &labels).unwrap();
    fs::copy(at("test-00.webp"), at("test-01.webp")).unwrap();
    let found = problem(open_in(dir.path(), "cifar10").unwrap_err());
    assert_eq!(found, FileProblem::Counts { labels: 1000, images: 2000 });

    fs::remove_file(at("test-00.webp")).unwrap();
    fs::remove_file(at("test-01.webp")).unwrap();
    fs::write(at("test-labels.bin"), []).unwrap();
    assert!(matches!(open_in(dir.path(), "cifar10"), Err(DataError::Empty { .. })));

    fs::remove_file(at("test-labels.bin")).unwrap();
    let error = open_in(dir.path(), "cifar10").unwrap_err();
    assert!(matches!(error, DataError::FileMissing { .. }), "{error}");
    assert!(matches!(open_in(&at("nowhere"), "cifar10"), Err(DataError::FileMissing { .. })));
}

#[test]
fn damaged_sheets_are_refused() {
    let dir = small_cifar10();
    let sheet = dir.path().join("test-00.webp");
    let whole = fs::read(&sheet).unwrap();

    let mut encoded = Vec::new();
    image_webp::WebPEncoder::new(&mut encoded)
        .encode(&[9; 4 * 2 * 3], 4, 2, image_webp::ColorType::Rgb8)
        .unwrap();
    fs::write(&sheet, &encoded).unwrap();
    let found = problem(open_in(dir.path(), "cifar10").unwrap_err());
    assert_eq!(found, FileProblem::SheetSize { width: 256, height: 4000, found_width: 4, found_height: 2 });

    for cut in [0, 3, 20, whole.len() / 2, whole.len() - 2000] {
        fs::write(&sheet, &whole[..cut]).unwrap();
        let error = open_in(dir.path(), "cifar10").and_then(|data| data.batch(0..1000)).unwrap_err();
        assert!(matches!(problem(error), FileProblem::Compression { format: "WebP", .. }), "cut at {cut}");
    }
}

/// An opaque alpha channel, which some tools add, is dropped.
#[test]
fn sheets_with_alpha_are_read() {
    let dir = small_cifar10();
    let before = open_in(dir.path(), "cifar10").unwrap().batch(0..1000).unwrap();
    let sheet = dir.path().join("test-00.webp");
    let mut decoder = image_webp::WebPDecoder::new(std::io::Cursor::new(fs::read(&sheet).unwrap())).unwrap();
    let mut pixels = vec![0; decoder.output_buffer_size().unwrap()];
    decoder.read_image(&mut pixels).unwrap();
    let rgba: Vec<u8> = pixels.chunks_exact(3).flat_map(|rgb| [rgb[0], rgb[1], rgb[2], 255]).collect();
    let file = fs::File::create(&sheet).unwrap();
    image_webp::WebPEncoder::new(file).encode(&rgba, 256, 4000, image_webp::ColorType::Rgba8).unwrap();
    assert_eq!(open_in(dir.path(), "cifar10").unwrap().batch(0..1000).unwrap(), before);
}

/// Three images and their labels as plain IDX files.
fn small_mnist() -> (tempfile::TempDir, Vec<u8>, Vec<u8>) {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    let pixels: Vec<u8> = (0..3 * 784).map(|at| (at % 251) as u8).collect();
    let images = [words(&[0x0803, 3, 28, 28]), pixels].concat();
    let labels = [words(&[0x0801, 3]), vec![7, 0, 9]].concat();
    let dir = tempfile::tempdir().unwrap();
    put_mnist(dir.path(), &images, &labels);
    (dir, images, labels)
}

fn put_mnist(dir: &Path, images: &[u8], labels: &[u8]) {
    fs::write(dir.join("t10k-images-idx3-ubyte"), images).unwrap();
    fs::write(dir.join("t10k-labels-idx1-ubyte"), labels).unwrap();
}

#[test]
fn plain_idx_files_are_read_where_there_are_no_packed_ones() {
    let (dir, images, _) = small_mnist();
    let data = open_in(dir.path(), "mnist").unwrap();
    assert_eq!(data.labels(0..3).unwrap(), [7, 0, 9]);
    let pixels = data.batch(0..3).unwrap()[0].to_f32().unwrap();
    assert_eq!(pixels[784 + 5], f32::from(images[16 + 784 + 5]) / 255.0);
}

#[test]
fn damaged_mnist_is_refused_with_the_reason() {
    let (dir, images, labels) = small_mnist();
    let found = |images: &[u8], labels: &[u8]| {
        put_mnist(dir.path(), images, labels);
        problem(open_in(dir.path(), "mnist").unwrap_err())
    };
    let changed = |bytes: &[u8], at: usize, value: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] = value;
        bytes
    };
    let magic = FileProblem::Magic { expected: "IDX file of images", magic: 0x0803, found: 0x0801 };
    assert_eq!(found(&labels, &labels), magic);
    assert_eq!(found(&images[..9], &labels), FileProblem::Truncated { expected: 12, found: 9 });
    assert_eq!(found(&images[..2000], &labels), FileProblem::Truncated { expected: 2368, found: 2000 });
    assert_eq!(found(&changed(&images, 7, 2), &labels), FileProblem::Trailing { expected: 1584 });
    assert_eq!(found(&changed(&images, 11, 27), &labels), FileProblem::ImageSize { rows: 27, columns: 28 });
    // A count of four thousand million is believed only as far as the file goes.
    let huge = FileProblem::Truncated { expected: 16 + 784 * 0xff00_0003, found: 2368 };
    assert_eq!(found(&changed(&images, 4, 255), &labels), huge);
    let two = [&changed(&labels, 7, 2)[..10]].concat();
    assert_eq!(found(&images, &two), FileProblem::Counts { labels: 2, images: 3 });
    let label = FileProblem::Label { index: 2, label: 200, classes: 10 };
    assert_eq!(found(&images, &changed(&labels, 10, 200)), label);

    fs::remove_file(dir.path().join("t10k-labels-idx1-ubyte")).unwrap();
    let error = open_in(dir.path(), "mnist").unwrap_err().to_string();
    assert!(
        error.contains("t10k-labels-idx1-ubyte.gz: no such file; the folder holds t10k-images"),
        "{error}"
    );
}

#[test]
fn damaged_gzip_is_refused() {
    let (dir, _, labels) = small_mnist();
    let real_images = fs::read(shared("mnist/t10k-images-idx3-ubyte.gz")).unwrap();
    let packed = dir.path().join("t10k-images-idx3-ubyte.gz");
    let mut flipped = real_images.clone();
    flipped[real_images.len() / 2] ^= 0x10;
    for damaged in [&real_images[..real_images.len() / 2], &flipped, &labels, b""] {
        fs::File::create(&packed).unwrap().write_all(damaged).unwrap();
        let found = problem(open_in(dir.path(), "mnist").unwrap_err());
        assert!(matches!(found, FileProblem::Compression { format: "gzip", .. }), "{found}");
    }
}
