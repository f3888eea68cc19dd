//! Cross entropy of rows of logits, and its derivative. Sums of a row are `f64`.

use super::error::{KernelError, check_len};

/// The probability that a class should have: `smoothing` of it is spread over all `classes`.
fn target(smoothing: f64, classes: usize, is_label: bool) -> f64 {
    let everywhere = smoothing / classes.max(1) as f64;
    if is_label { 1.0 - smoothing + everywhere } else { everywhere }
}

fn class(label: i64, classes: usize) -> Result<usize, KernelError> {
    usize::try_from(label).ok().filter(|&l| l < classes).ok_or(KernelError::Label(label))
}

/// The loss of one row of logits, and the logarithm of its softmax.
///
/// # Errors
/// A label that is no class, slices of different lengths.
pub fn cross_entropy_row(
    logits: &[f32],
    label: i64,
    smoothing: f64,
    log_prob: &mut [f32],
) -> Result<f64, KernelError> {
    check_len("log_prob", logits.len(), log_prob.len())?;
    let label = class(label, logits.len())?;
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let largest = f64::from(largest);
    let sum: f64 = logits.iter().map(|&v| (f64::from(v) - largest).exp()).sum();
    let shift = largest + sum.ln();
    let mut loss = 0.0;
    for (i, (&v, p)) in logits.iter().zip(log_prob).enumerate() {
        let log = f64::from(v) - shift;
        *p = log as f32;
        let wanted = target(smoothing, logits.len(), i == label);
        // What should not be and cannot be costs nothing.
        loss -= if wanted == 0.0 { 0.0 } else { wanted * log };
    }
    Ok(loss)
}

/// The derivative of one row's loss by its logits, times `factor`.
///
/// # Errors
/// As [`cross_entropy_row`].
pub fn cross_entropy_grad_row(
    log_prob: &[f32],
    label: i64,
    smoothing: f64,
    factor: f64,
    dlogits: &mut [f32],
) -> Result<(), KernelError> {
    check_len("dlogits", log_prob.len(), dlogits.len())?;
    let label = class(label, log_prob.len())?;
    for (i, (&p, d)) in log_prob.iter().zip(dlogits).enumerate() {
        *d = ((f64::from(p).exp() - target(smoothing, log_prob.len(), i == label)) * factor) as f32;
    }
    Ok(())
}
