//! Prints rule files. What is printed parses back to the same tree, and printing that again gives the same text.

use super::ast::{
    AttrPattern, AttrPatternValue, Call, Cond, CondKind, Emit, EmitArg, Example, Expr, ExprKind, Grad,
    Insert, Item, Name, OpPattern, Pattern, PatternKind, Per, ResultPattern, Rule, RuleFile,
};
use crate::quote::{is_plain, push_quoted, quoted};
use std::fmt::Write as _;

/// A whole file.
pub fn print_rules(file: &RuleFile) -> String {
    let mut out = String::from("gsr 1\n");
    if let Some(h) = &file.header {
        let _ = write!(out, "ruleset {} {{ driver = {}", quoted(&h.name.text), h.driver.name());
        if let Some(t) = &h.target {
            let _ = write!(out, ", target = {}", quoted(&t.text));
        }
        out.push_str(" }\n");
    }
    for item in &file.items {
        out.push('\n');
        match item {
            Item::Rule(r) => {
                rule_head(&mut out, r);
                r.examples.iter().for_each(|e| example(&mut out, e));
            }
            Item::Insert(i) => insert(&mut out, i),
            Item::Grad(g) => grad(&mut out, g),
        }
    }
    out
}

/// A rule without its examples, for references and remarks.
pub fn rule_text(rule: &Rule) -> String {
    let mut out = String::new();
    rule_head(&mut out, rule);
    out
}

fn doc(out: &mut String, text: &str) {
    for line in text.lines() {
        out.push_str("///");
        if !line.is_empty() {
            out.push(' ');
        }
        out.push_str(line);
        out.push('\n');
    }
}

fn rule_head(out: &mut String, rule: &Rule) {
    doc(out, &rule.doc);
    let _ = write!(out, "rule {} {}\n  ", rule.strictness, rule.name.text);
    pattern(out, &rule.pattern);
    out.push('\n');
    lets(out, &rule.lets);
    out.push_str(if rule.both_ways { "  <=> " } else { "  => " });
    expr(out, &rule.template);
    out.push('\n');
    wheres(out, &rule.conditions);
    if let Some(n) = &rule.note {
        let _ = writeln!(out, "  note {}", quoted(&n.text));
    }
}

fn lets(out: &mut String, lets: &[(Name, Expr)]) {
    for (name, value) in lets {
        out.push_str("  let ");
        var(out, &name.text);
        out.push_str(" = ");
        expr(out, value);
        out.push('\n');
    }
}

fn wheres(out: &mut String, conditions: &[Cond]) {
    if !conditions.is_empty() {
        out.push_str("  where ");
        list(out, conditions, cond);
        out.push('\n');
    }
}

fn example(out: &mut String, e: &Example) {
    let _ = write!(out, "  example {}\n    {{{}}} => ", quoted(&e.title.text), e.before.text);
    match &e.after {
        Some(after) => {
            let _ = writeln!(out, "{{{}}}", after.text);
        }
        None => out.push_str("same\n"),
    }
}

fn insert(out: &mut String, i: &Insert) {
    doc(out, &i.doc);
    let _ = write!(out, "insert {}\n  match ", i.name.text);
    pattern(out, &i.pattern);
    let _ = write!(out, "\n  at {} ", i.site.name());
    var(out, &i.var.text);
    out.push('\n');
    wheres(out, &i.conditions);
    out.push_str("  emit ");
    emit(out, &i.emit);
    out.push_str(if i.replace { " replace\n" } else { "\n" });
    i.examples.iter().for_each(|e| example(out, e));
}

fn emit(out: &mut String, e: &Emit) {
    name(out, &e.op.text);
    out.push('(');
    list(out, &e.args, |out, arg| match arg {
        EmitArg::Site(n) => var(out, &n.text),
        EmitArg::Absent(_) => out.push_str("none"),
        EmitArg::Global(g) => {
            let _ = write!(out, "{} {} : {}[", g.role.text, quoted(&g.name.text), g.elem.text);
            list(out, &g.dims, expr);
            out.push_str("] per ");
            match &g.per {
                Per::Value(n) => var(out, &n.text),
                Per::Class(_) => out.push_str("class"),
                Per::Rule(_) => out.push_str("rule"),
            }
            out.push_str(" = ");
            expr(out, &g.init);
        }
    });
    out.push(')');
    settings(out, &[], &e.attrs);
}

fn grad(out: &mut String, g: &Grad) {
    doc(out, &g.doc);
    out.push_str("grad ");
    op_pattern(out, &g.pattern);
    out.push_str(" given (");
    list(out, &g.given, |out, name| match name {
        Some(n) => var(out, &n.text),
        None => out.push('_'),
    });
    out.push_str(")\n");
    lets(out, &g.lets);
    out.push_str("  => (");
    list(out, &g.gradients, |out, (names, e)| {
        list(out, names, |out, n| var(out, &n.text));
        out.push_str(": ");
        expr(out, e);
    });
    out.push_str(")\n");
    wheres(out, &g.conditions);
}

fn list<T>(out: &mut String, items: &[T], mut print: impl FnMut(&mut String, &T)) {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        print(out, item);
    }
}

fn name(out: &mut String, text: &str) {
    if is_plain(text) { out.push_str(text) } else { push_quoted(out, text) }
}

fn sigil(out: &mut String, sigil: char, text: &str) {
    out.push(sigil);
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits { out.push_str(text) } else { name(out, text) }
}

fn var(out: &mut String, text: &str) {
    sigil(out, '$', text);
}

fn bind(out: &mut String, bind: Option<&Name>) {
    if let Some(n) = bind {
        sigil(out, '@', &n.text);
    }
}

fn pattern(out: &mut String, p: &Pattern) {
    match &p.kind {
        PatternKind::Any => out.push('_'),
        PatternKind::Absent => out.push_str("none"),
        PatternKind::Var(n) => var(out, &n.text),
        PatternKind::Optional(inner) => {
            pattern(out, inner);
            out.push('?');
        }
        PatternKind::Rest(n) => {
            match n {
                Some(n) => var(out, &n.text),
                None => out.push('_'),
            }
            out.push_str("...");
        }
        PatternKind::Each(names, inner) => {
            out.push_str("each ");
            list(out, names, |out, n| var(out, &n.text));
            out.push_str(": ");
            pattern(out, inner);
        }
        PatternKind::Number(n) => number(out, *n),
        PatternKind::Op(op) => op_pattern(out, op),
        PatternKind::Bound(n, inner) => {
            var(out, &n.text);
            out.push(':');
            // Alternatives bring their own.
            let bare = matches!(inner.kind, PatternKind::Alt(_));
            out.push_str(if bare { "" } else { "(" });
            pattern(out, inner);
            out.push_str(if bare { "" } else { ")" });
        }
        PatternKind::Alt(all) => {
            out.push('(');
            for (i, p) in all.iter().enumerate() {
                out.push_str(if i > 0 { " | " } else { "" });
                pattern(out, p);
            }
            out.push(')');
        }
        PatternKind::Wrapped { ops, optional, bind: named, inner } => {
            out.push('[');
            for (i, (op, attrs)) in ops.iter().enumerate() {
                out.push_str(if i > 0 { " | " } else { "" });
                name(out, &op.text);
                attr_patterns(out, attrs);
            }
            out.push(']');
            out.push_str(if *optional { "?" } else { "" });
            bind(out, named.as_ref());
            out.push('(');
            pattern(out, inner);
            out.push(')');
        }
    }
}

fn op_pattern(out: &mut String, op: &OpPattern) {
    name(out, &op.op.text);
    bind(out, op.bind.as_ref());
    out.push('(');
    list(out, &op.args, pattern);
    out.push(')');
    attr_patterns(out, &op.attrs);
    if let Some(results) = &op.results {
        out.push_str(" -> (");
        list(out, results, |out, r| match r {
            ResultPattern::Var(n) => var(out, &n.text),
            ResultPattern::Any(_) => out.push('_'),
            ResultPattern::Unused(_) => out.push_str("unused"),
            ResultPattern::UnusedRest(_) => out.push_str("unused..."),
            ResultPattern::Rest(n) => {
                var(out, &n.text);
                out.push_str("...");
            }
        });
        out.push(')');
    }
}

fn attr_patterns(out: &mut String, attrs: &[AttrPattern]) {
    if attrs.is_empty() {
        return;
    }
    out.push_str(" {");
    list(out, attrs, |out, a| {
        name(out, &a.name.text);
        out.push_str(" = ");
        match &a.value {
            AttrPatternValue::Var(n) => var(out, &n.text),
            AttrPatternValue::Literal(e) => expr(out, e),
        }
    });
    out.push('}');
}

fn settings(out: &mut String, copy: &[Name], attrs: &[(Name, Expr)]) {
    if copy.is_empty() && attrs.is_empty() {
        return;
    }
    out.push_str(" {");
    list(out, copy, |out, n| {
        out.push_str("..");
        var(out, &n.text);
    });
    if !copy.is_empty() && !attrs.is_empty() {
        out.push_str(", ");
    }
    list(out, attrs, |out, (n, e)| {
        name(out, &n.text);
        out.push_str(" = ");
        expr(out, e);
    });
    out.push('}');
}

fn call(out: &mut String, c: &Call) {
    name(out, &c.name.text);
    out.push('(');
    list(out, &c.args, expr);
    out.push(')');
    settings(out, &c.copy, &c.attrs);
}

fn expr(out: &mut String, e: &Expr) {
    match &e.kind {
        ExprKind::Int(n) => {
            let _ = write!(out, "{n}");
        }
        ExprKind::Float(f) => number(out, *f),
        ExprKind::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        ExprKind::Str(s) => push_quoted(out, s),
        ExprKind::Absent => out.push_str("none"),
        ExprKind::Word(w) => out.push_str(w),
        ExprKind::Var(v) => var(out, v),
        ExprKind::OptionalVar(v) => {
            var(out, v);
            out.push('?');
        }
        ExprKind::Rest(v) => {
            var(out, v);
            out.push_str("...");
        }
        ExprKind::List(all) => {
            out.push('[');
            list(out, all, expr);
            out.push(']');
        }
        ExprKind::Call(c) => call(out, c),
        ExprKind::Each { names, source, body } => {
            out.push_str("each ");
            list(out, names, |out, n| var(out, &n.text));
            if let Some(s) = source {
                out.push_str(" in ");
                expr(out, s);
            }
            out.push_str(": ");
            list(out, body, expr);
        }
        ExprKind::Tuple(all) => {
            out.push('(');
            list(out, all, expr);
            out.push(')');
        }
    }
}

/// A float, so that it reads back as a float.
fn number(out: &mut String, f: f64) {
    if f.is_nan() {
        out.push_str("nan");
    } else if f.is_infinite() {
        out.push_str(if f > 0.0 { "inf" } else { "-inf" });
    } else {
        let _ = write!(out, "{f:?}");
    }
}

fn cond(out: &mut String, c: &Cond) {
    match &c.kind {
        CondKind::Call(call_) => call(out, call_),
        CondKind::Not(inner) => {
            out.push_str("not ");
            nested_cond(out, inner);
        }
        CondKind::Or(all) => joined(out, all, " or "),
        CondKind::And(all) => joined(out, all, " and "),
    }
}

fn joined(out: &mut String, all: &[Cond], word: &str) {
    for (i, c) in all.iter().enumerate() {
        out.push_str(if i > 0 { word } else { "" });
        nested_cond(out, c);
    }
}

fn nested_cond(out: &mut String, c: &Cond) {
    let bare = matches!(c.kind, CondKind::Call(_) | CondKind::Not(_));
    out.push_str(if bare { "" } else { "(" });
    cond(out, c);
    out.push_str(if bare { "" } else { ")" });
}
