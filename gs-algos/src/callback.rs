//! What an algorithm does at certain moments of training. The built-in trainer is one host of callbacks; a user's own
//! loop may be another.

use gs_eval::Tensor;
use gs_ir::{GlobalId, Init, Module, Rewriter};
use std::collections::BTreeMap;
use std::error::Error;

/// Parameters and states while training goes on. They live with whoever trains; the module has their first contents.
pub trait Globals {
    /// The contents now.
    ///
    /// # Errors
    /// Where there is no such global or its contents cannot be made.
    fn get(&self, global: GlobalId) -> Result<Tensor, Box<dyn Error + Send + Sync>>;

    /// Gives it other contents of the same type.
    ///
    /// # Errors
    /// Where they do not fit.
    fn set(&mut self, global: GlobalId, contents: Tensor) -> Result<(), Box<dyn Error + Send + Sync>>;

    /// The globals that may hold something else than the module says: those that steps store to, and those that were
    /// set.
    fn changed(&self) -> Vec<GlobalId>;
}

/// How far training is, and what it is about.
pub struct TrainState<'a> {
    /// The network, with its graph `@train`.
    pub module: &'a Module,
    /// Parameters and states.
    pub globals: &'a mut dyn Globals,
    /// Epochs done.
    pub epoch: usize,
    /// Steps done since the beginning.
    pub step: u64,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// The loss of the last step.
    pub loss: Option<f64>,
    /// Figures by name, which hosts log; a callback may add its own.
    pub metrics: &'a mut BTreeMap<String, f64>,
}

impl TrainState<'_> {
    /// The module with what its globals hold now.
    ///
    /// # Errors
    /// Contents that cannot be had.
    pub fn snapshot(&self) -> Result<Module, Box<dyn Error + Send + Sync>> {
        let mut now = self.module.clone();
        let mut rewriter = Rewriter::new(&mut now);
        for id in self.globals.changed() {
            let ty = rewriter.ty(rewriter.global(id).ty).clone();
            rewriter.set_global(id, ty, Init::Data(self.globals.get(id)?.data()));
        }
        Ok(now)
    }
}

/// What a callback may fail with.
pub type CallbackResult = Result<(), Box<dyn Error + Send + Sync>>;

/// Called at the moments of training. What is not overridden does nothing.
pub trait Callback: Send {
    /// Before the first step.
    ///
    /// # Errors
    /// Ends training.
    fn train_begin(&mut self, _: &mut TrainState<'_>) -> CallbackResult {
        Ok(())
    }

    /// Before the first step of an epoch.
    ///
    /// # Errors
    /// Ends training.
    fn epoch_begin(&mut self, _: &mut TrainState<'_>) -> CallbackResult {
        Ok(())
    }

    /// Before a step.
    ///
    /// # Errors
    /// Ends training.
    fn step_begin(&mut self, _: &mut TrainState<'_>) -> CallbackResult {
        Ok(())
    }

    /// After a step: parameters and states are the new ones, `loss` is that of the step.
    ///
    /// # Errors
    /// Ends training.
    fn step_end(&mut self, _: &mut TrainState<'_>) -> CallbackResult {
        Ok(())
    }

    /// After the last step of an epoch.
    ///
    /// # Errors
    /// Ends training.
    fn epoch_end(&mut self, _: &mut TrainState<'_>) -> CallbackResult {
        Ok(())
    }

    /// After the last step.
    ///
    /// # Errors
    /// Ends training.
    fn train_end(&mut self, _: &mut TrainState<'_>) -> CallbackResult {
        Ok(())
    }
}
