//! How fast the evaluator is: one stack of integer and one of float convolutions with the shapes of a CIFAR ResNet.
//! `cargo run --release -p gs-eval --example speed`

use gs_eval::{Evaluator, Executor, Tensor};
use gs_ir::{
    At, Attr, AttrSet, Distribution, ElemType, FloatBits, GraphId, Init, Literal, Module, NewGlobal,
};
use gs_ir::{Rewriter, Role, Type, ValueId};
use std::io::Write;
use std::time::Instant;

type Error = Box<dyn std::error::Error>;

fn constant(rw: &mut Rewriter<'_>, ty: Type, init: Init) -> ValueId {
    let id = rw.add_global(NewGlobal { name: "c", role: Role::Const, trainable: false, ty, init });
    rw.global(id).value
}

fn scalar(rw: &mut Rewriter<'_>, value: f32) -> ValueId {
    constant(rw, Type::fixed(ElemType::F32, &[]), Init::Data(Literal::f32(value).data))
}

/// Three stages of six 3x3 convolutions, with 16, 32 and 64 channels on 32, 16 and 8 pixels.
fn network(integer: bool) -> Result<(Module, GraphId), Error> {
    let mut module = Module::new();
    let n = gs_ir::Dim::symbol(module.symbol("N"));
    let mut rw = Rewriter::new(&mut module);
    let graph = rw.add_graph("main");
    let elem = if integer { ElemType::U8 } else { ElemType::F32 };
    let mut x = rw.add_param(graph, "x", Type::tensor(elem, [n, 16.into(), 32.into(), 32.into()]));
    let (scale, zero) = (
        scalar(&mut rw, 0.05),
        constant(&mut rw, Type::fixed(ElemType::U8, &[]), Init::Splat([3].into_iter().collect())),
    );
    let (w_scale, w_zero) = (
        scalar(&mut rw, 0.01),
        constant(&mut rw, Type::fixed(ElemType::I8, &[]), Init::Splat([0].into_iter().collect())),
    );
    for stage in 0..3u32 {
        for layer in 0..6 {
            let channels = 16i64 << stage;
            let down = stage > 0 && layer == 0;
            let inputs = if down { channels / 2 } else { channels };
            let ty = Type::fixed(ElemType::F32, &[channels, inputs, 3, 3]);
            let dist = Distribution::Uniform(FloatBits(-1.0), FloatBits(1.0));
            let seed = u64::from(stage * 10 + layer);
            let mut w = constant(&mut rw, ty, Init::Seeded { seed, dist });
            let stride = if down { 2 } else { 1 };
            let attrs: AttrSet =
                [("pads", Attr::ints(&[1; 4])), ("strides", Attr::ints(&[stride; 2]))].into_iter().collect();
            x = if integer {
                let (q, id) = (rw.registry().kind("quantize").ok_or("no quantize")?, rw.as_global(w));
                let of = [id, rw.as_global(w_scale), rw.as_global(w_zero)];
                let codes = rw.derive_global("w", q, AttrSet::new(), &of)?;
                w = rw.global(codes).value;
                rw.emit("qconv", &[x, scale, zero, w, w_scale, w_zero, scale, zero], attrs, At::End(graph))?
            } else {
                let y = rw.emit("conv", &[x, w], attrs, At::End(graph))?;
                rw.emit("relu", &[y], AttrSet::new(), At::End(graph))?
            };
        }
    }
    rw.add_result(graph, "y", x, None);
    Ok((module, graph))
}

fn main() -> Result<(), Error> {
    let images = 20;
    for integer in [true, false] {
        let (module, graph) = network(integer)?;
        let n = images * 16 * 32 * 32;
        let values: Vec<f64> = (0..n).map(|i| f64::from(i as u32 * 7919 % 256)).collect();
        let elem = if integer { ElemType::U8 } else { ElemType::F32 };
        let x = Tensor::from_f64s(elem, [images, 16, 32, 32], &values)?;
        let start = Instant::now();
        Evaluator::new().run(&module, graph, &[x], &[])?;
        let (time, macs) = (start.elapsed().as_secs_f64(), 41.3e6 * images as f64);
        let kind = if integer { "integer" } else { "float" };
        writeln!(
            std::io::stdout(),
            "{kind}: {images} images in {time:.2} s, {:.2} G MAC/s",
            macs / time / 1e9
        )?;
    }
    Ok(())
}
