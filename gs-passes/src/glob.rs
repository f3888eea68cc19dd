//! Globs: names with `*` and `?`, by which users choose layers and parameters.

/// Whether a glob matches a whole name: `*` stands for any characters, `?` for one.
pub fn glob_matches(glob: &str, name: &str) -> bool {
    let (g, n): (Vec<char>, Vec<char>) = (glob.chars().collect(), name.chars().collect());
    let (mut i, mut j) = (0, 0);
    // Where to go back to: just behind the last star, with one more character given to it.
    let mut star: Option<(usize, usize)> = None;
    while j < n.len() {
        if g.get(i) == Some(&'*') {
            star = Some((i + 1, j));
            i += 1;
        } else if i < g.len() && (g[i] == '?' || g[i] == n[j]) {
            i += 1;
            j += 1;
        } else if let Some((after, from)) = star {
            star = Some((after, from + 1));
            i = after;
            j = from + 1;
        } else {
            return false;
        }
    }
    g[i..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (glob, name, fits) in [
            ("conv1", "conv1", true),
            ("conv1", "conv10", false),
            ("layer1.*", "layer1.0.conv1", true),
            ("*.conv?", "layer1.0.conv1", true),
            ("*.conv?", "layer1.0.conv", false),
            ("*", "", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
        ] {
            assert_eq!(glob_matches(glob, name), fits, "{glob} {name}");
        }
    }
}
