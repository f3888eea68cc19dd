//! What a kernel refuses.

use thiserror::Error;

/// Why a plan could not be made, or a kernel was not run. Nothing has been written when a kernel returns one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KernelError {
    /// A slice does not have the length that the shapes ask for.
    #[error("{what} has {got} elements, not {want}")]
    Length {
        /// The name of the argument.
        what: &'static str,
        /// Elements asked for.
        want: usize,
        /// Elements given.
        got: usize,
    },
    /// A number that must not be zero is zero.
    #[error("{0} is zero")]
    Zero(&'static str),
    /// Channels do not divide into the groups.
    #[error("{channels} channels do not divide into {groups} groups")]
    Groups {
        /// Input or output channels.
        channels: usize,
        /// Groups asked for.
        groups: usize,
    },
    /// The window is larger than the padded image.
    #[error("a window of {window} does not fit an image of {image} with its padding")]
    WindowTooLarge {
        /// Extent of the (dilated) window.
        window: usize,
        /// Extent of the padded image.
        image: usize,
    },
    /// The sizes multiply to more than can be addressed.
    #[error("the sizes are too large")]
    TooLarge,
    /// Rows outside the output, or an empty or reversed range of them.
    #[error("rows {start}..{end} are not a part of {rows} rows")]
    Rows {
        /// First row.
        start: usize,
        /// One past the last row.
        end: usize,
        /// Rows there are.
        rows: usize,
    },
    /// A scale that is not a positive, finite number.
    #[error("a scale is not a positive finite number")]
    Scale,
    /// A zero point or clamp limit outside the range of its code type, or limits in the wrong order.
    #[error("code {0} is outside the range allowed for it")]
    Code(i32),
    /// A label that is no class.
    #[error("label {0} is no class")]
    Label(i64),
    /// A residual was given where the plan has none, or the other way round.
    #[error("the residual operand and the plan disagree")]
    Residual,
    /// The plan writes codes and floats were asked for, or the other way round.
    #[error("the output type and the plan disagree")]
    OutputType,
}

/// `Ok` if a slice has the length asked for.
pub(super) fn check_len(what: &'static str, want: usize, got: usize) -> Result<(), KernelError> {
    if want == got { Ok(()) } else { Err(KernelError::Length { what, want, got }) }
}
