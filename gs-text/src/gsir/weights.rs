//! The `.safetensors` file beside a text: read through a memory map, written as a stream. Kinds that the format
//! lacks (4-, 2- and 1-bit elements, complex doubles, strings) are stored as bytes; their type stands in the text.

use super::options::PrintOptions;
use super::print_global::is_inline;
use crate::diagnostics::Diagnostic;
use crate::quote::quoted;
use crate::span::Span;
use bytes::Bytes;
use gs_ir::{ElemType, Global, GlobalId, Init, Module, TensorData, TensorType};
use rustc_hash::{FxHashMap, FxHashSet};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Component, Path};
use std::sync::Arc;

/// The kinds that both have.
const KINDS: &[(ElemType, Dtype)] = &[
    (ElemType::F64, Dtype::F64),
    (ElemType::F32, Dtype::F32),
    (ElemType::F16, Dtype::F16),
    (ElemType::Bf16, Dtype::BF16),
    (ElemType::F8E4M3Fn, Dtype::F8_E4M3),
    (ElemType::F8E4M3Fnuz, Dtype::F8_E4M3FNUZ),
    (ElemType::F8E5M2, Dtype::F8_E5M2),
    (ElemType::F8E5M2Fnuz, Dtype::F8_E5M2FNUZ),
    (ElemType::F8E8M0, Dtype::F8_E8M0),
    (ElemType::I64, Dtype::I64),
    (ElemType::I32, Dtype::I32),
    (ElemType::I16, Dtype::I16),
    (ElemType::I8, Dtype::I8),
    (ElemType::U64, Dtype::U64),
    (ElemType::U32, Dtype::U32),
    (ElemType::U16, Dtype::U16),
    (ElemType::U8, Dtype::U8),
    (ElemType::Bool, Dtype::BOOL),
    (ElemType::C64, Dtype::C64),
];

fn stored_as(elem: ElemType) -> Option<Dtype> {
    KINDS.iter().find(|k| k.0 == elem).map(|k| k.1)
}

// ---- which tensors, under which names ----

/// The names under which the large tensors of a module lie in its file.
pub(super) struct TensorNames {
    names: FxHashMap<GlobalId, String>,
    /// In order of creation.
    order: Vec<GlobalId>,
}

impl TensorNames {
    pub(super) fn new(module: &Module, inline_limit: usize) -> Self {
        let is_large = |g: &Global| matches!(g.init, Init::Data(_)) && !is_inline(module, g, inline_limit);
        let order: Vec<GlobalId> = module.globals().filter(|(_, g)| is_large(g)).map(|(id, _)| id).collect();
        let mut names: FxHashMap<GlobalId, String> = FxHashMap::default();
        let mut taken: FxHashSet<&str> = order.iter().map(|&id| module.str(module.global(id).name)).collect();
        // The one name that means something else there.
        taken.insert("__metadata__");
        for &id in &order {
            let mut name = module.str(module.global(id).name).to_owned();
            if name == "__metadata__" {
                while taken.contains(&*name) {
                    name.push('_');
                }
            }
            names.insert(id, name);
        }
        Self { names, order }
    }

    pub(super) fn get(&self, id: GlobalId) -> Option<&str> {
        self.names.get(&id).map(String::as_str)
    }
}

// ---- writing ----

/// A tensor to be written.
struct Entry<'m> {
    name: &'m str,
    dtype: Dtype,
    shape: Vec<i64>,
    data: &'m TensorData,
    len: u64,
}

/// Writes the large tensors of a module, those to which the text printed with the same options refers. Their bytes are
/// never copied. Says how many there were.
///
/// # Errors
/// Those of `out`.
pub fn write_weights(module: &Module, options: &PrintOptions, out: &mut dyn Write) -> io::Result<usize> {
    let names = TensorNames::new(module, options.inline_limit);
    let mut entries: Vec<Entry<'_>> =
        names.order.iter().filter_map(|&id| entry(module, module.global(id), names.get(id)?)).collect();
    // Wide kinds first, so that every tensor is aligned in a mapped file.
    entries.sort_by_key(|e| std::cmp::Reverse(e.dtype.bitsize()));
    let header = header(&entries);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    for e in &entries {
        match e.data {
            TensorData::Bytes(b) => out.write_all(b)?,
            TensorData::Strings(s) => write_strings(s, out)?,
        }
    }
    Ok(entries.len())
}

/// Whether any tensor of a module goes to the file.
pub(super) fn has_large(module: &Module, options: &PrintOptions) -> bool {
    !TensorNames::new(module, options.inline_limit).order.is_empty()
}

fn entry<'m>(module: &'m Module, global: &'m Global, name: &'m str) -> Option<Entry<'m>> {
    let Init::Data(data) = &global.init else { return None };
    let tensor = module.ty(global.ty).as_tensor()?;
    let len = match data {
        TensorData::Bytes(b) => b.len() as u64,
        TensorData::Strings(s) => 8 * (s.len() as u64 + 1) + s.iter().map(|b| b.len() as u64).sum::<u64>(),
    };
    Some(match stored_as(tensor.elem) {
        Some(dtype) => Entry { name, dtype, shape: tensor.const_dims()?, data, len },
        None => Entry { name, dtype: Dtype::U8, shape: vec![len as i64], data, len },
    })
}

fn header(entries: &[Entry<'_>]) -> String {
    let mut out = String::from("{");
    let mut offset = 0u64;
    for (i, e) in entries.iter().enumerate() {
        out.push_str(if i > 0 { "," } else { "" });
        push_json(&mut out, e.name);
        let end = offset + e.len;
        out.push_str(&format!(
            ":{{\"dtype\":\"{}\",\"shape\":{:?},\"data_offsets\":[{offset},{end}]}}",
            e.dtype, e.shape
        ));
        offset = end;
    }
    out.push('}');
    while out.len() % 8 != 0 {
        out.push(' ');
    }
    out
}

fn push_json(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Strings: where each begins and the last ends, as 64-bit numbers, then their bytes.
fn write_strings(strings: &[Bytes], out: &mut dyn Write) -> io::Result<()> {
    let mut at = 0u64;
    out.write_all(&at.to_le_bytes())?;
    for s in strings {
        at += s.len() as u64;
        out.write_all(&at.to_le_bytes())?;
    }
    strings.iter().try_for_each(|s| out.write_all(s))
}

fn read_strings(bytes: &Bytes, count: usize) -> Option<Arc<[Bytes]>> {
    let table = count.checked_add(1)?.checked_mul(8)?;
    let bounds = bytes.get(..table)?;
    let bound = |i: usize| -> Option<usize> {
        let b = bounds.get(8 * i..8 * i + 8)?;
        table.checked_add(usize::try_from(u64::from_le_bytes(b.try_into().ok()?)).ok()?)
    };
    let one = |i: usize| -> Option<Bytes> {
        let (start, end) = (bound(i)?, bound(i + 1)?);
        (start <= end && end <= bytes.len()).then(|| bytes.slice(start..end))
    };
    (0..count).map(one).collect()
}

// ---- reading ----

/// A mapped file of tensors.
struct Mapped {
    bytes: Bytes,
    metadata: Metadata,
    data_start: usize,
}

/// The files that a text refers to, each mapped once.
pub(super) struct WeightFiles<'p> {
    base_dir: Option<&'p Path>,
    files: FxHashMap<String, Result<Mapped, String>>,
}

impl<'p> WeightFiles<'p> {
    pub(super) fn new(base_dir: Option<&'p Path>) -> Self {
        Self { base_dir, files: FxHashMap::default() }
    }

    /// The contents of a tensor of this type.
    ///
    /// # Errors
    /// Where the file or the tensor is missing or of another type; the labels are to be added.
    pub(super) fn load(
        &mut self,
        file: (&str, Span),
        name: (&str, Span),
        tensor: &TensorType,
    ) -> Result<TensorData, Diagnostic> {
        let Some(base_dir) = self.base_dir else {
            let d = Diagnostic::error(
                "GS0301",
                "this text refers to a file, but it was not read from a directory",
            );
            return Err(d.label(file.1, "").help("read it by its path, or print it with its weights inline"));
        };
        let opened = self.files.entry(file.0.to_owned()).or_insert_with(|| open(base_dir, file.0));
        let mapped = match opened {
            Ok(mapped) => mapped,
            Err(why) => {
                let message = format!("the file {} cannot be used: {why}", quoted(file.0));
                return Err(Diagnostic::error("GS0302", message).label(file.1, ""));
            }
        };
        let Some(info) = mapped.metadata.info(name.0) else {
            let message = format!("{} has no tensor {}", quoted(file.0), quoted(name.0));
            return Err(Diagnostic::error("GS0303", message).label(name.1, ""));
        };
        let (start, end) = info.data_offsets;
        let range = mapped.data_start.saturating_add(start)..mapped.data_start.saturating_add(end);
        let bytes = match range.start <= range.end && range.end <= mapped.bytes.len() {
            true => mapped.bytes.slice(range),
            false => Bytes::new(),
        };
        contents(&info.dtype, &info.shape, bytes, tensor).ok_or_else(|| {
            let stored = format!("{}{:?}", info.dtype, info.shape);
            let message =
                format!("the tensor {} is stored as {stored}, which is not the stated type", quoted(name.0));
            Diagnostic::error("GS0304", message).label(name.1, "")
        })
    }
}

fn contents(dtype: &Dtype, shape: &[usize], bytes: Bytes, tensor: &TensorType) -> Option<TensorData> {
    let dims = tensor.const_dims()?;
    let count = tensor.count()?;
    match stored_as(tensor.elem) {
        Some(kind) => {
            let same = dims.len() == shape.len()
                && dims.iter().zip(shape).all(|(d, s)| usize::try_from(*d) == Ok(*s));
            let fits = same && kind == *dtype && tensor.elem.bytes_for(count) == Some(bytes.len());
            fits.then_some(TensorData::Bytes(bytes))
        }
        None if *dtype != Dtype::U8 => None,
        None if tensor.elem == ElemType::Str => read_strings(&bytes, count).map(TensorData::Strings),
        None => (tensor.elem.bytes_for(count) == Some(bytes.len())).then_some(TensorData::Bytes(bytes)),
    }
}

fn open(base_dir: &Path, name: &str) -> Result<Mapped, String> {
    // A text from elsewhere must not reach outside its own directory.
    let path = Path::new(name);
    if name.is_empty() || !path.components().all(|c| matches!(c, Component::Normal(_))) {
        return Err("its name must be a path below the directory of the text".into());
    }
    let bytes = map(&base_dir.join(path)).map_err(|e| e.to_string())?;
    let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| e.to_string())?;
    Ok(Mapped { data_start: 8 + header, metadata, bytes })
}

/// Maps a file into memory.
fn map(path: &Path) -> io::Result<Bytes> {
    let file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the map is read-only and private to us. That nobody shortens the file meanwhile is what every memory map
    // asks of its user; our own writers never change a file in place, they put a new one under its name.
    let map = unsafe { memmap2::Mmap::map(&file)? };
    Ok(Bytes::from_owner(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_read_back_and_bad_tables_are_refused() {
        let strings: Vec<Bytes> =
            vec![Bytes::from_static(b"a"), Bytes::new(), Bytes::from_static(b"\xff\x00c")];
        let mut out = Vec::new();
        write_strings(&strings, &mut out).unwrap();
        let bytes = Bytes::from(out.clone());
        assert_eq!(read_strings(&bytes, 3).as_deref(), Some(&strings[..]));
        assert_eq!(read_strings(&bytes, 4), None);
        assert_eq!(read_strings(&bytes, usize::MAX), None);
        out[8] = 200;
        assert_eq!(read_strings(&Bytes::from(out), 3), None);
    }

    #[test]
    fn names_outside_the_directory_are_refused() {
        for name in ["", "/etc/passwd", "../x.safetensors", "a/../../x", "."] {
            assert!(open(Path::new("."), name).is_err_and(|e| e.contains("below the directory")), "{name}");
        }
    }
}
