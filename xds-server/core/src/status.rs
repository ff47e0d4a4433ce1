//! What is wrong, and on which object: findings of parsing and translation, and refusals of Envoys.
//!
//! In files a finding ends as one line with file, line, field and hint; in Kubernetes as a condition.

use std::fmt;

use serde::Serialize;

/// The object (and the part of it) that a value was made from. Every IR value carries it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Origin {
    /// For example `HTTPRoute`.
    pub kind: String,
    pub namespace: String,
    pub name: String,
    /// Listener, rule or limit inside the object; absent for the whole object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section: Option<String>,
}

/// Where in a file an object stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Spot {
    /// Path as the user gave it.
    pub file: String,
    /// From 1.
    pub line: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The object, or a part of it, is refused.
    Error,
    /// It works, but perhaps not as meant.
    Warning,
}

/// One thing to tell the user about the input.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// Gateway API reason where there is one (`InvalidKind`, `BackendNotFound`, `RefNotPermitted`,
    /// `UnsupportedValue`, ...), else our own in the same style.
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spot: Option<Spot>,
    /// Dotted path, for example `spec.models[0].targets[1].weight`; empty for the whole object.
    pub field: String,
    pub message: String,
    /// What to do about it; empty when there is nothing to add.
    pub hint: String,
}

// === impl Origin ===

impl Origin {
    pub fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned(), section: None }
    }

    /// The same object, pointing at one part of it.
    #[must_use]
    pub fn section(&self, section: impl Into<String>) -> Self {
        Self { section: Some(section.into()), ..self.clone() }
    }

    /// How usage rows, labels and pages name the object: its name, with `namespace/` unless that is `default`.
    pub fn display_name(&self) -> String {
        display_name(&self.namespace, &self.name)
    }
}

/// See [`Origin::display_name`].
pub fn display_name(namespace: &str, name: &str) -> String {
    if namespace == "default" { name.to_owned() } else { format!("{namespace}/{name}") }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)?;
        self.section.iter().try_for_each(|section| write!(f, " ({section})"))
    }
}

// === impl Finding ===

impl Finding {
    /// The order in which people read: by file and line.
    pub fn by_spot(a: &Self, b: &Self) -> std::cmp::Ordering {
        (&a.spot, a).cmp(&(&b.spot, b))
    }
}

impl fmt::Display for Finding {
    /// `file:line: error: HTTPRoute default/chat: spec.x: message (hint)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(spot) = &self.spot {
            write!(f, "{}:{}: ", spot.file, spot.line)?;
        }
        f.write_str(match self.severity {
            Severity::Error => "error: ",
            Severity::Warning => "warning: ",
        })?;
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(f, " ({})", self.hint)?;
        }
        Ok(())
    }
}
