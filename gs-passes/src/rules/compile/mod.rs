//! From the syntax tree to rules that can run: names are resolved against the operator registry and the table of
//! functions, variables are numbered, everything is typed. All errors of a file are found in one run.

mod expr;
mod insert;
mod lint;
mod pattern;
mod reverse;
mod scope;
mod template;

use super::functions::RuleFunctions;
use super::rule::{Cond, Pat, Rule, RuleSet};
use gs_ir::Registry;
use gs_text::gsr::ast::{self, Item};
use gs_text::gsr::{Driver, parse_rules_of};
use gs_text::{Diagnostic, FileId, SourceMap, Span};
use scope::Scope;
use std::collections::BTreeMap;

/// What a compiled piece needs to know.
pub(super) struct Compiler<'a> {
    pub(super) registry: &'a Registry,
    pub(super) functions: &'a RuleFunctions,
    pub(super) diagnostics: Vec<Diagnostic>,
}

impl RuleSet {
    /// Reads rules from text and checks them against the operators and functions that there are. What does not
    /// forbid running them is in [`RuleSet::warnings`].
    ///
    /// # Errors
    /// Everything that is wrong with the text (and what may be), with places in file 0.
    pub fn parse(
        name: &str,
        text: &str,
        registry: &Registry,
        functions: &RuleFunctions,
    ) -> Result<RuleSet, Vec<Diagnostic>> {
        let mut set = Self::compile(FileId(0), text, registry, functions)?;
        set.sources = SourceMap::single(name, text);
        if set.name.is_empty() {
            set.name = name.to_owned();
        }
        Ok(set)
    }

    /// As [`RuleSet::parse`], for several files, given by name and text, that run as one set. Its driver is that of
    /// the first.
    ///
    /// # Errors
    /// Everything that is wrong with one of the texts, with places in the file of its number.
    pub fn parse_all(
        name: &str,
        files: &[(&str, &str)],
        registry: &Registry,
        functions: &RuleFunctions,
    ) -> Result<RuleSet, Vec<Diagnostic>> {
        let mut all: Option<RuleSet> = None;
        let mut sources = SourceMap::new();
        for (file, text) in files {
            let one = Self::compile(sources.add(*file, *text), text, registry, functions)?;
            match &mut all {
                Some(all) => all.extend(one),
                None => all = Some(one),
            }
        }
        Ok(RuleSet { name: name.to_owned(), sources, ..all.unwrap_or_default() })
    }

    fn compile(
        file: FileId,
        text: &str,
        registry: &Registry,
        functions: &RuleFunctions,
    ) -> Result<RuleSet, Vec<Diagnostic>> {
        let file = parse_rules_of(file, text)?;
        let mut compiler = Compiler { registry, functions, diagnostics: Vec::new() };
        let mut set = compiler.file(&file);
        compiler.lint(&set);
        compiler.diagnostics.sort_by_key(|d| d.labels.first().map(|l| l.span.start));
        if compiler.diagnostics.iter().any(Diagnostic::is_error) {
            return Err(compiler.diagnostics);
        }
        set.warnings = compiler.diagnostics;
        Ok(set)
    }

    fn extend(&mut self, other: RuleSet) {
        self.rules.extend(other.rules);
        self.inserts.extend(other.inserts);
        self.grads.extend(other.grads);
        self.warnings.extend(other.warnings);
    }
}

impl Compiler<'_> {
    pub(super) fn error(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    fn file(&mut self, file: &ast::RuleFile) -> RuleSet {
        let mut set = RuleSet::default();
        if let Some(h) = &file.header {
            set.name = h.name.text.clone();
            set.driver = h.driver;
            set.target = h.target.as_ref().map(|t| t.text.clone());
        }
        self.unique_names(file);
        for item in &file.items {
            match item {
                Item::Rule(r) => self.rule_both_ways(r, set.driver, &mut set.rules),
                Item::Insert(i) => {
                    self.insert_fits(i, file, set.driver);
                    set.inserts.extend(self.insert(i));
                }
                Item::Grad(g) => set.grads.extend(self.grad(g)),
            }
        }
        set
    }

    /// Names are unique; a gradient's name is its operator, and there is one for each.
    fn unique_names(&mut self, file: &ast::RuleFile) {
        let mut seen: BTreeMap<(bool, &str), Span> = BTreeMap::new();
        for item in &file.items {
            let is_grad = matches!(item, Item::Grad(_));
            let name = item.name();
            match seen.get(&(is_grad, &name.text)) {
                Some(&first) => {
                    let what = if is_grad { "gradient of" } else { "rule called" };
                    let message = format!("there is a {what} `{}` already", name.text);
                    self.error(
                        Diagnostic::error("GS0601", message)
                            .label(name.span, "the second")
                            .label(first, "the first"),
                    );
                }
                None => {
                    seen.insert((is_grad, &name.text), name.span);
                }
            }
        }
    }

    fn insert_fits(&mut self, insert: &ast::Insert, file: &ast::RuleFile, driver: Driver) {
        if driver != Driver::Insert {
            let message = "an insertion is no equality, so it stands in a file of insertions only";
            let mut d = Diagnostic::error("GS0602", message).label(insert.name.span, "");
            if let Some(h) = &file.header {
                d = d.label(h.span, format!("this file's driver is `{}`", driver.name()));
            }
            self.error(d.help("write `ruleset \"...\" { driver = insert }`"));
        }
    }

    fn rule_both_ways(&mut self, rule: &ast::Rule, driver: Driver, out: &mut Vec<Rule>) {
        if driver == Driver::Insert {
            let message = "a file of insertions holds no rules";
            self.error(Diagnostic::error("GS0602", message).label(rule.name.span, ""));
        }
        if rule.both_ways && matches!(driver, Driver::Greedy | Driver::Lower) {
            let message = format!("`{}` goes both ways, which never ends outside an e-graph", rule.name.text);
            let d = Diagnostic::error("GS0603", message).label(rule.span, "");
            self.error(d.help("write `=>`, or make it a rule set with `driver = egraph`"));
        }
        out.extend(self.rule(rule, false));
        if rule.both_ways
            && let Some(reversed) = self.reverse(rule)
        {
            out.extend(self.rule(&reversed, true));
        }
    }

    fn rule(&mut self, rule: &ast::Rule, reversed: bool) -> Option<Rule> {
        let errors = self.diagnostics.len();
        let mut scope = Scope::new();
        let pattern = self.pattern(&mut scope, &rule.pattern);
        let after_pattern = self.diagnostics.len();
        if let Some(p) = &pattern {
            scope.settle(p);
            self.root_is_an_operation(p, &rule.pattern);
        }
        let conditions: Vec<Cond> = rule.conditions.iter().filter_map(|c| self.cond(&mut scope, c)).collect();
        let lets = self.lets(&mut scope, &rule.lets, &rule.pattern);
        let template = self.root_template(&mut scope, &rule.template, &rule.pattern);
        if pattern.is_none() {
            // Variables of a pattern that was not understood are rightly missing.
            let mut at = 0;
            self.diagnostics.retain(|d| {
                at += 1;
                at <= after_pattern || d.code != "GS0619"
            });
        }
        if !self.diagnostics[errors..].iter().any(Diagnostic::is_error) {
            self.unused(&scope, &rule.lets);
        }
        if rule.examples.is_empty() && !reversed {
            let message = format!("the rule `{}` has no example", rule.name.text);
            self.error(Diagnostic::warning("GS0604", message).label(rule.name.span, "").help(
                "`example \"what it shows\" { graph ... } => { graph ... }` documents a rule and tests it",
            ));
        }
        if self.diagnostics[errors..].iter().any(Diagnostic::is_error) {
            return None;
        }
        let (pattern, template) = (pattern?, template?);
        let suffix = if reversed { ".reversed" } else { "" };
        Some(Rule {
            name: format!("{}{suffix}", rule.name.text),
            doc: rule.doc.clone(),
            strictness: rule.strictness,
            reversed,
            vars: scope.vars,
            size: pattern.size(),
            pattern,
            lets,
            template,
            conditions,
            note: rule.note.as_ref().map(|n| n.text.clone()),
            examples: if reversed { Vec::new() } else { rule.examples.clone() },
            span: rule.span,
        })
    }

    fn root_is_an_operation(&mut self, pattern: &Pat, source: &ast::Pattern) {
        let bare = |p: &Pat| -> bool {
            fn any_value(p: &Pat) -> bool {
                match p {
                    Pat::Op(_) => false,
                    Pat::Bound(_, inner) => any_value(inner),
                    Pat::Alt(all) => all.iter().any(any_value),
                    Pat::Wrapped(w) => w.optional && any_value(&w.inner),
                    _ => true,
                }
            }
            any_value(p)
        };
        if bare(pattern) {
            let message = "a rule looks for an operation; this pattern matches any value";
            self.error(
                Diagnostic::error("GS0605", message).label(source.span, "it must name an operator here"),
            );
        }
    }

    /// Variables that stand in one place only could be `_`.
    fn unused(&mut self, scope: &Scope, lets: &[(ast::Name, ast::Expr)]) {
        for (var, uses) in scope.vars.iter().zip(&scope.uses) {
            if *uses > 0 || var.name.starts_with('_') {
                continue;
            }
            let is_let = lets.iter().any(|(n, _)| n.text == var.name);
            let message = format!("`${}` is bound here and used nowhere", var.name);
            let help = if is_let { "remove it" } else { "write `_` (or no name) where anything is meant" };
            self.error(Diagnostic::warning("GS0606", message).label(var.span, "").help(help));
        }
    }
}
