//! `gs-opt groups`: which channels of a network go together, and which cannot go.

use crate::failure::Outcome;
use crate::{files, say};
use clap::Args;
use gs_algos::groups::{Atom, Groups, Member};
use gs_ir::{Def, Module};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::PathBuf;

/// Showing coupled channels.
#[derive(Debug, Args)]
pub struct GroupsArgs {
    /// The network (.onnx or .gsir).
    pub model: PathBuf,
    /// Print JSON, with every element of every weight.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// Where the network cannot be read or analysed.
pub fn run(args: &GroupsArgs) -> Outcome<()> {
    let mut module = files::read_to_run(&args.model)?;
    gs_passes::passes::fold_all_but_weights(&mut module);
    let groups = Groups::of(&module)?;
    if args.json {
        say!("{:#}", as_json(&module, &groups));
        return Ok(());
    }
    say!("{:<40} {:>6} {:>8} {:>8}  weights", "group", "atoms", "weights", "tensors");
    for group in &groups.groups {
        let weights: Vec<&Member> = group.members.iter().filter(|m| m.global.is_some()).collect();
        let names: Vec<String> = weights.iter().take(3).map(|m| member_name(&module, m)).collect();
        let more = if weights.len() > 3 { ", ..." } else { "" };
        let (atoms, count, tensors) = (group.atoms.len(), weights.len(), group.members.len() - weights.len());
        say!("{:<40} {atoms:>6} {count:>8} {tensors:>8}  {}{more}", group.name, names.join(", "));
        if let Some(op) = group.mixed_by {
            say!(
                "{:<40} {} `{}` computes statistics over it: without a channel they are others",
                "",
                module.op_name(op),
                module.label(op)
            );
        }
    }
    let kept = groups.kept_axes(&module);
    say!(
        "{} groups, {} atoms",
        groups.groups.len(),
        groups.groups.iter().map(|g| g.atoms.len()).sum::<usize>()
    );
    if !kept.is_empty() {
        say!("stay whole:");
    }
    for axis in &kept {
        let name = module.str(module.global(axis.global).name);
        say!("  {name} axis {} ({}): {}", axis.axis, axis.extent, axis.why);
    }
    Ok(())
}

fn member_name(module: &Module, member: &Member) -> String {
    let name = match (member.global, module.value(member.value).def) {
        (Some(global), _) => module.str(module.global(global).name),
        (None, Def::Result(op, _)) => module.label(op),
        _ => module.str(module.value(member.value).name),
    };
    format!("{name}.{}", member.axis)
}

/// Groups as JSON: for each member the atoms of its elements, as numbers within the group (several where an element
/// goes with atoms of other groups too).
fn as_json(module: &Module, groups: &Groups) -> Value {
    let list: Vec<Value> = groups
        .groups
        .iter()
        .map(|group| {
            let numbers: HashMap<Atom, usize> =
                group.atoms.iter().enumerate().map(|(i, a)| (*a, i)).collect();
            let members: Vec<Value> = group
                .members
                .iter()
                .filter_map(|m| {
                    let axis = *groups.axes_of(m.slot)?.get(m.axis)?;
                    let elements: Vec<Option<usize>> = groups
                        .atoms_of(axis)?
                        .iter()
                        .map(|of| of.iter().find_map(|a| numbers.get(a).copied()))
                        .collect();
                    Some(json!({
                        "tensor": member_name(module, m).rsplit_once('.').map(|(n, _)| n.to_owned()),
                        "is_weight": m.global.is_some(),
                        "axis": m.axis,
                        "atoms": elements,
                    }))
                })
                .collect();
            json!({
                "name": group.name,
                "atoms": group.atoms.len(),
                "mixed_by": group.mixed_by.map(|op| module.label(op)),
                "members": members,
            })
        })
        .collect();
    let kept: Vec<Value> = groups
        .kept_axes(module)
        .iter()
        .map(|k| {
            let name = module.str(module.global(k.global).name);
            json!({ "tensor": name, "axis": k.axis, "extent": k.extent, "why": k.why })
        })
        .collect();
    json!({ "groups": list, "kept": kept })
}
