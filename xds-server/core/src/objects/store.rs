//! One object with where it came from, and the store of a kind.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Display;
use std::sync::Arc;

use crate::status::{Finding, Origin, Reason, Severity};

use super::{FileVersion, Key, Kind, Provenance, RefusedParts, Secret, redact};

/// What every object has besides its specification.
#[derive(Debug, Clone)]
pub struct Meta {
    pub origin: Origin,
    pub labels: BTreeMap<String, String>,
    /// Unix seconds of its creation where that is known, for precedence between routes.
    pub created: Option<i64>,
    /// It is being deleted.
    pub is_ending: bool,
    pub provenance: Provenance,
}

#[derive(Debug, Clone)]
pub struct Object<T> {
    pub meta: Meta,
    pub spec: T,
    /// Parts that are not in force although the object is. What the specification says of them counts for nothing. An
    /// object of a file has none.
    pub refused: RefusedParts,
}

/// All objects of one kind, in the order of their names. Copies share the objects.
#[derive(Debug, Clone)]
pub struct Store<T>(BTreeMap<Key, Arc<Object<T>>>);

// === impl Meta ===

impl Meta {
    pub fn namespace(&self) -> &str {
        &self.origin.namespace
    }

    pub fn name(&self) -> &str {
        &self.origin.name
    }

    pub fn key(&self) -> Key {
        self.origin.key()
    }

    /// None: it is of a cluster.
    pub fn file(&self) -> Option<&FileVersion> {
        self.provenance.file()
    }

    pub fn finding(
        &self,
        severity: Severity,
        reason: Reason,
        field: impl Display,
        message: impl Display,
        hint: impl Display,
    ) -> Finding {
        let field = field.to_string();
        Finding {
            severity,
            reason,
            origin: Some(Origin {
                kind: match &self.origin.kind {
                    Cow::Borrowed(known) => Cow::Borrowed(known),
                    Cow::Owned(kind) => redact::plain(kind).into(),
                },
                namespace: redact::plain(&self.origin.namespace).into(),
                name: redact::plain(&self.origin.name).into(),
                section: None,
            }),
            spot: self.provenance.spot(&field),
            field: redact::path(&field),
            message: redact::scrub(&message.to_string()),
            hint: redact::scrub(&hint.to_string()),
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
        self.0.get(&Key::new(namespace, name)).map(AsRef::as_ref)
    }

    /// The same as [`Self::get`], to share.
    pub fn get_shared(&self, namespace: &str, name: &str) -> Option<&Arc<Object<T>>> {
        self.0.get(&Key::new(namespace, name))
    }

    pub fn insert(&mut self, object: Object<T>) {
        self.0.insert(object.meta.key(), Arc::new(object));
    }

    /// Puts an object in. Returns the one that had its name.
    pub fn put(&mut self, object: Arc<Object<T>>) -> Option<Arc<Object<T>>> {
        self.0.insert(object.meta.key(), object)
    }

    /// Takes an object out.
    pub fn take(&mut self, key: &Key) -> Option<Arc<Object<T>>> {
        self.0.remove(key)
    }

    /// Takes an object of another store, unless there is one of this name.
    ///
    /// # Errors
    /// The object that is there.
    pub fn share(&mut self, object: &Arc<Object<T>>) -> Result<(), &Object<T>> {
        match self.0.entry(object.meta.key()) {
            Entry::Vacant(place) => {
                place.insert(Arc::clone(object));
                Ok(())
            }
            Entry::Occupied(first) => Err(first.into_mut()),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Object<T>> {
        self.0.values().map(AsRef::as_ref)
    }

    /// The same, to share.
    pub fn shared(&self) -> impl Iterator<Item = &Arc<Object<T>>> {
        self.0.values()
    }

    /// See [`Objects::resettle`](super::Objects::resettle).
    pub fn resettle(&mut self)
    where
        T: Clone,
    {
        let store = std::mem::take(&mut self.0);
        let resettled = |object: Arc<Object<T>>| match Arc::try_unwrap(object) {
            Ok(own) => {
                let mut object = own.clone();
                let Origin { namespace, name, .. } = &mut object.meta.origin;
                (*namespace, *name) = (namespace.as_ref().into(), name.as_ref().into());
                Arc::new(object)
            }
            Err(shared) => shared,
        };
        self.0 = store.into_values().map(resettled).map(|object| (object.meta.key(), object)).collect();
    }

    /// Those of one namespace, without a look at any other.
    pub fn of_namespace<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Object<T>> {
        let from_here = self.0.range(Key::new(namespace, "")..);
        from_here.take_while(move |(key, _)| *key.namespace == *namespace).map(|(_, object)| object.as_ref())
    }
}

impl<T: Kind> Store<T> {
    /// Notes since when each object is as it is: as before if it was the same in `last`, else from `now` on. An object
    /// that says and stands where it did before is shared with `last`, unless it is a Secret, which may have its values
    /// from elsewhere.
    pub fn date(&mut self, last: &Self, now: i64) {
        for (key, object) in &mut self.0 {
            let Some(file) = object.meta.file() else { continue };
            let before = last.0.get(key).and_then(|before| Some((before, before.meta.file()?)));
            let before = before.filter(|(_, before)| before.source == file.source);
            match before {
                Some((before, of_file)) if of_file.stands_where(file) && T::NAME != Secret::NAME => {
                    *object = Arc::clone(before);
                }
                _ => {
                    let since = before.map_or(now, |(_, before)| before.since);
                    let file = FileVersion { since, ..file.clone() };
                    Arc::make_mut(object).meta.provenance = Provenance::File(file);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::ClusterVersion;

    #[test]
    fn a_namespace_has_its_own_and_nothing_of_its_neighbours() {
        let object = |namespace: &str, name: &str| {
            let origin = Origin::new("Service", namespace, name);
            let meta = Meta {
                origin,
                labels: BTreeMap::new(),
                created: None,
                is_ending: false,
                provenance: Provenance::Cluster(ClusterVersion::default()),
            };
            Object { meta, spec: (), refused: RefusedParts::default() }
        };
        let mut store = Store::default();
        for (namespace, name) in [("a", "z"), ("b", "x"), ("b", "y"), ("b-c", "x"), ("c", "a")] {
            store.insert(object(namespace, name));
        }
        let names = |namespace: &str| -> Vec<String> {
            store.of_namespace(namespace).map(|object| object.meta.name().to_owned()).collect()
        };
        assert_eq!(names("b"), ["x", "y"]);
        assert_eq!(names("a"), ["z"]);
        assert!(names("bb").is_empty() && names("").is_empty());
    }
}
