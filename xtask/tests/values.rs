//! docs/reference/values.md is what manifests/chart/values.yaml says: `cargo xtask gen` (TOLLGATE_BLESS=1) writes it anew.
//! Every value has a comment there, and the schema knows each of them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test: what is wrong ends it")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use serde_json::Value;

const VALUES: &str = "manifests/chart/values.yaml";
const SCHEMA: &str = "manifests/chart/values.schema.json";
const REFERENCE: &str = "docs/reference/values.md";

/// A value, or a group of them.
#[derive(Debug)]
struct Entry {
    path: String,
    comment: String,
    /// As it is written. None: a group.
    default: Option<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// What stands in the file, line by line: comments, then the key that they are about. A block below a key is its default
/// if it is a list, or if the schema says nothing about what is in it.
fn entries(text: &str, schema: &Value) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut path: Vec<String> = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    let mut block: Option<(usize, bool)> = None;
    for line in text.lines() {
        let content = line.trim_start();
        let indent = line.len() - content.len();
        if let Some((begin, is_list)) = block {
            let goes_on = indent > begin || (is_list && indent == begin && content.starts_with("- "));
            if goes_on {
                let default = entries.last_mut().unwrap().default.as_mut().unwrap();
                write!(default, "{}{}", if default.is_empty() { "" } else { "\n" }, &line[begin..]).unwrap();
                continue;
            }
            block = None;
        }
        if content.is_empty() {
            comment.clear();
        } else if let Some(said) = content.strip_prefix('#') {
            comment.push(said.trim());
        } else {
            let (key, rest) = content.split_once(':').unwrap();
            path.truncate(indent / 2);
            path.push(key.to_owned());
            let rest = rest.trim();
            let known = of_schema(schema, &path).unwrap_or_else(|| panic!("{SCHEMA} does not know {}", path.join(".")));
            let is_group = rest.is_empty() && known.get("properties").is_some() && key != "podSelector";
            if rest.is_empty() && !is_group {
                block = Some((indent, known["type"] == "array"));
            }
            let default = (!is_group).then(|| rest.to_owned());
            entries.push(Entry { path: path.join("."), comment: comment.join(" "), default });
            comment.clear();
        }
    }
    entries
}

fn of_schema<'a>(schema: &'a Value, path: &[String]) -> Option<&'a Value> {
    let mut at = schema;
    for key in path {
        at = resolved(schema, at.get("properties")?.get(key)?);
    }
    Some(at)
}

fn resolved<'a>(schema: &'a Value, at: &'a Value) -> &'a Value {
    match at.get("$ref").and_then(Value::as_str) {
        Some(reference) => schema.pointer(reference.trim_start_matches('#')).unwrap(),
        None => at,
    }
}

/// Paths of all properties of the schema, and not what is in lists.
fn properties(schema: &Value, at: &Value, path: &str, out: &mut Vec<String>) {
    for (key, value) in at.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        out.push(path.clone());
        properties(schema, resolved(schema, value), &path, out);
    }
}

#[test]
fn the_reference_is_what_the_values_say() {
    let schema: Value = serde_json::from_str(&read(SCHEMA)).unwrap();
    let mut page = format!(
        "# Values of the chart\n\nGenerated from {VALUES} by `cargo xtask gen`. `helm install` refuses what {SCHEMA} does not know.\n"
    );
    let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    page.push_str("\n| value | default | what it is for |\n|---|---|---|\n");
    for Entry { path, comment, default } in entries(&read(VALUES), &schema) {
        let default = match default {
            None if comment.is_empty() => continue,
            None => String::new(),
            Some(text) if text.contains('\n') => "[several lines](../../manifests/chart/values.yaml)".to_owned(),
            Some(text) => format!("`{}`", cell(&text)),
        };
        writeln!(page, "| `{path}` | {default} | {} |", cell(&comment)).unwrap();
    }
    if env::var_os("TOLLGATE_BLESS").is_some() {
        fs::write(root().join(REFERENCE), &page).unwrap();
    }
    let found = fs::read_to_string(root().join(REFERENCE)).unwrap_or_default();
    assert!(found == page, "{REFERENCE} is behind {VALUES}; `cargo xtask gen` writes it anew");
}

#[test]
fn every_value_has_a_comment() {
    let schema: Value = serde_json::from_str(&read(SCHEMA)).unwrap();
    let entries = entries(&read(VALUES), &schema);
    let silent: Vec<&str> = entries
        .iter()
        .filter(|entry| entry.default.is_some() && entry.comment.is_empty())
        .map(|entry| &*entry.path)
        .collect();
    assert!(silent.is_empty(), "no comment above {silent:?}");
    assert!(entries.len() > 80, "only {} values are found", entries.len());
}

/// `global` is Helm's own.
#[test]
fn every_property_of_the_schema_is_a_value() {
    let schema: Value = serde_json::from_str(&read(SCHEMA)).unwrap();
    let entries = entries(&read(VALUES), &schema);
    let mut all = Vec::new();
    properties(&schema, &schema, "", &mut all);
    let is_in = |path: &str| {
        entries.iter().any(|entry| match &entry.default {
            None => entry.path == path,
            // What is in it is written beside it or below it, or is absent.
            Some(_) => entry.path == path || path.starts_with(&format!("{}.", entry.path)),
        })
    };
    // The proxies' image has the control plane's policy of pulling.
    let missing: Vec<&String> = all
        .iter()
        .filter(|path| !["global", "proxies.image.pullPolicy"].contains(&path.as_str()) && !is_in(path))
        .collect();
    assert!(missing.is_empty(), "{VALUES} has no {missing:?}");
}
