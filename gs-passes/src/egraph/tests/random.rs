//! Random networks of the operators that the shipped rules speak of: what comes out computes the same, and costs no
//! more than what the greedy driver makes by the same rules.

use super::*;

/// A draw from `0..n`.
struct Draws(u64, u64);

impl Draws {
    fn next(&mut self, n: usize) -> usize {
        self.1 += 1;
        (gs_eval::random::unit(self.0, self.1) * n as f64) as usize
    }
}

/// A value: its element type and extents.
type Made = (&'static str, Vec<i64>);

fn ty((elem, dims): &Made) -> String {
    let dims: Vec<String> = dims.iter().map(i64::to_string).collect();
    format!("{elem}[{}]", dims.join(", "))
}

/// One operation on an earlier value.
fn step(values: &[Made], draws: &mut Draws) -> (String, Made) {
    const SHAPES: [&[i64]; 5] = [&[24], &[2, 12], &[2, 3, 4], &[4, 6], &[1, 2, 3, 4]];
    let at = draws.next(values.len());
    let (elem, dims) = values[at].clone();
    match draws.next(7) {
        0 | 1 => {
            let mut perm: Vec<usize> = (0..dims.len()).collect();
            for i in (1..perm.len()).rev() {
                perm.swap(i, draws.next(i + 1));
            }
            let moved = perm.iter().map(|&p| dims[p]).collect();
            (format!("transpose(%v{at}) {{perm = {perm:?}}}"), (elem, moved))
        }
        2 => {
            let shape = SHAPES[draws.next(SHAPES.len())].to_vec();
            (format!("reshape(%v{at}) {{shape = {shape:?}}}"), (elem, shape))
        }
        3 if elem == "u8" => (format!("dequantize(%v{at}, @s, @z)"), ("f32", dims)),
        3 => (format!("quantize(%v{at}, @s, @z)"), ("u8", dims)),
        4 => (format!("relu(%v{at})"), (elem, dims)),
        5 if elem == "u8" => (format!("dequantize(%v{at}, @s, @z)"), ("f32", dims)),
        _ => match values.iter().rposition(|v| *v == ("f32", dims.clone())) {
            Some(other) if elem == "f32" => (format!("add(%v{at}, %v{other})"), (elem, dims)),
            _ => (format!("unsqueeze(%v{at}) {{axes = [0]}}"), (elem, [&[1], &dims[..]].concat())),
        },
    }
}

fn network(seed: u64, steps: usize) -> String {
    let mut draws = Draws(seed, 0);
    let mut values: Vec<Made> = vec![("f32", vec![2, 3, 4]), ("u8", vec![2, 3, 4])];
    let mut body = String::new();
    let mut used = vec![true, true];
    for _ in 0..steps {
        let (mut call, mut made) = step(&values, &mut draws);
        if made.1.len() > 5 || (call.starts_with("relu") && made.0 == "u8") {
            let at = values.len() - 1;
            call = format!("reshape(%v{at}) {{shape = [24]}}");
            made = (values[at].0, vec![24]);
        }
        for (i, u) in used.iter_mut().enumerate() {
            *u |= call.contains(&format!("%v{i},")) || call.contains(&format!("%v{i})"));
        }
        body.push_str(&format!("  %v{} = {call} : {} from \"n{}\"\n", values.len(), ty(&made), values.len()));
        values.push(made);
        used.push(false);
    }
    let open: Vec<usize> = (0..values.len()).filter(|i| !used[*i]).collect();
    let results: Vec<String> = open.iter().map(|i| format!("%y{i} : {}", ty(&values[*i]))).collect();
    let returned: Vec<String> = open.iter().map(|i| format!("%v{i}")).collect();
    format!(
        "gsir 1\nconst @s : f32[] = 0.03125\nconst @z : u8[] = 0\ngraph @main(%v0 : f32[2, 3, 4], %v1 : u8[2, 3, 4]) -> \
         ({}) {{\n{body}  return {}\n}}\n",
        results.join(", "),
        returned.join(", ")
    )
}

/// What the shipped rules do not say: that relu and add go through a transposition, either way.
const MORE: &str = "gsr 1
ruleset \"more\" { driver = both }
rule exact relu_swap relu(transpose($x) {perm = $p}) <=> transpose(relu($x)) {perm = $p}
rule exact add_swap add(transpose($x) {perm = $p}, transpose($y) {perm = $p}) => transpose(add($x, $y)) {perm = $p}
rule exact add_back transpose(add($x, $y)) {perm = $p} => add(transpose($x) {perm = $p}, transpose($y) {perm = $p})
";

#[test]
fn random_networks_compute_the_same_and_cost_no_more_than_greedily() {
    let (layout, qdq) = (shipped_text("layout.gsr"), shipped_text("qdq.gsr"));
    let set = together(&[&layout, &qdq]);
    let more = together(&[&layout, &qdq, MORE]);
    for seed in 0..60 {
        let text = network(seed, 8 + seed as usize % 16);
        let (after, stats) = saturated(&text, &set);
        let greedy = greedily(&module(&text), &set);
        assert!(
            stats.cost_after <= cost(&greedy),
            "seed {seed}: {} > {}\n{text}\n=>\n{}\ngreedily\n{}",
            stats.cost_after,
            cost(&greedy),
            print(&after),
            print(&greedy)
        );
        let (_, wider) = saturated(&text, &more);
        assert!(
            wider.cost_after <= stats.cost_after,
            "seed {seed}: {} > {}",
            wider.cost_after,
            stats.cost_after
        );
    }
}

#[test]
fn every_source_name_is_accounted_for() {
    let set = together(&[&shipped_text("layout.gsr"), &shipped_text("qdq.gsr")]);
    for seed in 100..130 {
        let text = network(seed, 20);
        let (after, _) = saturated(&text, &set);
        let mut names: Vec<&str> = after.gone.keys().map(|s| after.str(*s)).collect();
        names.extend(
            after.all_ops().into_iter().flat_map(|op| after.source_of(op).to_vec()).map(|s| after.str(s)),
        );
        names.sort_unstable();
        let before = names.len();
        names.dedup();
        assert_eq!((names.len(), before), (20, 20), "seed {seed}: {names:?}\n{text}\n=>\n{}", print(&after));
    }
}
