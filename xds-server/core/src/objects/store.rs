//! One object with where it came from, and the store of a kind.

use std::collections::BTreeMap;
use std::fmt::Display;

use crate::status::{Finding, Origin, Severity, Spot};

use super::document::Lines;

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
}

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
            origin: Some(self.origin.clone()),
            spot: Some(self.spot(&field)),
            field,
            message: message.to_string(),
            hint: hint.to_string(),
        }
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
}
