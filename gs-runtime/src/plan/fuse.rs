//! Fusion of operations that kernels run: activations go into the operation before them, an addition into the
//! convolution before it.

use super::build::Draft;
use super::plain::Plain;
use super::recipe::Recipe;
use gs_ir::ValueId;
use gs_kernels::{Clip, NO_CLIP};
use rustc_hash::FxHashMap;

/// The operations gathered so far; those that went into another one are gone.
#[derive(Default)]
struct Fused {
    drafts: Vec<Option<Draft>>,
    /// Which of them makes a value.
    makers: FxHashMap<ValueId, usize>,
}

/// Fuses what can be fused. `private` says whether a value has one reader, which is among the drafts, and is not
/// wanted by anyone else.
pub(crate) fn fuse(drafts: Vec<Draft>, private: &dyn Fn(ValueId) -> bool) -> Vec<Draft> {
    let mut fused = Fused::default();
    for draft in drafts {
        let left = match draft.recipe {
            Recipe::Plain(Plain::Clip(clip)) => fused.clip(draft, clip, private),
            Recipe::Plain(Plain::Add(limits)) => fused.residual(draft, limits, private),
            _ => Some(draft),
        };
        if let Some(draft) = left {
            fused.push(draft);
        }
    }
    fused.drafts.into_iter().flatten().collect()
}

impl Fused {
    fn push(&mut self, draft: Draft) {
        self.makers.insert(draft.write, self.drafts.len());
        self.drafts.push(Some(draft));
    }

    /// A clip goes into the operation whose result it limits. What is left of it is returned.
    fn clip(&mut self, draft: Draft, then: Clip, private: &dyn Fn(ValueId) -> bool) -> Option<Draft> {
        let Some(&read) = draft.reads.first().filter(|&&v| private(v)) else { return Some(draft) };
        let Some(&place) = self.makers.get(&read) else { return Some(draft) };
        let Some(Some(maker)) = self.drafts.get_mut(place) else { return Some(draft) };
        let Some(limits) = maker.recipe.clip_mut() else { return Some(draft) };
        *limits = both(*limits, then);
        maker.write = draft.write;
        self.makers.remove(&read);
        self.makers.insert(draft.write, place);
        None
    }

    /// `add(conv(x), r)` becomes a convolution with a residual, at the place of the addition, where `r` is there too.
    fn residual(&mut self, add: Draft, limits: Clip, private: &dyn Fn(ValueId) -> bool) -> Option<Draft> {
        let &[a, b] = add.reads.as_slice() else { return Some(add) };
        for (value, other) in [(b, a), (a, b)] {
            if value == other || !private(value) {
                continue;
            }
            let Some(slot) = self.makers.get(&value).and_then(|&i| self.drafts.get_mut(i)) else { continue };
            let plain = |d: &Draft| {
                d.reads.len() == 1 && matches!(d.recipe, Recipe::Conv { clip, .. } if clip == NO_CLIP)
            };
            let Some(mut conv) = slot.take_if(|d| plain(d)) else { continue };
            if let Some(clip) = conv.recipe.clip_mut() {
                *clip = limits;
            }
            conv.reads.push(other);
            conv.write = add.write;
            self.makers.remove(&value);
            self.push(conv);
            return None;
        }
        Some(add)
    }
}

/// The limits of one clip behind another.
fn both(first: Clip, then: Clip) -> Clip {
    let within = |v: f32| v.max(then.0).min(then.1);
    (within(first.0), within(first.1))
}
