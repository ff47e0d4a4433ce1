//! Whatever stands in a file, reading it ends with objects and findings and never with a panic.
#![allow(clippy::unwrap_used, reason = "a test: what is wrong ends it")]

use proptest::prelude::*;
use tollgate_core::envoy::{FilterCode, FilterSetup, Ports, RouteTables, Signals, Surroundings, snapshot};
use tollgate_core::objects::{NoSecretSource, Objects};
use tollgate_core::placement::Placement;
use tollgate_core::translate::translate;

/// All the way, as a server would go it.
fn walk(text: &str) {
    let mut objects = Objects::default();
    let findings = objects.add_yaml("any", text, &NoSecretSource);
    for finding in &findings {
        assert!(finding.spot.as_ref().is_some_and(|spot| spot.line >= 1), "{finding}");
    }
    let translation = translate(&objects, Placement::OneHost);
    for scoped_above in [0, RouteTables::default().scoped_above] {
        let surroundings = Surroundings {
            bind: "::1".to_owned(),
            ports: Ports::Shared,
            filter: FilterSetup::of_gateways(FilterCode::File("f".to_owned())),
            signals: Signals::default(),
            route_tables: RouteTables { scoped_above },
        };
        for gateway in translation.ir.gateways.values() {
            let snapshot = snapshot(gateway, &translation.ir, &surroundings);
            tollgate_core::envoy::to_json(&snapshot);
        }
    }
}

const GOOD: &str = include_str!("../../../tests/cases/pools/example.yaml");

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text(text in "\\PC*") {
        walk(&text);
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        walk(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn yaml_like(text in "([a-z]{1,5}:? ?|- |\\[|\\]|\\{|\\}|\"|&a |\\*a|\\n|\\n  |\\n---\\n|[|>]|#|!|%|0x1|1e999|~){0,40}") {
        walk(&text);
    }

    /// A good file with a piece replaced.
    #[test]
    fn damaged(start in 0..2200_usize, length in 0..40_usize, with in "[-a-z0-9{}\\[\\]:,\"\n ]{0,12}") {
        let chars: Vec<char> = GOOD.chars().collect();
        let end = (start + length).min(chars.len());
        let start = start.min(end);
        let text: String = chars.iter().take(start).chain(with.chars().collect::<Vec<_>>().iter()).chain(chars.iter().skip(end)).collect();
        walk(&text);
    }
}

#[test]
fn bombs_and_depths() {
    walk(&"[".repeat(100_000));
    walk(&"{a: ".repeat(100_000));
    walk(&"- ".repeat(100_000));
    walk("a: &a [x, x]\nb: &b [*a, *a, *a]\nc: &c [*b, *b, *b]\nd: [*c, *c, *c]\n");
    walk("a: &a\n  <<: *a\n");
}

#[test]
fn one_bad_document_leaves_its_neighbours_alone() {
    let mut objects = Objects::default();
    let text = "apiVersion: tollgate.dev/v1alpha1\nkind: Consumer\nmetadata: {name: a}\nspec: {key: []}\n---\n\
                apiVersion: tollgate.dev/v1alpha1\nkind: Consumer\nmetadata: {name: b}\nspec: {keys: []}\n";
    let findings = objects.add_yaml("two", text, &NoSecretSource);
    assert!(objects.consumers.get("default", "a").is_none());
    assert!(objects.consumers.get("default", "b").is_some());
    let first = findings.first().unwrap();
    assert_eq!(
        first.to_string(),
        "two:4: error: Consumer default/a: spec.key: unknown field `key` (did you mean `keys`?)"
    );
}
