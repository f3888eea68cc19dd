//! Functions of one or two elements: what activations and their derivatives are made of.

use super::error::KernelError;
use super::isa::Kernels;
use super::map::{map, zip};

/// A function of one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unary {
    /// `-x`.
    Neg,
    /// `e` to the power of `x`.
    Exp,
    /// The natural logarithm.
    Log,
    /// The square root.
    Sqrt,
    /// `1 / x`.
    Reciprocal,
    /// The absolute value.
    Abs,
    /// -1, 0 or 1; NaN stays NaN.
    Sign,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
}

impl Unary {
    /// The function of an operator of this name.
    pub fn named(name: &str) -> Option<Unary> {
        Some(match name {
            "neg" => Unary::Neg,
            "exp" => Unary::Exp,
            "log" => Unary::Log,
            "sqrt" => Unary::Sqrt,
            "reciprocal" => Unary::Reciprocal,
            "abs" => Unary::Abs,
            "sign" => Unary::Sign,
            "sigmoid" => Unary::Sigmoid,
            "tanh" => Unary::Tanh,
            _ => return None,
        })
    }

    /// Computes all elements.
    ///
    /// # Errors
    /// Slices of different lengths.
    pub fn run(self, kernels: Kernels, x: &[f32], y: &mut [f32]) -> Result<(), KernelError> {
        match self {
            Unary::Neg => map(kernels, x, y, |v| -v),
            Unary::Exp => map(kernels, x, y, f32::exp),
            Unary::Log => map(kernels, x, y, f32::ln),
            Unary::Sqrt => map(kernels, x, y, f32::sqrt),
            Unary::Reciprocal => map(kernels, x, y, |v| 1.0 / v),
            Unary::Abs => map(kernels, x, y, f32::abs),
            Unary::Sign => map(kernels, x, y, |v| if v == 0.0 { 0.0 } else { v.signum() }),
            Unary::Sigmoid => map(kernels, x, y, |v| 1.0 / (1.0 + (-v).exp())),
            Unary::Tanh => map(kernels, x, y, f32::tanh),
        }
    }
}

/// A function of two elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Binary {
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// `a / b`.
    Div,
    /// `a` where `b` lies within the limits, these included; else 0.
    Within(f32, f32),
}

impl Binary {
    /// Computes all elements.
    ///
    /// # Errors
    /// Slices of different lengths.
    pub fn run(self, kernels: Kernels, a: &[f32], b: &[f32], y: &mut [f32]) -> Result<(), KernelError> {
        match self {
            Binary::Add => zip(kernels, a, b, y, |a, b| a + b),
            Binary::Sub => zip(kernels, a, b, y, |a, b| a - b),
            Binary::Div => zip(kernels, a, b, y, |a, b| a / b),
            Binary::Within(low, high) => {
                zip(kernels, a, b, y, |a, b| if b >= low && b <= high { a } else { 0.0 })
            }
        }
    }
}
