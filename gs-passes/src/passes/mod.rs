//! General passes, one file each. A new one is one file and one line in [`register`].

mod const_fold;
mod cse;
mod dce;
mod infer;
mod rewrite;
mod saturate;

pub use const_fold::{ConstFold, fold_all_but_weights, fold_constants, widen_weights};
pub use cse::{Cse, merge_constants, merge_equal, merge_equal_of};
pub use dce::{Dce, remove_dead};
pub use infer::Infer;
pub(crate) use rewrite::why_not_folded;
pub use rewrite::{
    Canonicalize, FoldBn, GRAD_RULES, QDQ_RULES, SHIPPED_RULES, apply_rules, fold_batch_norms,
};
pub use saturate::Saturate;

use crate::manager::{Pass, PassRegistry, read_options};
use serde::Deserialize;

/// For passes without options: refuses any.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoOptions {}

/// Makes a pass that takes no options.
macro_rules! plain {
    ($registry:expr, $pass:expr) => {
        $registry.register($pass.info(), |options| {
            read_options::<NoOptions>(options)?;
            Ok(Box::new($pass))
        })
    };
}

/// Adds the passes of this crate.
pub fn register(registry: &mut PassRegistry) {
    plain!(registry, Infer);
    plain!(registry, Dce);
    plain!(registry, Cse);
    plain!(registry, ConstFold);
    plain!(registry, Canonicalize);
    plain!(registry, FoldBn);
    plain!(registry, Saturate);
    crate::training::register(registry);
}
