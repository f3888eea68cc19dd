//! stub
use super::env::RuleEnv;
use super::rule::RuleSet;
use gs_ir::Module;
use gs_text::Diagnostic;
/// stub
pub struct Placed {}
/// stub
pub struct InsertReport {}
/// stub
pub fn insert(module: &mut Module, set: &RuleSet, env: &dyn RuleEnv) -> Result<InsertReport, Vec<Diagnostic>> {
    let _ = (module, set, env);
    Ok(InsertReport {})
}
