//! One object with where it came from, and the store of a kind.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::sync::Arc;

use crate::status::{Finding, Origin, Severity, Spot};

use super::document::Lines;
use super::redact;

/// Namespace and name; the namespace is empty for kinds without one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

/// What every object has besides its specification.
#[derive(Debug, Clone)]
pub struct Meta {
    pub origin: Origin,
    pub labels: BTreeMap<String, String>,
    /// Unix seconds of its creation where that is known, for precedence between routes.
    pub created: Option<i64>,
    pub file: String,
    pub lines: Lines,
    pub source: Source,
    /// Unix seconds when this version of it was read first.
    pub since: i64,
}

/// The document as it was written, in JSON. A restart reads it again. References to files and variables are not
/// resolved in it. A Secret that has its values in the folder has them here too, so it is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Source(Arc<str>);

#[derive(Debug, Clone)]
pub struct Object<T> {
    pub meta: Meta,
    pub spec: T,
}

/// All objects of one kind, in the order of their names.
#[derive(Debug, Clone)]
pub struct Store<T>(BTreeMap<Key, Object<T>>);

// === impl Key ===

impl Key {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

// === impl Meta ===

impl Meta {
    pub fn namespace(&self) -> &str {
        &self.origin.namespace
    }

    pub fn name(&self) -> &str {
        &self.origin.name
    }

    pub fn key(&self) -> Key {
        Key::new(self.namespace(), self.name())
    }

    pub fn spot(&self, field: &str) -> Spot {
        Spot { file: self.file.clone(), line: self.lines.of(field) }
    }

    pub fn finding(
        &self,
        severity: Severity,
        reason: &str,
        field: impl Display,
        message: impl Display,
        hint: impl Display,
    ) -> Finding {
        let field = field.to_string();
        Finding {
            severity,
            reason: reason.to_owned(),
            origin: Some(Origin {
                kind: redact::plain(&self.origin.kind),
                namespace: redact::plain(&self.origin.namespace),
                name: redact::plain(&self.origin.name),
                section: None,
            }),
            spot: Some(self.spot(&field)),
            field: redact::path(&field),
            message: redact::scrub(&message.to_string()),
            hint: redact::scrub(&hint.to_string()),
        }
    }
}

// === impl Source ===

impl Source {
    pub fn new(json: &str) -> Self {
        Self(json.into())
    }

    /// The document, for the one place that keeps it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[the document]")
    }
}

// === impl Store ===

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Store<T> {
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Object<T>> {
        self.0.get(&Key::new(namespace, name))
    }

    pub fn insert(&mut self, object: Object<T>) {
        self.0.insert(object.meta.key(), object);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Object<T>> {
        self.0.values()
    }

    /// Those of one namespace, without a look at any other.
    pub fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = &Object<T>> {
        let from_here = self.0.range(Key::new(namespace, "")..);
        from_here.take_while(move |(key, _)| key.namespace == namespace).map(|(_, object)| object)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Object<T>> {
        self.0.values_mut()
    }
}
