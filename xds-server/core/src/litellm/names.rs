//! Names of objects and of variables, made from what LiteLLM's users wrote.

use std::collections::BTreeMap;

/// Names that are taken, each with the number that the next one like it gets.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<String, u32>);

const SECOND: u32 = 2;

/// Those of labels of DNS.
const MAX: usize = 63;
/// Room for a number that tells two apart.
const ROOM: usize = 8;

// === impl Names ===

impl Names {
    /// Names that no object may have.
    pub(super) fn without(reserved: &[&str]) -> Self {
        Self(reserved.iter().map(|name| ((*name).to_owned(), SECOND)).collect())
    }

    /// A label of DNS that nobody has yet, as like the text as can be.
    pub(super) fn label(&mut self, text: &str, fallback: &str) -> String {
        let label = label(text);
        let label = if label.is_empty() { fallback.to_owned() } else { label };
        self.free(label, "-")
    }

    /// The name of a variable of the environment that nobody has yet.
    pub(super) fn variable(&mut self, text: &str) -> String {
        self.free(label(text).replace('-', "_").to_ascii_uppercase(), "_")
    }

    pub(super) fn take(&mut self, name: &str) {
        self.0.insert(name.to_owned(), SECOND);
    }

    fn free(&mut self, name: String, between: &str) -> String {
        let mut free = name.clone();
        if let Some(next) = self.0.get(&name) {
            let mut number = *next;
            free = format!("{name}{between}{number}");
            while self.0.contains_key(&free) {
                number = number.saturating_add(1);
                free = format!("{name}{between}{number}");
            }
            self.0.insert(name, number.saturating_add(1));
        }
        self.0.insert(free.clone(), SECOND);
        free
    }
}

/// Lowercase letters, digits and single `-`; empty where the text has none of them.
pub(super) fn label(text: &str) -> String {
    let mut label = String::new();
    for c in text.chars().flat_map(char::to_lowercase) {
        if label.len() >= MAX - ROOM {
            break;
        }
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            label.push(c);
        } else if !label.is_empty() && !label.ends_with('-') {
            label.push('-');
        }
    }
    label.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::terms::names::is_dns_label;
    use proptest::prelude::*;

    #[test]
    fn names_are_like_the_text_and_told_apart_by_a_number() {
        let mut names = Names::without(&["anonymous"]);
        let labels = ["Alice's Laptop", "alice's--laptop", "ALICE S LAPTOP!", "anonymous", "", "日本"];
        let labels = labels.map(|text| names.label(text, "key"));
        assert_eq!(labels, ["alice-s-laptop", "alice-s-laptop-2", "alice-s-laptop-3", "anonymous-2", "key", "key-2"]);
        assert_eq!([names.variable("openai-127-0-0-1-key"), names.variable("key")], ["OPENAI_127_0_0_1_KEY", "KEY"]);
        assert_eq!(names.variable("key"), "KEY_2");
    }

    #[test]
    fn long_texts_are_cut_with_room_for_a_number() {
        assert_eq!(label(&"a".repeat(500)).len(), 55);
        // No dash is left at the cut.
        assert_eq!(label(&format!("{}-b", "a".repeat(54))), "a".repeat(54));
    }

    proptest! {
        #[test]
        fn every_name_is_valid_and_only_once(texts in proptest::collection::vec("\\PC{0,80}", 1..20)) {
            let mut names = Names::default();
            let labels: BTreeSet<String> = texts.iter().map(|text| names.label(text, "key")).collect();
            prop_assert_eq!(labels.len(), texts.len());
            prop_assert!(labels.iter().all(|label| is_dns_label(label)), "{:?}", labels);
        }
    }
}
