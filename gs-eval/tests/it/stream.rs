//! Running over a data source.

use crate::common::{close, f32s};
use gs_eval::{DataSource, Evaluator, InMemory, Stream, StreamError, Tensor};
use gs_ir::{At, AttrSet, Dim, ElemType, Init, Literal, Module, NewGlobal, Rewriter, Role, Type, ValueId};
use std::ops::ControlFlow;

/// Adds the mean of each batch of `x` to a state.
fn summing(batch: Dim) -> (Module, ValueId) {
    let mut module = Module::new();
    let mut rw = Rewriter::new(&mut module);
    let graph = rw.add_graph("main");
    let x = rw.add_param(graph, "x", Type::tensor(ElemType::F32, [batch, 1.into()]));
    let init = Init::Data(Literal::f32s([1, 1], &[0.0]).data);
    let ty = Type::fixed(ElemType::F32, &[1, 1]);
    let state = rw.add_global(NewGlobal { name: "sum", role: Role::State, trainable: false, ty, init });
    let before = rw.global(state).value;
    let mean = rw.emit("reduce_mean", &[x], AttrSet::new(), At::End(graph)).unwrap();
    let after = rw.emit("add", &[before, mean], AttrSet::new(), At::End(graph)).unwrap();
    rw.add_result(graph, "after", after, None);
    rw.set_update(graph, state, after);
    (module, mean)
}

fn source(n: usize) -> InMemory {
    let values: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let labels: Vec<i64> = (0..n as i64).collect();
    InMemory::new(vec![("x".into(), f32s(&[n, 1], &values)), gs_eval::data::labels(&labels).unwrap()])
        .unwrap()
}

#[test]
fn batches_run_in_order_and_states_are_carried() {
    let mut module = Module::new();
    let n = Dim::symbol(module.symbol("N"));
    let (module, mean) = summing(n);
    let evaluator = Evaluator::new();
    let graph = module.main().unwrap();
    let taps = [mean];
    let stream = Stream { executor: &evaluator, module: &module, graph, batch: 2, limit: None, taps: &taps };
    let (mut means, mut labels) = (Vec::<f32>::new(), Vec::new());
    let end = stream
        .run(&source(5), &mut |_, view| means.extend(view.as_f32().unwrap_or(&[])), &mut |fields, _| {
            labels.extend_from_slice(fields[1].1.as_i64().unwrap_or(&[]));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(means, [0.5, 2.5, 4.0]);
    assert_eq!(labels, [0, 1, 2, 3, 4]);
    assert_eq!(end.samples, 5);
    // The tail ran on a plan of its own, which took the state over.
    close(&end.states[0].1, &[1, 1], &[7.0]);
    let mut batches = 0;
    let stream = Stream { limit: Some(4), ..stream };
    let end = stream.run(&source(5), &mut |_, _| {}, &mut |_, _| {
        batches += 1;
        ControlFlow::Break(())
    });
    assert_eq!((end.unwrap().samples, batches), (2, 1));
}

#[test]
fn a_fixed_batch_is_respected() {
    let (module, _) = summing(3.into());
    let evaluator = Evaluator::new();
    let graph = module.main().unwrap();
    let stream = Stream { executor: &evaluator, module: &module, graph, batch: 2, limit: None, taps: &[] };
    let mut sizes = Vec::new();
    let mut each = |fields: &[gs_eval::Field], _: &gs_eval::RunOutput| {
        sizes.push(fields[0].1.dims()[0]);
        ControlFlow::Continue(())
    };
    stream.run(&source(6), &mut |_, _| {}, &mut each).unwrap();
    let e = stream.run(&source(7), &mut |_, _| {}, &mut each).unwrap_err();
    assert_eq!(e, StreamError::Tail { batch: 3, samples: 7 });
    assert_eq!(sizes, [3, 3]);
}

#[test]
fn a_missing_field_is_named() {
    let (module, _) = summing(1.into());
    let evaluator = Evaluator::new();
    let graph = module.main().unwrap();
    let stream = Stream { executor: &evaluator, module: &module, graph, batch: 1, limit: None, taps: &[] };
    let data = InMemory::new(vec![("image".into(), Tensor::f32s([1, 1], [0.0]).unwrap())]).unwrap();
    assert_eq!(data.len(), 1);
    let e = stream.run(&data, &mut |_, _| {}, &mut |_, _| ControlFlow::Continue(())).unwrap_err();
    assert_eq!(e.to_string(), "the data have no field for input `x`; they have image");
}
