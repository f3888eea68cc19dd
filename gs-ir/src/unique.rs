//! Unique names: `w`, `w.1`, `w.2`, ... in constant time however many there are of one kind.

use rustc_hash::FxHashMap;

/// Remembers for each name the least suffix that may be free. What is taken the caller knows.
#[derive(Clone, Debug, Default)]
pub struct Suffixes {
    next: FxHashMap<Box<str>, u32>,
}

impl Suffixes {
    /// The name with the first suffix for which `take` says yes. `take` is asked for one name after the other; when it
    /// says no, the name counts as taken until it is [given back](Self::give_back).
    pub fn make(&mut self, wanted: &str, mut take: impl FnMut(&str) -> bool) -> String {
        if !self.next.contains_key(wanted) {
            self.next.insert(wanted.into(), 1);
        }
        let mut suffix = self.next.get(wanted).copied().unwrap_or(1);
        loop {
            let name = format!("{wanted}.{suffix}");
            suffix = suffix.wrapping_add(1);
            if take(&name) {
                if let Some(next) = self.next.get_mut(wanted) {
                    *next = suffix;
                }
                return name;
            }
        }
    }

    /// Says that a name is free again, so that the suffixes do not depend on what there once was.
    pub fn give_back(&mut self, name: &str) {
        let Some((wanted, suffix)) = name.rsplit_once('.') else { return };
        if let (Some(next), Ok(suffix)) = (self.next.get_mut(wanted), suffix.parse::<u32>()) {
            *next = suffix.max(1).min(*next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Suffixes;
    use rustc_hash::FxHashSet;

    #[test]
    fn the_first_free_suffix_is_given() {
        let (mut suffixes, mut taken) = (Suffixes::default(), FxHashSet::default());
        taken.insert("w.2".to_owned());
        let mut make = |s: &mut Suffixes| s.make("w", |n| taken.insert(n.to_owned()));
        assert_eq!([make(&mut suffixes), make(&mut suffixes)], ["w.1", "w.3"]);
        taken.remove("w.1");
        suffixes.give_back("w.1");
        let mut make = |s: &mut Suffixes| s.make("w", |n| taken.insert(n.to_owned()));
        assert_eq!([make(&mut suffixes), make(&mut suffixes)], ["w.1", "w.4"]);
        suffixes.give_back("other");
        suffixes.give_back("w.0");
    }

    #[test]
    fn many_names_ask_once_each() {
        let (mut suffixes, mut asked) = (Suffixes::default(), 0);
        for _ in 0..10_000 {
            suffixes.make("w", |_| {
                asked += 1;
                true
            });
        }
        assert_eq!(asked, 10_000);
    }
}
