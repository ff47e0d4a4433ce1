//! Which object a value was made from, and where that object stands.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::terms::Key;

/// The object (and the part of it) that a value was made from. Every IR value carries it, and copies share its texts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Origin {
    /// For example `HTTPRoute`.
    pub kind: Cow<'static, str>,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    /// Listener, rule or limit inside the object; absent for the whole object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section: Option<Arc<str>>,
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
    pub fn new(kind: impl Into<Cow<'static, str>>, namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { kind: kind.into(), namespace: namespace.into(), name: name.into(), section: None }
    }

    /// The same object, pointing at one part of it.
    #[must_use]
    pub fn section(&self, section: impl Into<Arc<str>>) -> Self {
        Self { section: Some(section.into()), ..self.clone() }
    }

    pub fn key(&self) -> Key {
        Key { namespace: Arc::clone(&self.namespace), name: Arc::clone(&self.name) }
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
