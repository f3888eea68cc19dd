//! The network that is trained and the algorithm that changes it, as far as the file and the request say.

use crate::algorithms::{self, Named};
use crate::cli::TrainArgs;
use crate::failure::{Failure, Outcome};
use crate::{files, warn};
use gs_algos::algorithm::Algorithm;
use gs_algos::distillation::{Distilled, teacher_graph};
use gs_ir::{Module, Phase};
use gs_passes::training::{drop_training, train_graph};

/// What is trained.
pub(super) struct Asked {
    /// The network.
    pub(super) module: Module,
    /// What changes it, where anything does.
    pub(super) algorithm: Option<Named>,
    /// Whether labels are needed.
    pub(super) labels: bool,
}

/// Reads what was asked for.
///
/// # Errors
/// A network that cannot be read or trained, options that do not go together.
pub(super) fn asked(args: &TrainArgs) -> Outcome<Asked> {
    let named = match &args.algorithm {
        Some(text) => Some(algorithms::named(text, args.target.as_deref())?),
        None => None,
    };
    let distillation = args.distill.as_deref().map(algorithms::distillation).transpose()?;
    let mut module = files::read_to_run(&args.model)?;
    let path = args.model.display();
    let phase = Phase::of(&module);
    if phase > Phase::Instrumented {
        return Err(Failure::new(format!("{path}: the network is quantised already (it is {phase})"))
            .help("train the float network that it was made from"));
    }
    if train_graph(&module).is_some() {
        drop_training(&mut module);
        warn!(
            "note: {path} comes from a run: a new one begins with its weights; --resume -o DIR goes on with a run itself"
        );
    }
    if let Some(text) = looks_like_no_classes(&module) {
        warn!("note: {path}: {text}");
    }
    let named = match named {
        Some(named) => Some(named),
        None if phase == Phase::Instrumented => Some(of_header(args, &module)?),
        None => None,
    };
    let Some(Named { text, algorithm: inner }) = named else {
        return match (&distillation, &args.target) {
            (Some(_), _) => {
                Err(Failure::usage("--distill without --algorithm: the network would learn from itself")
                    .help("--algorithm names what changes it"))
            }
            (None, Some(_)) => {
                Err(Failure::usage("--target goes with --algorithm: it says for what the network is changed"))
            }
            (None, None) => Ok(Asked { module, algorithm: None, labels: true }),
        };
    };
    let Some(config) = distillation else {
        return Ok(Asked { module, algorithm: Some(Named { text, algorithm: inner }), labels: true });
    };
    if phase == Phase::Instrumented && teacher_graph(&module).is_none() {
        return Err(Failure::new(format!(
            "--distill: {path} carries quantisers already, and would be the teacher"
        ))
        .help("begin from the float network that it was made from"));
    }
    let labels = config.needs_labels();
    let algorithm: Box<dyn Algorithm> = Box::new(Distilled { inner, config });
    Ok(Asked { module, algorithm: Some(Named { text, algorithm }), labels })
}

/// The algorithm whose quantisers a network carries, by its header.
fn of_header(args: &TrainArgs, module: &Module) -> Outcome<Named> {
    let path = args.model.display();
    let Some(text) = &module.meta.algorithm else {
        return Err(Failure::new(format!(
            "{path}: the network carries quantisers, and its header does not say of which algorithm"
        ))
        .help("--algorithm names it with the options that put them there, such as --algorithm simqat"));
    };
    warn!("note: {path} carries the quantisers of {text}, which is trained");
    algorithms::named(text, args.target.as_deref())
}

/// A word about a network that gives back something like what it reads: it is rarely meant to name classes.
fn looks_like_no_classes(module: &Module) -> Option<String> {
    let main = module.graph(module.main()?);
    let (input, output) = (*main.params().first()?, main.results().next()?);
    let [_, classes] = module.type_of(output).dims()? else { return None };
    let alike = module.type_of(input) == module.type_of(output);
    alike.then(|| {
        format!(
            "the output has the shape of the input; it is trained to name one of {} classes",
            classes.as_const().map_or("its".to_owned(), |n| n.to_string())
        )
    })
}
