//! The built-in operators, one file per family. Each is one declaration; nothing about an operator is
//! written down a second time.
//!
//! How the axes of operands and results are tied is written in the language of [`axis_rule`], whose page holds the
//! grammar.

mod arithmetic;
pub mod axis_rule;
mod codes;
mod compare;
mod control;
mod convolution;
mod elementwise;
mod extents;
mod gradient;
mod integer;
mod learned;
mod matmul;
mod normalization;
mod picking;
mod pooling;
mod quantization;
mod reduction;
mod shape;
mod slicing;
mod support;
mod training;
mod window;

use crate::registry::{OpDecl, OperandDecl, QRole, Regions, ResultDecl, Traits};

/// Every built-in operator, in a fixed order.
pub fn all() -> impl Iterator<Item = &'static OpDecl> {
    [
        CORE,
        convolution::OPS,
        matmul::OPS,
        normalization::OPS,
        arithmetic::OPS,
        elementwise::OPS,
        compare::OPS,
        pooling::OPS,
        reduction::OPS,
        shape::OPS,
        slicing::OPS,
        picking::OPS,
        extents::OPS,
        quantization::OPS,
        learned::OPS,
        integer::OPS,
        control::OPS,
        training::OPS,
        gradient::OPS,
    ]
    .into_iter()
    .flatten()
}

/// What nobody declared: kept with all its attributes under [`crate::OPAQUE_NAME`], pinned otherwise.
const CORE: &[OpDecl] = &[OpDecl {
    name: "opaque",
    doc: "An operation that is not declared: kept as it is.",
    operands: &[OperandDecl::variadic("inputs", QRole::None)],
    results: &[ResultDecl::variadic("outputs", QRole::None)],
    regions: Regions::Any,
    // Nothing is known of it, so it is neither merged nor moved; it is removed only when nothing uses it.
    traits: Traits::RANDOM,
    ..OpDecl::BASE
}];

#[cfg(test)]
mod tests;
