//! The gradients of a whole network, for comparing them with those of another program (`tests/long/gradients.py`).
//!
//! `gradients NET SAMPLES.npz OUT.npz`: the loss of the samples and its gradient by each parameter, in training form
//! (batch normalisation takes the statistics of the batch). The samples are an archive as `gs-opt train --data npz:` takes.

use gs_eval::Executor;
use gs_opt::cli::PreprocessArgs;
use gs_opt::data::NpzWriter;
use gs_opt::failure::{Failure, Outcome};
use gs_opt::source::{Samples, array_of};
use gs_passes::manager::{PassContext, PassManager, Pipeline};
use gs_passes::training::train_graph;
use gs_runtime::Runtime;
use gs_runtime::trainer::{Pick, TrainingData};
use std::path::Path;

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [net, samples, out] = &args[..] else {
        return Err(Failure::usage("gradients NET SAMPLES.npz OUT.npz"));
    };
    let mut module = gs_opt::files::read(Path::new(net))?;
    let preprocess = PreprocessArgs { mean: None, std: None, raw255: false };
    let samples = Samples::open(&format!("npz:{samples}"), None, &preprocess, &module)?;
    let registry = gs_opt::passes::registry();
    let manager = PassManager { registry: &registry, verify_each: true };
    let pipeline = Pipeline::parse("loss,grad")?;
    manager.run(&pipeline, &mut module, &mut PassContext::default(), &mut |_| {})?;
    let train = train_graph(&module).ok_or_else(|| Failure::new("no graph @train"))?;
    let picks: Vec<Pick> = (0..TrainingData::len(&samples)).map(Pick::plain).collect();
    let fields = TrainingData::gather(&samples, &picks)?;
    let mut inputs = Vec::new();
    for &param in module.graph(train).params() {
        let name = module.str(module.value(param).name);
        let field = fields.iter().find(|(n, _)| n == name);
        inputs.push(field.ok_or_else(|| Failure::new(format!("no field `{name}`")))?.1.clone());
    }
    let results = Runtime::new(None)?.run(&module, train, &inputs, &[])?.results;
    let mut writer = NpzWriter::new(Path::new(out));
    for (name, tensor) in module.graph(train).result_names().zip(&results) {
        writer.add(&array_of(module.str(name), tensor)?)?;
    }
    Ok(writer.finish()?)
}
