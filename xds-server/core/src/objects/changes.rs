//! What became of objects between two moments.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{EachKind, Key, Kind, Objects, RefusedPolicy, each_kind};
use crate::status::Origin;

#[derive(Debug, Default, Clone)]
pub struct Changes {
    /// New objects, and new versions of objects. Only its stores count.
    pub set: Objects,
    /// Kind and name of each object that is gone.
    pub gone: BTreeSet<(&'static str, Key)>,
    /// Absent: no object is refused that was not, and none is taken that was.
    pub refused: Option<Refused>,
}

/// All objects that were given and not taken. See [`Objects`].
#[derive(Debug, Default, Clone)]
pub struct Refused {
    pub objects: BTreeMap<Origin, Option<i64>>,
    pub policies: Vec<RefusedPolicy>,
}

/// What one file says, before and after it changed. A new file said nothing before, and a file that is gone says
/// nothing now.
#[derive(Debug, Clone, Copy)]
pub struct Replaced<'a> {
    pub before: Option<&'a Objects>,
    pub after: Option<&'a Objects>,
}

// === impl Refused ===

impl Refused {
    /// The objects that are refused in one of two sets and not in the other, or with another generation.
    pub fn others<'a>(&'a self, before: &'a BTreeMap<Origin, Option<i64>>) -> impl Iterator<Item = &'a Origin> {
        let gone = before.keys().filter(|origin| !self.objects.contains_key(*origin));
        let new = self.objects.iter().filter(|(origin, generation)| before.get(*origin) != Some(*generation));
        gone.chain(new.map(|(origin, _)| origin))
    }
}

// === impl Changes ===

impl Changes {
    pub fn is_empty(&self) -> bool {
        let mut counting = Counting { objects: &self.set, is_empty: true };
        each_kind(&mut counting);
        counting.is_empty && self.gone.is_empty() && self.refused.is_none()
    }

    /// What made `after` of `before`. Objects that both share are the same without a look into them.
    pub fn between(before: &Objects, after: &Objects) -> Self {
        let mut changes = Self::of(before, after);
        let no_policies = before.refused_policies.is_empty() && after.refused_policies.is_empty();
        if before.refused != after.refused || !no_policies {
            let (objects, policies) = (after.refused.clone(), after.refused_policies.clone());
            changes.refused = Some(Refused { objects, policies });
        }
        changes
    }

    /// What files change that say something else now. `all` is what all files said before: each object once, and nothing
    /// refused. None: the files have an object twice now, and only a look at all of them says which one counts.
    pub fn of_files(all: &Objects, files: &[Replaced<'_>]) -> Option<Self> {
        let (mut before, mut after) = (Objects::default(), Objects::default());
        for file in files {
            let twice = file.before.is_some_and(|objects| !before.merge(objects).is_empty())
                || file.after.is_some_and(|objects| !after.merge(objects).is_empty());
            if twice {
                return None;
            }
        }
        let changes = Self::of(&before, &after);
        let mut elsewhere = Elsewhere { before: &before, all, set: &changes.set, found: false };
        each_kind(&mut elsewhere);
        let found = elsewhere.found;
        (!found).then_some(changes)
    }

    /// What became of the objects in the stores.
    fn of(before: &Objects, after: &Objects) -> Self {
        let mut comparing = Comparing { before, after, changes: Self::default() };
        each_kind(&mut comparing);
        comparing.changes
    }
}

// === impl Objects ===

impl Objects {
    /// Takes changes. Says the kind and name of each object that changed, and whether it came or went.
    pub fn apply(&mut self, changes: Changes, each: &mut impl FnMut(&'static str, Key, bool)) {
        let Changes { mut set, gone, refused } = changes;
        each_kind(&mut Applying { objects: self, set: &mut set, gone: &gone, each });
        if let Some(Refused { objects, policies }) = refused {
            self.refused = objects;
            self.refused_policies = policies;
        }
    }
}

struct Counting<'a> {
    objects: &'a Objects,
    is_empty: bool,
}

impl EachKind for Counting<'_> {
    fn kind<T: Kind>(&mut self) {
        self.is_empty &= T::store(self.objects).is_empty();
    }
}

struct Comparing<'a> {
    before: &'a Objects,
    after: &'a Objects,
    changes: Changes,
}

impl EachKind for Comparing<'_> {
    fn kind<T: Kind>(&mut self) {
        let (before, after) = (T::store(self.before), T::store(self.after));
        let set = T::store_mut(&mut self.changes.set);
        for object in after.shared() {
            let (namespace, name) = (object.meta.namespace(), object.meta.name());
            if !before.get_shared(namespace, name).is_some_and(|before| Arc::ptr_eq(before, object)) {
                set.put(Arc::clone(object));
            }
        }
        let gone = before.iter().filter(|object| after.get(object.meta.namespace(), object.meta.name()).is_none());
        self.changes.gone.extend(gone.map(|object| (T::NAME, object.meta.key())));
    }
}

/// Finds out whether a file that did not change has an object that is set.
struct Elsewhere<'a> {
    before: &'a Objects,
    all: &'a Objects,
    set: &'a Objects,
    found: bool,
}

impl EachKind for Elsewhere<'_> {
    fn kind<T: Kind>(&mut self) {
        let (before, all) = (T::store(self.before), T::store(self.all));
        self.found |= T::store(self.set).iter().any(|object| {
            let (namespace, name) = (object.meta.namespace(), object.meta.name());
            before.get(namespace, name).is_none() && all.get(namespace, name).is_some()
        });
    }
}

struct Applying<'a, F> {
    objects: &'a mut Objects,
    set: &'a mut Objects,
    gone: &'a BTreeSet<(&'static str, Key)>,
    each: &'a mut F,
}

impl<F: FnMut(&'static str, Key, bool)> EachKind for Applying<'_, F> {
    fn kind<T: Kind>(&mut self) {
        let ours = T::store_mut(self.objects);
        if ours.is_empty() {
            // At the start that is all there is.
            *ours = std::mem::take(T::store_mut(self.set));
            ours.iter().for_each(|object| (self.each)(T::NAME, object.meta.key(), true));
            return;
        }
        for object in T::store(self.set).shared() {
            let is_new = ours.put(Arc::clone(object)).is_none();
            (self.each)(T::NAME, object.meta.key(), is_new);
        }
        for (_, key) in self.gone.iter().filter(|(kind, _)| *kind == T::NAME) {
            if ours.take(key).is_some() {
                (self.each)(T::NAME, key.clone(), true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::objects::{Namespace, NoSecretSource, Service};

    /// A file with these objects, each in one of two versions.
    fn file(number: usize, objects: &BTreeMap<u8, bool>) -> Objects {
        let documents: Vec<String> = objects
            .iter()
            .map(|(name, version)| {
                let (kind, body) = if name % 2 == 0 { ("Namespace", "") } else { ("Service", "spec: {}\n") };
                format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: o{name}, labels: {{v: v-{version}}}}}\n{body}")
            })
            .collect();
        let mut file = Objects::default();
        assert_eq!(file.add_yaml(&format!("{number}.yaml"), &documents.join("---\n"), &NoSecretSource), []);
        file
    }

    fn of_all(files: &[Option<Objects>]) -> (Objects, bool) {
        let mut all = Objects::default();
        let mut twice = false;
        for file in files.iter().flatten() {
            twice |= !all.merge(file).is_empty();
        }
        (all, twice)
    }

    fn shown(objects: &Objects) -> String {
        format!("{:?} {:?}", objects.namespaces, objects.services)
    }

    /// A file that cannot be read may hold policies for anything, though no object is known to be refused.
    #[test]
    fn a_refused_policy_that_comes_or_goes_is_a_change() {
        let nothing = Objects::default();
        let mut unreadable = Objects::default();
        unreadable.add_unreadable("a.yaml");
        let policies = |before, after| Changes::between(before, after).refused.map(|refused| refused.policies.len());
        assert_eq!(policies(&nothing, &nothing), None);
        assert_eq!(policies(&nothing, &unreadable), Some(1));
        assert_eq!(policies(&unreadable, &nothing), Some(0));
    }

    proptest! {
        /// Some of three files say something else now, are new or are gone.
        #[test]
        fn what_files_change_is_what_lies_between_all_files(
            before in prop::collection::vec(prop::option::of(prop::collection::btree_map(0_u8..12, any::<bool>(), 0..5)), 3),
            after in prop::collection::vec(prop::option::of(prop::collection::btree_map(0_u8..12, any::<bool>(), 0..5)), 3),
            which in prop::collection::vec(any::<bool>(), 3),
        ) {
            let decode = |files: Vec<Option<BTreeMap<u8, bool>>>| -> Vec<Option<Objects>> {
                files.iter().enumerate().map(|(number, objects)| Some(file(number, objects.as_ref()?))).collect()
            };
            let before = decode(before);
            let mut now = before.clone();
            let mut replaced = Vec::new();
            for (((now, before), after), _) in now.iter_mut().zip(&before).zip(decode(after)).zip(which).filter(|(_, which)| *which) {
                *now = after;
                replaced.push((before, now.clone()));
            }
            let replaced: Vec<Replaced<'_>> =
                replaced.iter().map(|(before, after)| Replaced { before: before.as_ref(), after: after.as_ref() }).collect();
            let ((mut all, was_twice), (expected, is_twice)) = (of_all(&before), of_all(&now));
            prop_assume!(!was_twice);
            let changes = Changes::of_files(&all, &replaced);
            prop_assert_eq!(changes.is_none(), is_twice);
            if let Some(changes) = changes {
                let mut told = BTreeSet::new();
                all.apply(changes, &mut |kind, key, _| {
                    told.insert((kind, key));
                });
                prop_assert_eq!(shown(&all), shown(&expected));
                let between = Changes::between(&of_all(&before).0, &expected);
                let set = between.set.namespaces.iter().map(|object| (Namespace::NAME, object.meta.key()));
                let set = set.chain(between.set.services.iter().map(|object| (Service::NAME, object.meta.key())));
                prop_assert_eq!(told, set.chain(between.gone).collect());
            }
        }
    }
}
