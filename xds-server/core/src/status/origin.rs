//! Which object a value was made from, and where that object stands.

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
