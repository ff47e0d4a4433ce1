//! What changes of objects are, one by one, for who keeps a record of them.

use std::sync::Arc;

use super::kinds::{EachKind, Kind, each_kind};
use super::{Changes, Key, Object, Objects, Provenance};

/// One object that came, went, or is another now.
#[derive(Debug, Clone)]
pub struct Edit {
    pub kind: &'static str,
    pub key: Key,
    /// None: it is gone.
    pub now: Option<Version>,
    pub was_there: bool,
}

/// A version of an object.
#[derive(Debug, Clone)]
pub struct Version {
    pub provenance: Provenance,
    /// All of its specification that we would show. Secrets are left out of it.
    pub shown: String,
}

struct Editing<'a> {
    before: &'a Objects,
    changes: &'a Changes,
    edits: Vec<Edit>,
}

// === impl Objects ===

impl Objects {
    /// What these changes are, before they are applied.
    pub fn edits(&self, changes: &Changes) -> Vec<Edit> {
        let mut editing = Editing { before: self, changes, edits: Vec::new() };
        each_kind(&mut editing);
        editing.edits
    }
}

impl EachKind for Editing<'_> {
    fn kind<T: Kind>(&mut self) {
        let before = T::store(self.before);
        let version = |object: &Arc<Object<T>>| Version {
            provenance: object.meta.provenance.clone(),
            shown: format!("{:?} {:?}", object.meta.labels, object.spec),
        };
        let set = T::store(&self.changes.set).shared().map(|object| Edit {
            kind: T::NAME,
            key: object.meta.key(),
            now: Some(version(object)),
            was_there: before.get(object.meta.namespace(), object.meta.name()).is_some(),
        });
        self.edits.extend(set);
        let gone = self.changes.gone.iter().filter(|(kind, _)| *kind == T::NAME);
        self.edits.extend(gone.map(|(kind, key)| Edit { kind, key: key.clone(), now: None, was_there: true }));
    }
}
