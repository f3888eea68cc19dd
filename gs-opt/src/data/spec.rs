//! The text that names a data set on the command line, such as `cifar10:data/cifar10:test`.

use std::path::PathBuf;

use super::error::{DataError, Result, SpecProblem};
use super::shapes;

/// The forms of a spec, for help texts and errors.
pub const FORMS: &[&str] =
    &["cifar10:DIR:train|test", "mnist:DIR:train|test", "npz:FILE[:X[:Y]]", "shapes:train|test[:COUNT]"];

/// Counts above this are taken for slips.
const MOST_SHAPES: usize = 100_000_000;

/// Which half of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// The images to learn from.
    Train,
    /// The images to judge by.
    Test,
}

/// A parsed spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    /// The CIFAR-10 sheets in a folder.
    Cifar10 {
        /// The folder.
        dir: PathBuf,
        /// Which half.
        split: Split,
    },
    /// The MNIST files in a folder.
    Mnist {
        /// The folder.
        dir: PathBuf,
        /// Which half.
        split: Split,
    },
    /// Arrays of a numpy archive.
    Npz {
        /// The archive.
        file: PathBuf,
        /// Names of the input arrays, separated by commas in the text; empty if not given.
        inputs: Vec<String>,
        /// Name of the array of labels.
        labels: Option<String>,
    },
    /// Generated images.
    Shapes {
        /// Which half.
        split: Split,
        /// How many.
        count: usize,
    },
}

impl Spec {
    /// Reads a spec.
    ///
    /// A folder or file may contain colons: the split is what follows the last colon, and the name of an
    /// archive ends at the last `.npz` that a colon or the end follows.
    ///
    /// # Errors
    /// [`DataError::Spec`].
    pub fn parse(text: &str) -> Result<Spec> {
        parse(text).map_err(|problem| DataError::Spec { spec: text.to_owned(), problem })
    }
}

type Parsed<T> = std::result::Result<T, SpecProblem>;

fn parse(text: &str) -> Parsed<Spec> {
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    let [cifar10, mnist, npz, shapes] = [0, 1, 2, 3].map(|i| FORMS.get(i).copied().unwrap_or_default());
    match kind {
        "cifar10" => parse_dir(rest, cifar10).map(|(dir, split)| Spec::Cifar10 { dir, split }),
        "mnist" => parse_dir(rest, mnist).map(|(dir, split)| Spec::Mnist { dir, split }),
        "npz" => parse_npz(rest, npz),
        "shapes" => parse_shapes(rest, shapes),
        _ => Err(SpecProblem::UnknownKind { found: kind.to_owned(), known: FORMS }),
    }
}

fn parse_dir(rest: &str, form: &'static str) -> Parsed<(PathBuf, Split)> {
    let missing = |part| SpecProblem::MissingPart { part, form };
    if rest.is_empty() {
        return Err(missing("DIR"));
    }
    let (dir, split) = rest.rsplit_once(':').ok_or_else(|| missing("the split"))?;
    if dir.is_empty() {
        return Err(missing("DIR"));
    }
    Ok((PathBuf::from(dir), parse_split(split, form)?))
}

fn parse_split(word: &str, form: &'static str) -> Parsed<Split> {
    match word {
        "train" => Ok(Split::Train),
        "test" => Ok(Split::Test),
        "" => Err(SpecProblem::MissingPart { part: "the split", form }),
        _ => Err(SpecProblem::UnknownSplit { found: word.to_owned() }),
    }
}

fn parse_npz(rest: &str, form: &'static str) -> Parsed<Spec> {
    let missing = |part| SpecProblem::MissingPart { part, form };
    let end = if rest.ends_with(".npz") { rest.len() } else { npz_end(rest) };
    let (file, tail) = rest.split_at_checked(end).unwrap_or((rest, ""));
    if file.is_empty() {
        return Err(missing("FILE"));
    }
    let mut parts = tail.strip_prefix(':').map(|tail| tail.split(':')).into_iter().flatten();
    let (inputs, labels, extra) = (parts.next(), parts.next(), parts.next());
    if let Some(extra) = extra {
        return Err(SpecProblem::TooManyParts { rest: extra.to_owned(), form });
    }
    // An empty X stands for the default, so that `npz:FILE::Y` names the labels alone.
    let inputs: Vec<String> = inputs
        .filter(|names| !names.is_empty())
        .map_or_else(Vec::new, |x| x.split(',').map(str::to_owned).collect());
    if inputs.iter().any(String::is_empty) {
        return Err(missing("a name in X"));
    }
    if labels == Some("") {
        return Err(missing("Y"));
    }
    Ok(Spec::Npz { file: PathBuf::from(file), inputs, labels: labels.map(str::to_owned) })
}

/// Where the file name ends in a text that goes on after it.
fn npz_end(rest: &str) -> usize {
    rest.rfind(".npz:").map(|at| at + ".npz".len()).or_else(|| rest.find(':')).unwrap_or(rest.len())
}

fn parse_shapes(rest: &str, form: &'static str) -> Parsed<Spec> {
    let (word, count) = rest.split_once(':').map_or((rest, None), |(word, count)| (word, Some(count)));
    let split = parse_split(word, form)?;
    let default = if split == Split::Train { shapes::DEFAULT_COUNTS.0 } else { shapes::DEFAULT_COUNTS.1 };
    let bad = |found: &str| SpecProblem::BadCount { found: found.to_owned(), most: MOST_SHAPES };
    let count = match count {
        None => default,
        Some(text) => text.parse().ok().filter(|n| (1..=MOST_SHAPES).contains(n)).ok_or_else(|| bad(text))?,
    };
    Ok(Spec::Shapes { split, count })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        Spec::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn all_forms_parse() {
        let dir = PathBuf::from("a/b");
        assert_eq!(
            Spec::parse("cifar10:a/b:train").unwrap(),
            Spec::Cifar10 { dir: dir.clone(), split: Split::Train }
        );
        assert_eq!(Spec::parse("mnist:a/b:test").unwrap(), Spec::Mnist { dir, split: Split::Test });
        assert_eq!(Spec::parse("shapes:test").unwrap(), Spec::Shapes { split: Split::Test, count: 2000 });
        assert_eq!(Spec::parse("shapes:train:7").unwrap(), Spec::Shapes { split: Split::Train, count: 7 });
    }

    #[test]
    fn npz_names_may_hold_colons_and_commas_separate_inputs() {
        let npz = |file: &str, inputs: &[&str], labels: Option<&str>| Spec::Npz {
            file: file.into(),
            inputs: inputs.iter().map(|&name| name.into()).collect(),
            labels: labels.map(str::to_owned),
        };
        assert_eq!(Spec::parse("npz:a.npz").unwrap(), npz("a.npz", &[], None));
        assert_eq!(Spec::parse("npz:C:\\d\\a.npz:x:y").unwrap(), npz("C:\\d\\a.npz", &["x"], Some("y")));
        assert_eq!(Spec::parse("npz:a.npz::y").unwrap(), npz("a.npz", &[], Some("y")));
        assert_eq!(Spec::parse("npz:a.zip:x,z").unwrap(), npz("a.zip", &["x", "z"], None));
    }

    #[test]
    fn errors_name_what_was_found_and_what_is_expected() {
        let known = "expected 'cifar10:DIR:train|test', 'mnist:DIR:train|test', 'npz:FILE[:X[:Y]]' or 'shapes:train|test[:COUNT]'";
        assert_eq!(
            problem("imagenet:x"),
            format!("data spec 'imagenet:x': unknown kind of data 'imagenet', {known}")
        );
        assert_eq!(
            problem("cifar10:d:val"),
            "data spec 'cifar10:d:val': unknown split 'val', expected train or test"
        );
        assert_eq!(
            problem("cifar10:d"),
            "data spec 'cifar10:d': the split is missing, expected 'cifar10:DIR:train|test'"
        );
        assert_eq!(problem("mnist"), "data spec 'mnist': DIR is missing, expected 'mnist:DIR:train|test'");
        assert_eq!(problem("npz:"), "data spec 'npz:': FILE is missing, expected 'npz:FILE[:X[:Y]]'");
        assert_eq!(
            problem("npz:a.npz:x:y:z"),
            "data spec 'npz:a.npz:x:y:z': 'z' is one part too many, expected 'npz:FILE[:X[:Y]]'"
        );
        for count in ["0", "-1", "many", "", "99999999999999999999"] {
            assert!(problem(&format!("shapes:test:{count}")).contains("is no count"), "{count}");
        }
    }
}
