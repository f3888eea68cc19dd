//! The training loop: what it says when numbers go astray, and what its checkpoints are worth.

use super::common::{module, runtime};
use gs_algos::callback::{Callback, CallbackResult, TrainState};
use gs_eval::{DataError, Field, Materializer, Tensor};
use gs_ir::Module;
use gs_passes::manager::{PassContext, PassManager, PassRegistry, Pipeline};
use gs_runtime::trainer::{
    Augment, Checkpoint, CheckpointError, Engine, Next, Pick, TrainError, TrainOptions, Trainer, TrainingData,
};
use std::sync::{Arc, Mutex};

const SAMPLES: usize = 24;

/// Samples whose pixels and labels follow from their number.
struct Numbers;

impl TrainingData for Numbers {
    fn len(&self) -> usize {
        SAMPLES
    }

    fn gather(&self, picks: &[Pick]) -> Result<Vec<Field>, DataError> {
        let pixels =
            picks.iter().flat_map(|p| (0..6).map(|i| ((p.index * 7 + i * 5) % 11) as f32 * 0.1 - 0.5));
        let labels: Vec<i64> = picks.iter().map(|p| (p.index % 3) as i64).collect();
        let x = Tensor::f32s([picks.len(), 6], pixels.collect::<Vec<f32>>()).expect("a tensor");
        let labels = Tensor::i64s([picks.len()], labels).expect("a tensor");
        Ok(vec![("x".to_owned(), x), ("labels".to_owned(), labels)])
    }
}

/// Sets a parameter to what it is, before each step: what a run could be taken up from is then lost each time.
struct Touch;

impl Callback for Touch {
    fn step_begin(&mut self, state: &mut TrainState<'_>) -> CallbackResult {
        let global = state.module.global_named("w2").ok_or("no parameter")?;
        let contents = state.globals.get(global)?;
        state.globals.set(global, contents)
    }
}

/// Sets a global that no step stores to, and looks whether what is measured later has it.
struct SetBeside(Arc<Mutex<Vec<f64>>>);

impl Callback for SetBeside {
    fn train_begin(&mut self, state: &mut TrainState<'_>) -> CallbackResult {
        let global = state.module.global_named("factor").ok_or("no state")?;
        state.globals.set(global, Tensor::f32s([1], vec![0.25])?)
    }

    fn epoch_end(&mut self, state: &mut TrainState<'_>) -> CallbackResult {
        let now = state.snapshot()?;
        let global = now.global_named("factor").ok_or("no state")?;
        let contents = Materializer::new(&now).tensor(global)?;
        *self.0.lock().map_err(|e| e.to_string())? = contents.to_f64s().unwrap_or_default();
        Ok(())
    }
}

#[test]
fn what_callbacks_set_is_in_what_is_measured() {
    let mut module = module(
        "dims N >= 1\nparam @w : f32[3, 6] = uniform(seed 1, -0.5, 0.5)\nstate @factor : f32[1] = splat(1.0)\n\
         graph @main(%x : f32[N, 6]) -> (%logits : f32[N, 3]) {\n\
         %1 = gemm(%x, @w) {trans_b = true}\n\
         %logits = mul(%1, @factor)\n\
         return %logits\n}\n",
    );
    prepare("loss,grad,update{lr=0.1}", &mut module);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let fast = runtime(1);
    let callbacks: Vec<Box<dyn Callback>> = vec![Box::new(SetBeside(seen.clone()))];
    let mut trainer = Trainer { engine: Engine::Runtime(&fast), options: options(1), callbacks };
    trainer.run(&mut module, &Numbers, None, &mut |_| Next::Go, &mut |_| Ok(())).expect("trained");
    assert_eq!(*seen.lock().expect("what was seen"), [0.25]);
}

fn prepare(pipeline: &str, module: &mut Module) {
    let mut registry = PassRegistry::default();
    gs_passes::passes::register(&mut registry);
    let manager = PassManager { registry: &registry, verify_each: true };
    let pipeline = Pipeline::parse(pipeline).expect("a pipeline");
    manager.run(&pipeline, module, &mut PassContext::default(), &mut |_| {}).expect("a training graph");
}

fn options(epochs: usize) -> TrainOptions {
    let augment = Augment { crop: 0, flip: false };
    TrainOptions { epochs, batch: 4, seed: 3, augment, engine: "test".to_owned(), settings: Vec::new() }
}

/// The step at which numbers go astray, and where.
fn astray(callbacks: Vec<Box<dyn Callback>>) -> (u64, Option<String>) {
    let mut module = module(
        "dims N >= 1\nparam @w1 : f32[8, 6] = uniform(seed 1, -0.5, 0.5)\nparam @w2 : f32[3, 8] = uniform(seed 2, -0.5, 0.5)\n\
         graph @main(%x : f32[N, 6]) -> (%logits : f32[N, 3]) {\n\
         %1 = gemm(%x, @w1) {trans_b = true}\n\
         %2 = exp(%1) from \"growth\"\n\
         %logits = gemm(%2, @w2) {trans_b = true}\n\
         return %logits\n}\n",
    );
    prepare("loss,grad,update{lr=1.5}", &mut module);
    let fast = runtime(2);
    let mut trainer = Trainer { engine: Engine::Runtime(&fast), options: options(200), callbacks };
    match trainer.run(&mut module, &Numbers, None, &mut |_| Next::Go, &mut |_| Ok(())) {
        Err(TrainError::Astray { step, place, .. }) => (step, place),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_operation_that_went_astray_is_named_though_the_steps_before_were_not_kept() {
    let (step, place) = astray(Vec::new());
    // Some steps are run again, more than one epoch of them.
    assert!(step > SAMPLES as u64 / 4, "step {step}");
    assert_eq!(place.as_deref(), Some("exp \"growth\""));
    assert_eq!((step, place), astray(vec![Box::new(Touch)]));
}

/// The same samples, one of which holds a number that is none.
struct Spoilt;

/// The number of that sample.
const SPOILT: usize = 13;

impl TrainingData for Spoilt {
    fn len(&self) -> usize {
        SAMPLES
    }

    fn gather(&self, picks: &[Pick]) -> Result<Vec<Field>, DataError> {
        let mut fields = Numbers.gather(picks)?;
        let mut pixels = fields[0].1.to_f64s().expect("numbers");
        picks
            .iter()
            .zip(pixels.chunks_mut(6))
            .filter(|(p, _)| p.index == SPOILT)
            .for_each(|(_, x)| x[4] = f64::NAN);
        fields[0].1 = Tensor::from_f64s(gs_ir::ElemType::F32, [picks.len(), 6], &pixels)?;
        Ok(fields)
    }
}

/// A network of one layer, ready to be trained.
fn small(pipeline: &str) -> Module {
    let mut module = module(
        "dims N >= 1\nparam @w : f32[3, 6] = uniform(seed 1, -0.5, 0.5)\n\
         graph @main(%x : f32[N, 6]) -> (%logits : f32[N, 3]) {\n\
         %logits = gemm(%x, @w) {trans_b = true}\nreturn %logits\n}\n",
    );
    prepare(pipeline, &mut module);
    module
}

#[test]
fn data_that_are_no_numbers_are_to_blame() {
    let fast = runtime(1);
    let mut trainer = Trainer { engine: Engine::Runtime(&fast), options: options(1), callbacks: Vec::new() };
    let mut module = small("loss,grad,update{lr=0.1}");
    let error = trainer.run(&mut module, &Spoilt, None, &mut |_| Next::Go, &mut |_| Ok(())).unwrap_err();
    match &error {
        TrainError::DataAstray { input, sample, .. } => assert_eq!((input.as_str(), *sample), ("x", SPOILT)),
        other => panic!("{other:?}"),
    }
    let text = error.to_string();
    assert!(text.contains("`x` of sample 13") && !text.contains("learning rate"), "{text}");
}

/// The checkpoint of a short run.
fn checkpoint(module: &Module, options: &TrainOptions) -> Checkpoint {
    let fast = runtime(1);
    let mut trainer =
        Trainer { engine: Engine::Runtime(&fast), options: options.clone(), callbacks: Vec::new() };
    let mut kept = None;
    let mut keep = |c: &Checkpoint| {
        kept = Some(c.clone());
        Ok(())
    };
    trainer.run(&mut module.clone(), &Numbers, None, &mut |_| Next::Stop, &mut keep).expect("trained");
    kept.expect("a checkpoint")
}

#[test]
fn a_byte_that_is_another_makes_a_checkpoint_worthless() {
    let bytes = checkpoint(&small("loss,grad,update{lr=0.1}"), &options(1)).to_bytes().expect("bytes");
    Checkpoint::from_bytes(&bytes).expect("a checkpoint");
    for i in 0..bytes.len() {
        let mut other = bytes.clone();
        other[i] ^= 1;
        assert!(Checkpoint::from_bytes(&other).is_err(), "byte {i} of {}", bytes.len());
    }
}

/// What differs is told by its own name, and not by the network that follows from it.
#[test]
fn a_checkpoint_of_other_settings_says_which() {
    let of = |lr: &str, momentum: &str, epochs: usize| {
        let pipeline = format!("loss,grad,update{{lr={lr}, optimiser={{sgd={{momentum={momentum}}}}}}}");
        let settings =
            vec![("--lr".to_owned(), lr.to_owned()), ("--momentum".to_owned(), momentum.to_owned())];
        (small(&pipeline), TrainOptions { settings, ..options(epochs) })
    };
    let (module, began) = of("0.5", "0.25", 2);
    let kept = checkpoint(&module, &began);
    let told = |(module, options): (Module, TrainOptions)| match kept.check(&module, &options, &Numbers) {
        Ok(()) => String::new(),
        Err(error @ CheckpointError::Other { .. }) => error.to_string(),
        Err(other) => panic!("{other}"),
    };
    assert_eq!(told((module, began.clone())), "");
    let start = "the checkpoint is of another run: ";
    assert_eq!(told(of("0.125", "0.25", 2)), format!("{start}its --lr is 0.5, here it is 0.125"));
    assert_eq!(
        told(of("0.5", "0.75", 3)),
        format!("{start}its --momentum is 0.25, here it is 0.75; its number of epochs is 2, here it is 3")
    );
    let text = told((
        small("loss{label_smoothing=0.5},grad,update{lr=0.5, optimiser={sgd={momentum=0.25}}}"),
        began,
    ));
    assert!(text.starts_with(&format!("{start}its network is ")), "{text}");
    let (module, mut elsewhere) = of("0.5", "0.25", 2);
    elsewhere.engine = "another".to_owned();
    let text = told((module, elsewhere));
    assert!(text.contains("its engine is test, here it is another (the last bits differ"), "{text}");
}
