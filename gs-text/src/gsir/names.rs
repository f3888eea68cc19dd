//! The names of values in text: the source's where there is one, made unique among what is visible, else a number.
//! Sibling regions may use a name twice, as in the source.

use gs_ir::unique::Suffixes;
use gs_ir::{Handle, Module, Sym, ValueId};
use rustc_hash::FxHashSet;

/// What a value is called.
#[derive(Clone, Copy)]
enum Name {
    /// It was not defined yet.
    None,
    /// A number: the source has no name for it.
    Number(u32),
    /// The name it has in the source.
    Own(Sym),
    /// A name made unique: an index into `Names::made`.
    Made(u32),
}

/// How a value is written.
pub(crate) enum Written<'a> {
    /// `%12`
    Number(u32),
    /// `%name`, perhaps quoted.
    Name(&'a str),
    /// Nothing defined it before this place: the module is broken.
    Undefined,
}

/// A name that was taken in some scope.
enum Taken {
    Sym(Sym),
    Made(String),
}

/// Gives out names in the order in which values are defined in the text.
pub(crate) struct Names<'m> {
    module: &'m Module,
    names: Vec<Name>,
    made: Vec<String>,
    next_number: u32,
    taken_syms: Vec<bool>,
    taken_made: FxHashSet<String>,
    log: Vec<Taken>,
    suffixes: Suffixes,
}

impl<'m> Names<'m> {
    pub(crate) fn new(module: &'m Module) -> Self {
        Self {
            module,
            names: vec![Name::None; module.value_capacity()],
            made: Vec::new(),
            next_number: 0,
            taken_syms: Vec::new(),
            taken_made: FxHashSet::default(),
            log: Vec::new(),
            suffixes: Suffixes::default(),
        }
    }

    /// Starts an entry graph: numbers begin again.
    pub(crate) fn start_graph(&mut self) {
        self.next_number = 0;
    }

    /// Opens a scope and gives the mark by which it is closed.
    pub(crate) fn open(&self) -> usize {
        self.log.len()
    }

    /// Closes the scope: what was named since may be named so again.
    pub(crate) fn close(&mut self, mark: usize) {
        for taken in self.log.drain(mark.min(self.log.len())..) {
            match taken {
                Taken::Sym(s) => self.taken_syms[s.index()] = false,
                Taken::Made(s) => {
                    self.taken_made.remove(&s);
                }
            }
        }
    }

    /// Names a value at its definition.
    pub(crate) fn define(&mut self, value: ValueId) {
        let own = self.module.value(value).name;
        let name = if self.module.str(own).is_empty() {
            self.next_number += 1;
            Name::Number(self.next_number - 1)
        } else if self.take(own) {
            Name::Own(own)
        } else {
            self.make_unique(own)
        };
        self.names[value.index()] = name;
    }

    fn take(&mut self, sym: Sym) -> bool {
        if self.taken_syms.len() <= sym.index() {
            self.taken_syms.resize(sym.index() + 1, false);
        }
        let free = !std::mem::replace(&mut self.taken_syms[sym.index()], true);
        if free {
            self.log.push(Taken::Sym(sym));
        }
        free
    }

    fn take_made(&mut self, name: &str) -> bool {
        let free = self.taken_made.insert(name.to_owned());
        if free {
            self.log.push(Taken::Made(name.to_owned()));
        }
        free
    }

    fn make_unique(&mut self, own: Sym) -> Name {
        let mut suffixes = std::mem::take(&mut self.suffixes);
        let name = suffixes.make(self.module.str(own), |name| match self.module.find_str(name) {
            Some(sym) => self.take(sym),
            None => self.take_made(name),
        });
        self.suffixes = suffixes;
        self.made.push(name);
        Name::Made(self.made.len() as u32 - 1)
    }

    /// How a value is written.
    #[inline]
    pub(crate) fn get(&self, value: ValueId) -> Written<'_> {
        match self.names.get(value.index()).copied().unwrap_or(Name::None) {
            Name::None => Written::Undefined,
            Name::Number(n) => Written::Number(n),
            Name::Own(sym) => Written::Name(self.module.str(sym)),
            Name::Made(i) => self.made.get(i as usize).map_or(Written::Undefined, |n| Written::Name(n)),
        }
    }
}
