//! What is printed of a module.

/// Where the contents of large tensors go. Small constants always stand in the text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Weights {
    /// In a file of this name beside the text: the text refers to it, [`super::write_weights`] writes it.
    File(String),
    /// In the text.
    Inline,
    /// Nowhere; of `param`s not even small contents. Such a text parses to globals without contents.
    None,
}

/// What is printed of a module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PrintOptions {
    /// Where the contents of large tensors go.
    pub weights: Weights,
    /// Whether provenance is printed: `from` and the tables `gone` and `kept`.
    pub provenance: bool,
    /// Tensors of at most this many elements are printed in the text.
    pub inline_limit: usize,
}

impl PrintOptions {
    /// The form for snapshots: without weights and provenance.
    pub fn snapshot() -> Self {
        Self { weights: Weights::None, provenance: false, ..Self::default() }
    }

    /// The form for files: large tensors lie in a file of this name.
    pub fn with_file(name: impl Into<String>) -> Self {
        Self { weights: Weights::File(name.into()), ..Self::default() }
    }
}

impl Default for PrintOptions {
    /// Everything, in the text.
    fn default() -> Self {
        Self { weights: Weights::Inline, provenance: true, inline_limit: 16 }
    }
}
