//! Data sets as the passes see them: batches of named tensors.

use crate::cli::PreprocessArgs;
use crate::data::{ArrayInfo, DType, Dataset, NamedArray, Preprocess, Wanted};
use crate::failure::{Failure, Outcome};
use crate::warn;
use gs_eval::{DataError, DataSource, Field, Tensor};
use gs_ir::{Dim, ElemType, Literal, Module};
use std::ops::Range;
use std::sync::Arc;

/// A data set for a network.
pub struct Samples {
    pub(crate) dataset: Arc<Dataset>,
    pub(crate) limit: usize,
    /// The name of the network's only input: that of a data set's only array, whatever it is called.
    input: Option<String>,
}

impl Samples {
    /// Opens the data that a spec names for a network.
    ///
    /// # Errors
    /// A wrong spec, missing or damaged files, preprocessing that does not fit.
    pub fn open(
        spec: &str,
        limit: Option<usize>,
        preprocess: &PreprocessArgs,
        module: &Module,
    ) -> Outcome<Self> {
        let (samples, guessed) = Self::quietly(spec, limit, preprocess, module)?;
        if guessed {
            warn!(
                "note: neither options nor the model's metadata say how pixels are normalised; they become pixel/255 \
                 (--mean and --std, or --raw255, say otherwise)"
            );
        }
        Ok(samples)
    }

    /// Opens more data of a run whose first were opened with [`Self::open`]: what is said of those holds here too.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_beside(spec: &str, preprocess: &PreprocessArgs, module: &Module) -> Outcome<Self> {
        Ok(Self::quietly(spec, None, preprocess, module)?.0)
    }

    /// The samples, and whether nothing says how their pixels are normalised.
    fn quietly(
        spec: &str,
        limit: Option<usize>,
        preprocess: &PreprocessArgs,
        module: &Module,
    ) -> Outcome<(Self, bool)> {
        let inputs = input_names(module);
        let names: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let given = Preprocess::from_options(
            preprocess.mean.as_deref(),
            preprocess.std.as_deref(),
            preprocess.raw255,
        )?;
        let known = if given.is_none() { of_metadata(module)? } else { None };
        let wanted = match (&given, &known) {
            (Some(p), _) => Wanted::Always(p),
            (None, Some(p)) => Wanted::OfImages(p),
            (None, None) => Wanted::Nothing,
        };
        let dataset = Dataset::open_for(spec, wanted, &names)?;
        let guessed = given.is_none() && known.is_none() && dataset.has_pictures();
        if limit == Some(0) {
            return Err(Failure::usage("--limit 0 leaves no samples").help("leave the option out to use all"));
        }
        let limit = limit.unwrap_or(usize::MAX).min(dataset.len());
        let single = inputs.len() == 1 && dataset.inputs().len() == 1;
        let input = if single { inputs.first().cloned() } else { None };
        let samples = Self { dataset: Arc::new(dataset), limit, input };
        samples.check(module)?;
        Ok((samples, guessed))
    }

    /// The first of these samples.
    pub fn first(&self, count: usize) -> Self {
        Self { dataset: self.dataset.clone(), limit: self.limit.min(count), input: self.input.clone() }
    }

    /// Whether the arrays fit the network's inputs, before anything runs.
    fn check(&self, module: &Module) -> Outcome<()> {
        let Some(main) = module.main() else { return Ok(()) };
        let arrays = self.dataset.inputs();
        for &p in module.graph(main).params() {
            let input = module.str(module.value(p).name);
            let found = arrays.iter().find(|a| self.name_of(a.name.as_deref()) == input);
            let (Some(array), Some(wanted)) = (found, module.type_of(p).as_tensor()) else { continue };
            let fits = wanted.elem == elem_of(array.dtype)
                && module.type_of(p).dims().is_none_or(|dims| {
                    let rest = dims.get(1..).unwrap_or_default();
                    let same = |(d, &n): (&Dim, &usize)| d.as_const().is_none_or(|d| d == n as i64);
                    dims.len() == array.item_shape.len() + 1 && rest.iter().zip(&array.item_shape).all(same)
                });
            if fits {
                continue;
            }
            let shape: Vec<String> = array.item_shape.iter().map(|n| format!(", {n}")).collect();
            return Err(Failure::new(format!(
                "the data '{}' are {}[{}{}], but input `{input}` of the network is {}",
                self.dataset.spec(),
                array.dtype,
                self.dataset.len(),
                shape.concat(),
                gs_text::gsir::type_text(module, module.type_of(p))
            ))
            .help(what_fits(wanted.elem, array)));
        }
        Ok(())
    }

    /// The input that an array is for.
    fn name_of<'a>(&'a self, array: Option<&'a str>) -> &'a str {
        self.input.as_deref().or(array).unwrap_or_default()
    }

    /// Whether every sample has a label that is a class of the network's first output.
    ///
    /// # Errors
    /// Samples without labels, or the first label that is no class.
    pub fn check_classes(&self, module: &Module) -> Outcome<()> {
        let labels = self.dataset.labels(0..self.limit)?;
        let Some(output) = module.main().and_then(|m| module.graph(m).results().next()) else {
            return Ok(());
        };
        let classes = module.type_of(output).dims().and_then(|d| d.get(1)?.as_const());
        let Some(classes) = classes else { return Ok(()) };
        let Some(wrong) = labels.iter().position(|l| !(0..classes).contains(l)) else { return Ok(()) };
        let label = labels.get(wrong).copied().unwrap_or_default();
        Err(Failure::new(format!(
            "the label of sample {wrong} of '{}' is {label}, but the network has the classes 0 to {}",
            self.dataset.spec(),
            classes - 1
        ))
        .help("labels count from 0; the first output of the network has one number for each class"))
    }

    /// The labels of all samples, where there are any.
    ///
    /// # Errors
    /// Labels that cannot be read.
    pub fn labels(&self) -> Outcome<Option<Vec<i64>>> {
        if !self.dataset.has_labels() {
            return Ok(None);
        }
        Ok(Some(self.dataset.labels(0..self.limit)?))
    }
}

/// What to do about an array that does not fit.
fn what_fits(wanted: ElemType, array: &ArrayInfo) -> String {
    let shape = "an array holds one sample per row of its first axis, in the form of the network's input";
    let found = elem_of(array.dtype);
    if found == wanted {
        return shape.to_owned();
    }
    let pixels = found == ElemType::U8 && array.item_shape.len() == 3;
    let pixels = if pixels { ", or for pictures --mean and --std, or --raw255" } else { "" };
    match dtype_of(wanted) {
        Some(dtype) => {
            format!(
                "element types are not changed: store the array as {dtype} (x.astype(\"{}\")){pixels}",
                dtype.numpy()
            )
        }
        None => shape.to_owned(),
    }
}

/// The names of a network's inputs.
fn input_names(module: &Module) -> Vec<String> {
    let Some(main) = module.main() else { return Vec::new() };
    module.graph(main).params().iter().map(|&p| module.str(module.value(p).name).to_owned()).collect()
}

/// What the model's metadata say of preprocessing.
fn of_metadata(module: &Module) -> Outcome<Option<Preprocess>> {
    let lookup = |key: &str| module.meta.properties.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    Ok(Preprocess::from_metadata(lookup)?)
}

impl DataSource for Samples {
    fn len(&self) -> usize {
        self.limit
    }

    fn batch(&self, range: Range<usize>) -> Result<Vec<Field>, DataError> {
        let arrays = self.dataset.batch(range).map_err(|e| DataError::Source(e.to_string()))?;
        arrays.into_iter().map(|a| self.field(a)).collect()
    }

    fn gather(&self, indices: &[usize]) -> Result<Vec<Field>, DataError> {
        let arrays = self.dataset.gather(indices).map_err(|e| DataError::Source(e.to_string()))?;
        arrays.into_iter().map(|a| self.field(a)).collect()
    }
}

impl Samples {
    /// Keeps all pictures at hand, since training reads them in random order.
    pub fn for_training(self) -> Self {
        self.dataset.set_cache_bytes(usize::MAX);
        self
    }

    pub(crate) fn field(&self, array: NamedArray) -> Result<Field, DataError> {
        let name = self.name_of(array.name.as_deref()).to_owned();
        let dims: Vec<i64> = array.shape.iter().map(|&d| d as i64).collect();
        let literal = Literal::new(elem_of(array.dtype), dims, array.bytes);
        let tensor = Tensor::from_literal(&literal)?;
        Ok((name, tensor))
    }
}

/// The element type of an array.
pub fn elem_of(dtype: DType) -> ElemType {
    match dtype {
        DType::Bool => ElemType::Bool,
        DType::U8 => ElemType::U8,
        DType::I8 => ElemType::I8,
        DType::U16 => ElemType::U16,
        DType::I16 => ElemType::I16,
        DType::U32 => ElemType::U32,
        DType::I32 => ElemType::I32,
        DType::U64 => ElemType::U64,
        DType::I64 => ElemType::I64,
        DType::F16 => ElemType::F16,
        DType::F32 => ElemType::F32,
        DType::F64 => ElemType::F64,
    }
}

/// The array type of an element type, where there is one.
pub fn dtype_of(elem: ElemType) -> Option<DType> {
    DType::all().find(|&d| elem_of(d) == elem)
}

/// A tensor as an array to be written.
///
/// # Errors
/// Element types that arrays do not have.
pub fn array_of(name: &str, tensor: &Tensor) -> Outcome<NamedArray> {
    let dtype = dtype_of(tensor.elem()).ok_or_else(|| {
        Failure::new(format!("output `{name}` is {}, which .npz files do not have", tensor.elem()))
    })?;
    let literal = tensor.literal();
    let bytes = literal.data.bytes().map(|b| b.to_vec()).unwrap_or_default();
    Ok(NamedArray { name: Some(name.to_owned()), dtype, shape: tensor.dims().to_vec(), bytes })
}
