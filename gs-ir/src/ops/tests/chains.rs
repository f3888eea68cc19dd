//! Computations of shapes are followed from end to end with a symbolic batch.

use super::*;

/// Runs operations one after the other; `$i` is the result of step i.
fn run(steps: &[(&str, &str, &str)]) -> Vec<String> {
    let mut facts: Vec<String> = Vec::new();
    for (name, operands, attrs) in steps {
        let operands: Vec<&str> = operands
            .split(' ')
            .map(|o| match o.strip_prefix('$') {
                Some(i) => facts[i.parse::<usize>().unwrap()].as_str(),
                None => o,
            })
            .collect();
        let found = infer(name, &operands.join(" "), attrs, &[], 1);
        facts.push(found.unwrap_or_else(|e| panic!("{name}: {e}")));
    }
    facts
}

#[test]
fn flattening_as_exporters_write_it() {
    let facts = run(&[
        ("shape", "f32[N,64,1,1]", ""),
        ("gather", "$0 i64[]{0}", ""),
        ("unsqueeze", "$1", "axes=0"),
        ("concat", "$2 i64[1]{-1}", "axis=0"),
        ("reshape_to", "f32[N,64,1,1] $3", ""),
    ]);
    assert_eq!(facts[3], "i64[2]{N,-1}");
    assert_eq!(facts[4], "f32[N,64]");
}

#[test]
fn heads_of_attention() {
    let facts = run(&[
        ("shape", "f32[N,S,768]", ""),
        ("slice", "$0", "starts=0 ends=2"),
        ("concat", "$1 i64[2]{12,64}", "axis=0"),
        ("reshape_to", "f32[N,S,768] $2", ""),
        ("transpose", "$3", "perm=0,2,1,3"),
    ]);
    assert_eq!(facts[4], "f32[N,12,S,64]");
}

#[test]
fn halves_of_an_extent() {
    let facts = run(&[
        ("shape", "f32[N,2*C,8]", "start=1 end=2"),
        ("squeeze", "$0", ""),
        ("div", "$1 i64[]{2}", ""),
        ("cast", "$2", "to=i32"),
        ("cast", "$3", "to=i64"),
        ("mul", "$4 i64[]{8}", ""),
        ("unsqueeze", "$5", "axes=0"),
        ("constant_of_shape", "$6", ""),
    ]);
    assert_eq!(facts[7], "f32[8*C]");
}

#[test]
fn an_expansion_with_minus_one() {
    // Wherever the wanted extent is -1, that of the tensor is taken: `where(want == -1, 1, want)`.
    let facts = run(&[
        ("constant_of_shape", "i64[1]{3}", "value=1"),
        ("equal", "i64[3]{N,-1,64} i64[]{-1}", ""),
        ("where", "$1 $0 i64[3]{N,-1,64}", ""),
        ("expand", "f32[1,5,64] $2", ""),
    ]);
    assert_eq!(facts[3], "f32[N,5,64]");
}

#[test]
fn counting_elements() {
    let facts = run(&[
        ("shape", "f32[N,3,H]", ""),
        ("reduce_prod", "$0", "keepdims=false"),
        ("range", "i64[]{0} $1 i64[]{1}", ""),
    ]);
    assert_eq!(facts[2], "i64[3*H*N]");
}

#[test]
fn long_lists_are_not_followed() {
    let long = format!("i64[{}]", Known::LIMIT + 1);
    let facts = run(&[("concat", &format!("i64[1]{{N}} {long}"), "axis=0")]);
    assert_eq!(facts[0], format!("i64[{}]", Known::LIMIT + 2));
}
