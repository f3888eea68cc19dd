//! What every compression algorithm is: a configuration that can be applied, accompanied and converted.
//!
//! `apply` puts the algorithm's operations into a network, training or calibration gives their parameters values,
//! [`Algorithm::callbacks`] do at certain moments what is no operation, and `convert` makes the network that is
//! deployed. What an algorithm has to remember between them lies in the module, so that it travels with files.

use crate::callback::Callback;
use crate::deploy::{Form, deploy};
use crate::freeze::freeze;
use crate::lsq::{Lsq, LsqConfig};
use crate::pact::{Pact, PactConfig};
use crate::simqat::{SimQat, SimQatConfig};
use crate::slb::{Slb, SlbConfig};
use gs_ir::Module;
use gs_passes::manager::{PassContext, PassError, PassReport, read_options};
use gs_passes::training::{ParamGroup, drop_training};
use serde_json::{Map, Value};

/// A compression algorithm with its configuration.
pub trait Algorithm: Send + Sync {
    /// Its name in pipelines and files.
    fn name(&self) -> &'static str;

    /// Brings a network into the form that is trained or calibrated. Pretrained values stay as they are.
    ///
    /// # Errors
    /// A configuration that does not fit the network or the target.
    fn apply(&self, module: &mut Module, context: &mut PassContext<'_>) -> Result<PassReport, PassError>;

    /// Changes the graph `@train` after the pass `loss` has made it and before `grad` derives it: ranges follow what is
    /// seen, weights are searched for, a teacher joins the loss.
    ///
    /// # Errors
    /// Where there is no such graph, or it does not fit.
    fn prepare_training(&self, _: &mut Module, _: RunLength) -> Result<(), PassError> {
        Ok(())
    }

    /// The parameters that are changed in another way than the rest, for the pass `update`.
    fn param_groups(&self, _: &Module) -> Vec<ParamGroup> {
        Vec::new()
    }

    /// What accompanies training, in the order in which it is called.
    fn callbacks(&self) -> Vec<Box<dyn Callback>> {
        Vec::new()
    }

    /// Brings a trained or calibrated network into the form that is deployed: without training graphs, in the integer
    /// operators of the target in its header.
    ///
    /// # Errors
    /// Where a parameter has no value yet, or the target cannot run the result.
    fn convert(&self, module: &mut Module, context: &mut PassContext<'_>) -> Result<PassReport, PassError>;
}

/// How long a run is, for what changes with time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunLength {
    /// Steps of the whole run.
    pub steps: u64,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
}

/// Makes an algorithm from its options.
pub type MakeAlgorithm = fn(&Map<String, Value>) -> Result<Box<dyn Algorithm>, String>;

/// An algorithm as lists and pipelines know it.
pub struct AlgorithmInfo {
    /// Its name.
    pub name: &'static str,
    /// One line.
    pub doc: &'static str,
    /// Makes it from its options.
    pub make: MakeAlgorithm,
}

/// Every shipped algorithm. A new one is one folder and one line here.
pub const ALGORITHMS: &[AlgorithmInfo] = &[
    AlgorithmInfo {
        name: "simqat",
        doc: "quantisation simulated in float, so that training sees what the integers will be",
        make: |options| Ok(Box::new(SimQat { config: read_options::<SimQatConfig>(options)? })),
    },
    AlgorithmInfo {
        name: "lsq",
        doc: "the steps of grids are learned",
        make: |options| Ok(Box::new(Lsq { config: read_options::<LsqConfig>(options)? })),
    },
    AlgorithmInfo {
        name: "pact",
        doc: "activations are clipped where training finds it best, weights lie on odd levels (DoReFa)",
        make: |options| Ok(Box::new(Pact { config: read_options::<PactConfig>(options)? })),
    },
    AlgorithmInfo {
        name: "slb",
        doc: "weights of few bits are searched for among their levels",
        make: |options| Ok(Box::new(Slb { config: read_options::<SlbConfig>(options)? })),
    },
];

/// The algorithm of this name.
pub fn find(name: &str) -> Option<&'static AlgorithmInfo> {
    ALGORITHMS.iter().find(|a| a.name == name)
}

/// The conversion of algorithms whose quantisers carry their ranges: training graphs go, ranges become constant scales,
/// and the network is lowered to the target in its header.
///
/// # Errors
/// As [`Algorithm::convert`].
pub fn freeze_and_deploy(module: &mut Module, target: &str, form: Form) -> Result<PassReport, PassError> {
    drop_training(module);
    let frozen = freeze(module)?;
    gs_passes::passes::remove_dead(module);
    let mut report =
        PassReport::counting([("quantisers frozen", frozen.quantisers), ("biases quantised", frozen.biases)]);
    let target = module.meta.target.clone().unwrap_or_else(|| target.to_owned());
    report.absorb(deploy(module, &target, form)?);
    Ok(report)
}
