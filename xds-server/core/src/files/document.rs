//! YAML text to trees that know the line of every field: the first step on the way of a file.
//!
//! Typed values are made from the tree later, so that one bad document leaves its neighbours alone and
//! every complaint, however late it is found, can name its line.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

use crate::objects::{Lines, Offsets, redact};

/// A YAML value and the lines of its fields.
#[derive(Debug, Clone)]
pub struct Document {
    pub value: Value,
    pub lines: Lines,
}

/// Why a file could not be read as YAML.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    pub line: u64,
    pub message: String,
}

/// Most levels of nesting that a document may have: twice what any object needs, and little for the stack.
const MAX_DEPTH: usize = 32;
/// One file may hold all consumers of a company.
const MAX_DOCUMENTS: usize = 200_000;
const MAX_NODES: usize = 4_000_000;

/// All documents of a file; empty ones are left out.
///
/// # Errors
/// The first mistake of the file's syntax.
pub fn parse(text: &str) -> Result<Vec<Document>, SyntaxError> {
    let nodes: Vec<Node> = serde_saphyr::from_multiple_with_options(text, options()).map_err(|error| {
        let error = error.without_snippet();
        let line = error.location().map_or(1, |location| location.line().max(1));
        let message = error.to_string();
        let first = message.lines().next().unwrap_or_default();
        // The line is told apart from the message.
        let first = first.rsplit_once(" at line ").map_or(first, |(message, _)| message);
        // It may quote the text.
        SyntaxError { line, message: redact::foreign(first) }
    })?;
    let mut known: BTreeSet<Arc<Offsets>> = BTreeSet::new();
    Ok(nodes
        .into_iter()
        .flat_map(Node::objects)
        .filter(|node| !matches!(node.kind, Kind::Null))
        .map(|node| {
            let start = node.line;
            let mut fields = Fields { start, below: Offsets::new() };
            let value = node.kind.into_value("", 0, &mut fields);
            let below = known.get(&fields.below).cloned().unwrap_or_else(|| Arc::new(fields.below));
            known.insert(Arc::clone(&below));
            Document { value, lines: Lines { start, below } }
        })
        .collect())
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_documents: MAX_DOCUMENTS,
            max_nodes: MAX_NODES,
            max_events: MAX_NODES * 2,
        },
    }
}

/// The lines of an object on their way into [`Lines`].
struct Fields {
    start: u64,
    below: Offsets,
}

// === impl Fields ===

impl Fields {
    fn note(&mut self, path: &str, line: u64) {
        let (line, start) = (i64::try_from(line), i64::try_from(self.start));
        if let (Ok(line), Ok(start)) = (line, start) {
            self.below.insert(path.into(), line - start);
        }
    }
}

// === Node: what serde-saphyr fills ===

/// A value with its own line: a document, or what is in a list. The line of what is in a map is that of its key.
#[derive(Debug)]
struct Node {
    line: u64,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Null,
    Scalar(Value),
    Seq(Vec<Node>),
    Map(Vec<(Spanned<String>, Kind)>),
}

impl Node {
    /// A `kind: List` is what it holds, as `kubectl get -o yaml` writes it.
    fn objects(self) -> Vec<Self> {
        match self.kind {
            Kind::Map(entries) if is_list(&entries) => entries
                .into_iter()
                .filter(|(key, _)| key.value == "items")
                .flat_map(|(_, kind)| match kind {
                    Kind::Seq(items) => items,
                    _ => Vec::new(),
                })
                .collect(),
            kind => vec![Self { line: self.line, kind }],
        }
    }
}

impl Kind {
    /// Nulls are left out, as in Kubernetes: `field:` means that the field is not set.
    fn into_value(self, path: &str, depth: usize, lines: &mut Fields) -> Value {
        match self {
            _ if depth > MAX_DEPTH => Value::Null,
            Self::Null => Value::Null,
            Self::Scalar(value) => value,
            Self::Seq(items) => Value::Array(
                items
                    .into_iter()
                    .enumerate()
                    .map(|(index, item)| {
                        let path = format!("{path}[{index}]");
                        lines.note(&path, item.line);
                        item.kind.into_value(&path, depth + 1, lines)
                    })
                    .collect(),
            ),
            Self::Map(entries) => {
                let mut map = Map::new();
                for (key, kind) in entries {
                    let path = if path.is_empty() { key.value.clone() } else { format!("{path}.{}", key.value) };
                    lines.note(&path, key.referenced.line());
                    if !matches!(kind, Self::Null) {
                        map.insert(key.value, kind.into_value(&path, depth + 1, lines));
                    }
                }
                Value::Object(map)
            }
        }
    }
}

fn is_list(entries: &[(Spanned<String>, Kind)]) -> bool {
    let says = |name: &str, text: &str| {
        entries
            .iter()
            .any(|(key, kind)| key.value == name && matches!(kind, Kind::Scalar(Value::String(is)) if is == text))
    };
    says("kind", "List") && says("apiVersion", "v1")
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Kind>::deserialize(deserializer)?;
        Ok(Self { line: spanned.referenced.line(), kind: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Kind, E> {
        Number::from_f64(value)
            .map(|number| Kind::Scalar(Value::Number(number)))
            .ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Kind, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Kind::Seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Kind::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_that_look_the_same_share_their_offsets() {
        let text = "a: 1\nb: {c: 2}\n---\n# another\na: 3\nb: {c: 4}\n---\na: 5\n\nb: 6\n";
        let documents = parse(text).unwrap();
        assert!(Arc::ptr_eq(&documents[0].lines.below, &documents[1].lines.below));
        assert!(!Arc::ptr_eq(&documents[0].lines.below, &documents[2].lines.below));
        let lines: Vec<[u64; 2]> =
            documents.iter().map(|document| ["a", "b.c"].map(|path| document.lines.of(path))).collect();
        assert_eq!(lines, [[1, 2], [5, 6], [8, 10]]);
    }

    #[test]
    fn lines_of_every_field() {
        let documents = parse("a: 1\nb:\n  - c: x\n    d: ~\n---\n---\ne: true\n").unwrap();
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[0].value, serde_json::json!({"a": 1, "b": [{"c": "x"}]}));
        assert_eq!(documents[0].lines.of("b[0].d"), 4);
        assert_eq!(documents[0].lines.of("b[0].missing.deep"), 3);
        assert_eq!(documents[1].lines.of("e"), 7);
    }

    #[test]
    fn syntax_errors_name_their_line() {
        let error = parse("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
        assert!(error.line >= 2, "{error:?}");
    }
}
