//! `gs-opt convert`: the network that is deployed of one that was trained.

use crate::algorithms;
use crate::cli::ConvertArgs;
use crate::failure::{Failure, Outcome};
use crate::files;
use crate::say;
use crate::train::TRAINED;
use gs_passes::manager::PassContext;
use gs_passes::training::drop_training;

/// Runs `convert`.
///
/// # Errors
/// A folder without a trained network, or a network that cannot be converted.
pub fn run(args: &ConvertArgs) -> Outcome<()> {
    files::check_output(&args.output)?;
    let path = if args.trained.is_dir() { args.trained.join(TRAINED) } else { args.trained.clone() };
    let mut module = files::read(&path)?;
    match module.meta.algorithm.clone() {
        Some(text) => {
            let named = algorithms::named(&text, None)?;
            named
                .algorithm
                .convert(&mut module, &mut PassContext::default())
                .map_err(|e| Failure::new(format!("{text}: {e}")))?;
        }
        None => drop_training(&mut module),
    }
    files::write(&module, &args.output, false)?;
    say!("wrote {}", args.output.display());
    Ok(())
}
