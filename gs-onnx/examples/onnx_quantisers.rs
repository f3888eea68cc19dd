//! Writes one ONNX file with every kind of training and frozen quantiser as a call of our own functions:
//! `onnx_quantisers OUT.onnx`. Used by `tests/ort/quantisers.py`, which computes them a second time.

use std::fs::File;
use std::process::ExitCode;

use gs_ir::{
    At, Attr, AttrSet, Dim, ElemType, GraphId, Init, Literal, Module, NewGlobal, Rewriter, Role, Type,
    ValueId,
};
use gs_onnx::{ExportOptions, StoredOnly, export};

fn constant(rw: &mut Rewriter<'_>, name: &str, literal: Literal) -> ValueId {
    let ty = Type::fixed(literal.elem, &literal.dims);
    let init = Init::Data(literal.data);
    let id = rw.add_global(NewGlobal { name, role: Role::Const, trainable: false, ty, init });
    rw.global(id).value
}

fn attrs(ints: &[(&str, i64)], flags: &[&str]) -> AttrSet {
    let ints = ints.iter().map(|(n, v)| (*n, Attr::Int(*v)));
    ints.chain(flags.iter().map(|n| (*n, Attr::Bool(true)))).collect()
}

/// Emits an operation on `x` and makes it an output of this name.
fn output(
    rw: &mut Rewriter<'_>,
    main: GraphId,
    name: &str,
    op: &str,
    operands: &[ValueId],
    attrs: AttrSet,
) -> Result<(), gs_ir::InferError> {
    let y = rw.emit(op, operands, attrs, At::End(main))?;
    rw.set_name(y, name);
    rw.add_result(main, name, y, None);
    Ok(())
}

fn build() -> Result<Module, gs_ir::InferError> {
    let mut module = Module::new();
    let batch = Dim::symbol(module.symbol("N"));
    let mut rw = Rewriter::new(&mut module);
    let main = rw.add_graph("main");
    let x = rw.add_param(main, "x", Type::tensor(ElemType::F32, [batch, Dim::Const(3), Dim::Const(40)]));
    let range = constant(&mut rw, "range", Literal::f32s([2], &[-1.0, 3.0]));
    let ranges = constant(&mut rw, "ranges", Literal::f32s([2, 3], &[-1.0, -0.5, f32::NAN, 3.0, -0.25, 0.0]));
    for bits in [8, 4, 1] {
        for (i, flags) in
            [&[][..], &["signed"], &["symmetric"], &["signed", "symmetric", "narrow"]].iter().enumerate()
        {
            if bits == 1 && i > 0 {
                continue;
            }
            let set = attrs(&[("bits", bits)], flags);
            output(&mut rw, main, &format!("fq_{bits}_{}", flags.join("_")), "fake_quant", &[x, range], set)?;
            let set = attrs(&[("bits", bits), ("axis", 1)], flags);
            output(
                &mut rw,
                main,
                &format!("fqc_{bits}_{}", flags.join("_")),
                "fake_quant",
                &[x, ranges],
                set,
            )?;
        }
    }
    let scale = constant(&mut rw, "scale", Literal::f32(0.031));
    let scales = constant(&mut rw, "scales", Literal::f32s([3], &[0.031, 0.5, 0.002]));
    let zero_u8 = constant(&mut rw, "zero_u8", Literal::new(ElemType::U8, [], vec![37]));
    let zero_i8 = constant(&mut rw, "zero_i8", Literal::new(ElemType::I8, [], vec![0]));
    let zeros_i8 = constant(&mut rw, "zeros_i8", Literal::new(ElemType::I8, [3], vec![0, 3, 0xfb]));
    let odd = AttrSet::new().with("levels", Attr::str("odd")).with("bits", Attr::Int(2));
    output(&mut rw, main, "qdq_u8", "qdq", &[x, scale, zero_u8], AttrSet::new())?;
    output(&mut rw, main, "qdq_i8_axis", "qdq", &[x, scales, zeros_i8], attrs(&[("axis", 1)], &[]))?;
    output(
        &mut rw,
        main,
        "qdq_i8_bits4",
        "qdq",
        &[x, scales, zeros_i8],
        attrs(&[("axis", 1), ("bits", 4)], &[]),
    )?;
    output(
        &mut rw,
        main,
        "qdq_u8_limits",
        "qdq",
        &[x, scale, zero_u8],
        attrs(&[("qmin", 20), ("qmax", 90)], &[]),
    )?;
    output(&mut rw, main, "qdq_odd", "qdq", &[x, scale, zero_i8], odd)?;
    learned(&mut rw, main, x, [scale, scales])?;
    Ok(module)
}

/// The quantisers whose parameters are learned.
fn learned(
    rw: &mut Rewriter<'_>,
    main: GraphId,
    x: ValueId,
    [scale, scales]: [ValueId; 2],
) -> Result<(), gs_ir::InferError> {
    let alpha = constant(rw, "alpha", Literal::f32(1.3));
    let channels = |bits| attrs(&[("bits", bits), ("axis", 1)], &[]);
    output(rw, main, "lsq_4", "lsq", &[x, scale], AttrSet::new())?;
    output(rw, main, "lsq_axis", "lsq", &[x, scales], channels(3).with("signed", Attr::Bool(false)))?;
    output(rw, main, "pact_4", "pact", &[x, alpha], AttrSet::new())?;
    output(rw, main, "pact_signed", "pact", &[x, alpha], attrs(&[("bits", 3)], &["signed"]))?;
    for bits in [1, 2, 7] {
        output(rw, main, &format!("dorefa_{bits}"), "dorefa", &[x, alpha], attrs(&[("bits", bits)], &[]))?;
        output(rw, main, &format!("dorefac_{bits}"), "dorefa", &[x, scales], channels(bits))?;
    }
    let shape = [rw.type_of(x).dims().and_then(|d| d.first().cloned()).unwrap_or(Dim::Unknown), 3.into()];
    let shape = shape.into_iter().chain([10.into(), 4.into()]);
    let shape = AttrSet::new().with("shape", Attr::dims(shape));
    let logits = rw.emit("reshape", &[x], shape, At::End(main))?;
    output(rw, main, "slb_2", "slb", &[logits, alpha], AttrSet::new())?;
    output(rw, main, "slb_axis", "slb", &[logits, scales], attrs(&[("axis", 1)], &[]))
}

#[expect(clippy::print_stderr, reason = "a command-line program")]
fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: onnx_quantisers OUT.onnx");
        return ExitCode::from(2);
    };
    let written = || -> Result<(), Box<dyn std::error::Error>> {
        let module = build()?;
        let mut out = File::create(&path)?;
        Ok(export(&module, &ExportOptions::default())?.write(&mut out, &mut StoredOnly)?)
    };
    match written() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{path}: {error}");
            ExitCode::FAILURE
        }
    }
}
