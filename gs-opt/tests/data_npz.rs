//! Numpy archives: what is written reads back, what numpy wrote is read, what is damaged is refused.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use gs_opt::data::{
    ArrayProblem, DType, DataError, Dataset, NamedArray, NpyProblem, NpzWriter, Preprocess, Wanted, read_npz,
};
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

fn shared(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(file)
}

/// An `.npy` with the given entries of its header, written out as numpy does.
fn npy(descr: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00", length.as_slice(), header.as_bytes(), data].concat()
}

fn archive(method: CompressionMethod, members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new(members: &[(&str, Vec<u8>)]) -> Fixture {
        Fixture::with_bytes(&archive(CompressionMethod::Stored, members))
    }

    fn with_bytes(bytes: &[u8]) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.npz"), bytes).unwrap();
        Fixture { dir }
    }

    fn open(&self, names: &str) -> Result<Dataset, DataError> {
        self.open_for(names, &[])
    }

    fn open_for(&self, names: &str, model: &[&str]) -> Result<Dataset, DataError> {
        Dataset::open_for(&format!("npz:{}{names}", self.path().display()), Wanted::Nothing, model)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("a.npz")
    }
}

fn problem(error: DataError) -> ArrayProblem {
    match error {
        DataError::Array { problem, .. } => problem,
        other => panic!("{other}"),
    }
}

fn little_f32(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn labels_u8(labels: &[u8]) -> Vec<u8> {
    npy("|u1", false, &format!("({},)", labels.len()), labels)
}

#[test]
fn rows_come_out_in_order_whatever_the_layout() {
    // [3, 2, 2] with the elements 0 to 11.
    let plain: Vec<i16> = (0..12).collect();
    let fortran: Vec<i16> = vec![0, 4, 8, 2, 6, 10, 1, 5, 9, 3, 7, 11];
    let little = |values: &[i16]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let big = |values: &[i16]| values.iter().flat_map(|value| value.to_be_bytes()).collect::<Vec<u8>>();
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        for (name, x) in [
            ("plain", npy("<i2", false, "(3, 2, 2)", &little(&plain))),
            ("fortran", npy("<i2", true, "(3, 2, 2)", &little(&fortran))),
            ("big", npy(">i2", false, "(3, 2, 2)", &big(&plain))),
            ("both", npy(">i2", true, "(3, 2, 2)", &big(&fortran))),
        ] {
            let fixture = Fixture::with_bytes(&archive(method, &[("x.npy", x)]));
            let data = fixture.open("").unwrap();
            let expected = NamedArray {
                name: None,
                dtype: DType::I16,
                shape: vec![2, 2, 2],
                bytes: little(&plain[4..]),
            };
            assert_eq!(data.batch(1..3).unwrap(), [expected], "{name} {method:?}");
            let picked = data.gather(&[2, 0]).unwrap().remove(0);
            assert_eq!(picked.bytes, little(&[8, 9, 10, 11, 0, 1, 2, 3]), "{name} {method:?}");
        }
    }
}

#[test]
fn every_element_type_survives_writing_and_reading() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("all.npz");
    let arrays: Vec<NamedArray> = DType::all()
        .map(|dtype| NamedArray {
            name: Some(dtype.to_string()),
            dtype,
            shape: vec![2, 3],
            bytes: (0..6 * dtype.size()).map(|at| (at % 2) as u8).collect(),
        })
        .collect();
    let mut writer = NpzWriter::new(&path);
    for array in &arrays {
        writer.add(array).unwrap();
    }
    assert!(!path.exists());
    writer.finish().unwrap();
    assert_eq!(read_npz(&path).unwrap(), arrays);
}

#[test]
fn batches_of_several_arrays_may_alternate() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.npz");
    let mut writer = NpzWriter::new(&path);
    // Large enough that one of the arrays leaves the memory.
    for batch in 0..3 {
        writer.append(&NamedArray::from_f32(Some("a"), vec![500, 1000], &[batch as f32; 500_000])).unwrap();
        writer.append(&NamedArray::from_i64(Some("y"), vec![500], &[batch; 500])).unwrap();
    }
    let other = writer.append(&NamedArray::from_i64(Some("a"), vec![1, 1000], &[0; 1000])).unwrap_err();
    assert!(
        other.to_string().ends_with("array 'a' holds rows f32[1000]; i64[1000] cannot be appended"),
        "{other}"
    );
    writer.finish().unwrap();
    let data = Dataset::open(&format!("npz:{}:a", path.display()), None).unwrap();
    assert_eq!(data.len(), 1500);
    assert_eq!(data.labels(499..501).unwrap(), [0, 1]);
    let rows = data.batch(999..1001).unwrap()[0].to_f32().unwrap();
    assert_eq!((rows[0], rows[1000]), (1.0, 2.0));
}

#[test]
fn the_same_arrays_make_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str| {
        let path = dir.path().join(name);
        let mut writer = NpzWriter::new(&path);
        writer.add(&NamedArray::from_f32(Some("x"), vec![3], &[1.0, 2.0, 3.0])).unwrap();
        writer.finish().unwrap();
        fs::read(path).unwrap()
    };
    assert_eq!(write("one"), write("two"));
}

#[test]
fn the_writer_refuses_what_it_cannot_say() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = NpzWriter::new(&dir.path().join("a.npz"));
    let array = |name: Option<&str>, shape: &[usize]| NamedArray::from_f32(name, shape.to_vec(), &[0.0; 2]);
    writer.add(&array(Some("a"), &[2])).unwrap();
    assert!(matches!(
        problem(writer.add(&array(Some("a"), &[2])).unwrap_err()),
        ArrayProblem::Duplicate { .. }
    ));
    assert!(matches!(problem(writer.add(&array(None, &[2])).unwrap_err()), ArrayProblem::Unnamed));
    assert!(matches!(
        problem(writer.add(&array(Some("b"), &[3])).unwrap_err()),
        ArrayProblem::Bytes { bytes: 8, .. }
    ));
    let deep = array(Some("b"), &[[1; 32].as_slice(), &[2]].concat());
    assert!(matches!(problem(writer.add(&deep).unwrap_err()), ArrayProblem::Axes { axes: 33, most: 32, .. }));
    let huge = NamedArray { shape: vec![usize::MAX, 2], ..array(Some("b"), &[2]) };
    assert!(matches!(problem(writer.add(&huge).unwrap_err()), ArrayProblem::Bytes { .. }));
    drop(writer);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn an_archive_can_go_through_a_pipe() {
    use std::io::Read;
    use std::os::fd::AsRawFd;
    let (mut reader, pipe) = std::io::pipe().unwrap();
    let mut writer = NpzWriter::new(Path::new(&format!("/proc/self/fd/{}", pipe.as_raw_fd())));
    let array = NamedArray::from_f32(Some("x"), vec![2], &[1.0, 2.0]);
    writer.add(&array).unwrap();
    writer.finish().unwrap();
    drop(pipe);
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    assert_eq!(read_npz(&Fixture::with_bytes(&bytes).path()).unwrap(), [array]);
}

#[test]
fn inputs_are_found_by_spec_then_model_then_name() {
    let float = |value: f32| npy("<f4", false, "(2, 1)", &little_f32(&[value, value + 0.5]));
    let fixture = Fixture::new(&[
        ("ids.npy", float(1.0)),
        ("mask.npy", float(2.0)),
        ("x.npy", float(3.0)),
        ("labels.npy", labels_u8(&[4, 5])),
    ]);
    let names = |spec: &str, model: &[&str]| -> Vec<(Option<String>, f32)> {
        let data = fixture.open_for(spec, model).unwrap();
        assert_eq!(data.labels(0..2).unwrap(), [4, 5]);
        data.batch(0..1)
            .unwrap()
            .into_iter()
            .map(|array| (array.name.clone(), array.to_f32().unwrap()[0]))
            .collect()
    };
    assert_eq!(names("", &["mask", "ids"]), [(Some("mask".into()), 2.0), (Some("ids".into()), 1.0)]);
    assert_eq!(names("", &["input"]), [(None, 3.0)]);
    assert_eq!(names("", &[]), [(None, 3.0)]);
    assert_eq!(names(":ids", &["input"]), [(None, 1.0)]);
    assert_eq!(names(":ids,mask", &[]), [(Some("ids".into()), 1.0), (Some("mask".into()), 2.0)]);
    assert_eq!(names("::labels", &[]), [(None, 3.0)]);

    let error = fixture.open_for("", &["ids", "token_types"]).unwrap_err().to_string();
    assert!(error.ends_with("has no array 'token_types'; it holds ids, mask, x, labels"), "{error}");
    let error = fixture.open(":images").unwrap_err().to_string();
    assert!(error.ends_with("has no array 'images'; it holds ids, mask, x, labels"), "{error}");
    let error = fixture.open(":x:targets").unwrap_err().to_string();
    assert!(error.ends_with("has no array 'targets'; it holds ids, mask, x, labels"), "{error}");

    let two = Fixture::new(&[("a.npy", float(1.0)), ("b.npy", float(2.0))]);
    let error = two.open_for("", &["input"]).unwrap_err().to_string();
    assert!(error.ends_with("has no array 'input' or 'x'; it holds a, b"), "{error}");
    let one = Fixture::new(&[("features.npy", float(7.0)), ("y.npy", labels_u8(&[0, 1]))]);
    assert_eq!(one.open("").unwrap().batch(0..1).unwrap()[0].to_f32().unwrap(), [7.0]);
}

#[test]
fn labels_are_whole_numbers_or_not_there() {
    let x = npy("<f4", false, "(2,)", &little_f32(&[0.0; 2]));
    let with = |y: Option<Vec<u8>>| {
        let y = y.map(|y| ("y.npy", y));
        Fixture::new(&[vec![("x.npy", x.clone())], y.into_iter().collect()].concat())
    };
    let labels = |y: Vec<u8>| with(Some(y)).open("").unwrap().labels(0..2);
    assert_eq!(labels(npy("<i4", false, "(2,)", &[255, 255, 255, 255, 3, 0, 0, 0])).unwrap(), [-1, 3]);
    assert_eq!(labels(npy("<u2", false, "(2, 1)", &[255, 255, 3, 0])).unwrap(), [65535, 3]);
    assert_eq!(
        labels(npy(">i8", false, "(2,)", &[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 1, 0])).unwrap(),
        [9, 256]
    );

    let error = labels(npy("<f4", false, "(2,)", &little_f32(&[0.0; 2]))).unwrap_err().to_string();
    assert!(error.ends_with("has no labels: array 'y' is f32[2], not whole numbers of shape [N]"), "{error}");
    assert!(labels(npy("|u1", false, "(2, 2)", &[0; 4])).is_err());
    let none = with(None);
    let data = none.open("").unwrap();
    assert!(!data.has_labels());
    assert!(data.labels(0..1).unwrap_err().to_string().contains("holds no array 'y' or 'labels'"));
}

#[test]
fn arrays_must_have_the_same_number_of_rows() {
    let x = npy("<f4", false, "(2,)", &little_f32(&[0.0; 2]));
    let error = Fixture::new(&[("x.npy", x.clone()), ("y.npy", labels_u8(&[1, 2, 3]))]).open("").unwrap_err();
    assert!(error.to_string().ends_with("array 'y' has 3 rows, but array 'x' has 2"), "{error}");
    let scalar = Fixture::new(&[("x.npy", npy("<f4", false, "()", &[0; 4]))]).open("").unwrap_err();
    assert!(matches!(problem(scalar), ArrayProblem::NoBatchAxis { .. }));
    let empty = Fixture::new(&[("x.npy", npy("<f4", false, "(0, 3)", &[]))]).open("").unwrap_err();
    assert!(matches!(empty, DataError::Empty { .. }), "{empty}");
}

#[test]
fn pictures_in_an_archive_can_be_normalised() {
    let fixture = Fixture::new(&[("x.npy", npy("|u1", false, "(2, 2, 1, 1)", &[0, 255, 51, 102]))]);
    let spec = format!("npz:{}", fixture.path().display());
    let raw = Dataset::open(&spec, None).unwrap().batch(0..2).unwrap().remove(0);
    assert_eq!((raw.dtype, raw.bytes), (DType::U8, vec![0, 255, 51, 102]));
    let options = Preprocess::from_options(Some("0,1"), Some("1,0.5"), false).unwrap();
    let data = Dataset::open(&spec, options.as_ref()).unwrap();
    assert_eq!(data.inputs()[0].dtype, DType::F32);
    let expected = [0.0, 0.0, 51.0 / 255.0, (102.0 / 255.0 - 1.0) / 0.5];
    assert_eq!(data.batch(0..2).unwrap()[0].to_f32().unwrap(), expected);

    let floats = Fixture::new(&[("x.npy", npy("<f4", false, "(1, 2)", &[0; 8]))]);
    let error =
        Dataset::open(&format!("npz:{}", floats.path().display()), options.as_ref()).unwrap_err().to_string();
    assert!(error.contains("array 'x' is f32[1, 2]"), "{error}");
}

/// What a model's metadata say is for pictures: arrays of floats are in the form of the network's input already.
#[test]
fn what_metadata_say_is_not_done_to_floats() {
    let twice = Preprocess::from_options(Some("0"), Some("0.5"), false).unwrap().unwrap();
    let fixture = Fixture::new(&[
        ("f.npy", npy("<f4", false, "(1, 1, 1, 2)", &little_f32(&[0.5, -2.0]))),
        ("u.npy", npy("|u1", false, "(1, 1, 1, 2)", &[0, 255])),
    ]);
    let spec = format!("npz:{}", fixture.path().display());
    let data = Dataset::open_for(&spec, Wanted::OfImages(&twice), &["f", "u"]).unwrap();
    let batch = data.batch(0..1).unwrap();
    assert_eq!(batch[0].to_f32().unwrap(), [0.5, -2.0]);
    assert_eq!(batch[1].to_f32().unwrap(), [0.0, 2.0]);
    assert!(Dataset::open_for(&spec, Wanted::Always(&twice), &["f", "u"]).is_err());
}

#[test]
fn headers_that_lie_are_refused() {
    let header = |x: Vec<u8>| match problem(Fixture::new(&[("x.npy", x)]).open("").unwrap_err()) {
        ArrayProblem::Header { problem, .. } => problem,
        other => panic!("{other}"),
    };
    assert_eq!(header(npy("<f4", false, "(3,)", &[0; 8])), NpyProblem::Length { expected: 12, found: 8 });
    assert_eq!(header(npy("<f4", false, "(1,)", &[0; 8])), NpyProblem::Length { expected: 4, found: 8 });
    assert!(matches!(header(npy("<c8", false, "(1,)", &[0; 8])), NpyProblem::DType { .. }));
    let huge = "(0, 4611686018427387904, 4)";
    assert!(matches!(header(npy("<f4", false, huge, &[])), NpyProblem::Shape { .. }));
    assert_eq!(header(b"no numpy".to_vec()), NpyProblem::Magic);
}

/// Whatever is cut off or changed: an error, or the same contents, never a panic and never other contents.
#[test]
fn no_damage_passes_for_data() {
    let x: Vec<f32> = (0..20).map(|at| at as f32).collect();
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let members =
            [("x.npy", npy("<f4", false, "(20,)", &little_f32(&x))), ("y.npy", labels_u8(&[3; 20]))];
        let whole = archive(method, &members);
        let contents = |bytes: &[u8]| {
            let fixture = Fixture::with_bytes(bytes);
            let data = fixture.open("").ok()?;
            Some((data.batch(0..data.len()).ok()?, data.labels(0..data.len()).ok()))
        };
        let expected = contents(&whole).unwrap();
        for cut in 0..whole.len() {
            assert_eq!(contents(&whole[..cut]), None, "cut at {cut}");
        }
        for at in 0..whole.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] ^= change;
                let Some((batch, labels)) = contents(&damaged) else { continue };
                // A changed name of the member `y` makes an archive without labels.
                assert_eq!(batch, expected.0, "{method:?} {at} {change:#x}");
                assert!(labels.is_none() || labels == expected.1, "{method:?} {at} {change:#x}");
            }
        }
    }
}

#[test]
fn files_of_other_kinds_are_refused() {
    let other = Fixture::with_bytes(&fs::read(shared("README.md")).unwrap());
    assert!(matches!(other.open("").unwrap_err(), DataError::File { .. }));
    let missing = Dataset::open("npz:nowhere/a.npz", None).unwrap_err();
    assert!(matches!(missing, DataError::FileMissing { .. }), "{missing}");
    let missing = Dataset::open("npz:Cargo.npz", None).unwrap_err().to_string();
    assert!(
        missing.contains("Cargo.npz: no such file; the folder holds") && missing.contains("Cargo.toml"),
        "{missing}"
    );
}

/// All goldens that numpy wrote for the other tests.
#[test]
fn real_archives_are_read() {
    let logits = read_npz(&shared("resnet_cifar10/resnet20_logits_test0-15.npz")).unwrap();
    let logits = logits.iter().find(|array| array.name.as_deref() == Some("logits")).unwrap();
    assert_eq!((logits.dtype, logits.shape.as_slice()), (DType::F32, &[16, 10][..]));
    let images = Dataset::open(&format!("cifar10:{}:test", shared("cifar10").display()), None).unwrap();
    let labels = images.labels(0..16).unwrap();
    let best = |row: &[f32]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap() as i64;
    let right =
        logits.to_f32().unwrap().chunks(10).zip(labels).filter(|(row, label)| best(row) == *label).count();
    assert!(right >= 14, "{right} of 16");

    let mut read = 0;
    for folder in ["onnx/golden", "mlperf_tiny/golden"] {
        for entry in fs::read_dir(shared(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "npz") {
                match read_npz(&path) {
                    Ok(arrays) => read += usize::from(!arrays.is_empty()),
                    // One network takes strings, which no data set has.
                    Err(error) => assert!(error.to_string().contains("has element type '<U9'"), "{error}"),
                }
            }
        }
    }
    assert!(read > 20, "{read}");
}
