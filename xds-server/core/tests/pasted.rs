//! A key that was pasted where something else belongs is in no finding, wherever it was pasted.
#![allow(clippy::unwrap_used, reason = "a test: what is wrong ends it")]

use tollgate_core::objects::{NoSecretSource, Objects};
use tollgate_core::placement::Placement;
use tollgate_core::translate::translate;

const CASES: [&str; 5] = [
    include_str!("../../../tests/cases/pools/example.yaml"),
    include_str!("../../../tests/cases/policies/levels.yaml"),
    include_str!("../../../tests/cases/consumers/scoped.yaml"),
    include_str!("../../../tests/cases/services/precedence.yaml"),
    include_str!("../../../tests/cases/gateways/tls.yaml"),
];
/// In two parts: the repository is searched for whole ones.
const KEYS: [[&str; 2]; 4] = [
    ["sk-", "proj-Zk3vT0aQ1bX9cR7dW5eYp2"],
    ["", "9f86d081884c7d659a2feaa0c55ad015"],
    ["tg-", "aZ3kQ9xW1vB7nM5cT2yR8uP4sD6fG0hJ"],
    ["sk-", "ant-api03-kq4wz8xr1c-\u{7}v2m"],
];

fn said(text: &str) -> String {
    let mut objects = Objects::default();
    let mut findings = objects.add_yaml("case", text, &NoSecretSource);
    findings.extend(translate(&objects, Placement::OneHost).findings);
    // As people and as programs read them.
    findings.iter().map(|finding| format!("{finding}\n{}\n", serde_json::to_string(finding).unwrap())).collect()
}

/// Every word of the input that stands for a value or a field, with its place.
fn words(text: &str) -> Vec<(usize, usize)> {
    let is_word = |c: char| c.is_alphanumeric() || "-_.*/".contains(c);
    let mut words = Vec::new();
    let mut start = None;
    for (at, c) in text.char_indices() {
        match (start, is_word(c)) {
            (None, true) => start = Some(at),
            (Some(from), false) => {
                words.push((from, at));
                start = None;
            }
            _ => {}
        }
    }
    words
}

#[test]
fn a_key_in_the_place_of_any_word_is_not_repeated() {
    for case in CASES {
        let input = case.split("--- # ").next().unwrap();
        // Each word meets one key in one form: the words are many, and neighbours are alike.
        for (number, (from, to)) in words(input).into_iter().enumerate() {
            for key in KEYS.iter().map(|parts| parts.concat()).skip(number % KEYS.len()).take(1) {
                let (before, after) = (input.get(..from).unwrap(), input.get(to..).unwrap());
                // Bare, quoted, and with what breaks the syntax.
                let forms = [key.clone(), format!("{key:?}"), format!("{{{key}")];
                for pasted in forms.into_iter().skip(number % 3).take(1) {
                    let said = said(&format!("{before}{pasted}{after}"));
                    let printed = key.escape_default().to_string();
                    assert!(!said.contains(&key) && !said.contains(&printed), "{before}>>>{pasted}\n{said}");
                    assert!(!said.chars().any(|c| c.is_control() && c != '\n'), "{said}");
                }
            }
        }
    }
}
