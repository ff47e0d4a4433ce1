//! A map of LiteLLM's configuration that is taken apart: what is understood is taken out, and what is left is listed.

use serde_json::{Map, Value};

use crate::status::{Reason, Severity};

use super::known::Group;
use super::notes::Notes;

/// A map and its path in the file.
#[derive(Debug, Default)]
pub(super) struct Section {
    path: String,
    fields: Map<String, Value>,
}

// === impl Section ===

impl Section {
    pub(super) fn root(value: Value, notes: &mut Notes) -> Self {
        Self::of(String::new(), value, notes)
    }

    pub(super) fn of(path: String, value: Value, notes: &mut Notes) -> Self {
        match value {
            Value::Object(fields) => Self { path, fields },
            _ => {
                notes.invalid(&path, "not a map", "");
                Self { path, fields: Map::new() }
            }
        }
    }

    /// The path of one of its fields.
    pub(super) fn at(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn has(&self, field: &str) -> bool {
        self.fields.contains_key(field)
    }

    pub(super) fn take(&mut self, field: &str) -> Option<Value> {
        self.fields.remove(field)
    }

    /// Puts a value where none is.
    pub(super) fn fill(&mut self, field: &str, value: Value) {
        self.fields.entry(field).or_insert(value);
    }

    pub(super) fn section(&mut self, field: &str, notes: &mut Notes) -> Self {
        match self.take(field) {
            Some(value) => Self::of(self.at(field), value, notes),
            None => Self { path: self.at(field), fields: Map::new() },
        }
    }

    /// A text. A number is one too, as YAML reads `model_name: 4`.
    pub(super) fn text(&mut self, field: &str, notes: &mut Notes) -> Option<String> {
        match self.take(field)? {
            Value::String(text) => Some(text),
            Value::Number(number) => Some(number.to_string()),
            _ => {
                notes.invalid(&self.at(field), "not a text", "");
                None
            }
        }
    }

    /// A number that is not negative, or its digits as a text.
    pub(super) fn number(&mut self, field: &str, notes: &mut Notes) -> Option<f64> {
        let number = match self.take(field)? {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let number = number.filter(|number| number.is_finite() && *number >= 0.0);
        if number.is_none() {
            notes.invalid(&self.at(field), "not a number that can be used", "written out, and not negative");
        }
        number
    }

    /// A whole number, or its digits as a text.
    pub(super) fn whole(&mut self, field: &str, notes: &mut Notes) -> Option<u64> {
        let number = match self.take(field)? {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        if number.is_none() {
            notes.invalid(&self.at(field), "not a whole number", "written out, and not negative");
        }
        number
    }

    /// A list, each entry with its path.
    pub(super) fn list(&mut self, field: &str, notes: &mut Notes) -> Vec<(String, Value)> {
        let path = self.at(field);
        match self.take(field) {
            None => Vec::new(),
            Some(Value::Array(entries)) => numbered(&path, entries),
            Some(_) => {
                notes.invalid(&path, "not a list", "");
                Vec::new()
            }
        }
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, field: &str, notes: &mut Notes) -> Vec<(String, String)> {
        self.list(field, notes)
            .into_iter()
            .filter_map(|(path, value)| match value {
                Value::String(text) => Some((path, text)),
                _ => {
                    notes.invalid(&path, "not a text", "");
                    None
                }
            })
            .collect()
    }

    pub(super) fn flag(&mut self, field: &str) -> bool {
        self.take(field).is_some_and(|value| !is_off(&value))
    }

    /// The fields that say nothing: empty, switched off or zero.
    pub(super) fn nothing(&self) -> Vec<String> {
        let is_nothing = |value: &Value| is_off(value) || value.as_f64() == Some(0.0);
        self.fields.iter().filter(|(_, value)| is_nothing(value)).map(|(field, _)| field.clone()).collect()
    }

    /// What is left, each with its path.
    pub(super) fn rest(self) -> Vec<(String, Value)> {
        let path = self.path;
        let at = |field: String| if path.is_empty() { field } else { format!("{path}.{field}") };
        self.fields.into_iter().map(|(field, value)| (at(field), value)).collect()
    }

    /// Lists what is left. What is known and switched off says nothing.
    pub(super) fn leave(self, known: &[Group], notes: &mut Notes) {
        for (path, value) in self.rest() {
            let field = path.rsplit('.').next().unwrap_or(&path);
            match known.iter().find(|group| group.has(field)) {
                Some(_) if is_off(&value) => {}
                Some(known) => {
                    let reason = match known.severity {
                        Severity::Error => Reason::UnsupportedValue,
                        Severity::Warning => Reason::NotActedOn,
                    };
                    notes.note(known.severity, reason, &path, known.message, known.hint);
                }
                None => notes.lost(&path, "the import does not know this field", "see docs/import-litellm.md"),
            }
        }
    }
}

/// Entries of a list, each with its path.
pub(super) fn numbered(path: &str, entries: Vec<Value>) -> Vec<(String, Value)> {
    entries.into_iter().enumerate().map(|(index, entry)| (format!("{path}[{index}]"), entry)).collect()
}

/// Whether a feature with this value is switched off.
pub(super) fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(entries) => entries.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => matches!(text.to_ascii_lowercase().as_str(), "" | "false" | "no" | "off"),
        Value::Bool(true) | Value::Number(_) => false,
    }
}
