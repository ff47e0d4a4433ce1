//! A stage of the translation, remembered: what was made of each object of a kind, and what was read for it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use crate::objects::{Key, Kind, Object, Objects};
use crate::sets::take_out;
use crate::status::Finding;
use crate::translate::made::Made;
use crate::translate::view::{Fact, Reads, View};

/// What changed in this step, so far.
#[derive(Debug, Default)]
pub struct Dirty {
    /// The objects of each kind that are new, changed or gone.
    pub objects: BTreeMap<&'static str, BTreeSet<Key>>,
    pub facts: HashSet<Fact>,
}

#[derive(Debug)]
pub struct Memo<O> {
    units: BTreeMap<Arc<Key>, Unit<O>>,
    /// Those of units that have any.
    findings: BTreeMap<Arc<Key>, Vec<Finding>>,
    readers: BTreeMap<Fact, BTreeSet<Arc<Key>>>,
    /// The units that were asked in the last step.
    asked: BTreeSet<Arc<Key>>,
}

#[derive(Debug)]
struct Unit<O> {
    /// None: nothing can be made of the object.
    output: Option<Arc<O>>,
    reads: Box<[Fact]>,
}

/// A unit whose output is another one now.
#[derive(Debug)]
pub struct Turn<O, K = Key> {
    pub key: Arc<K>,
    pub before: Option<Arc<O>>,
    pub after: Option<Arc<O>>,
}

// === impl Dirty ===

impl Dirty {
    pub fn note(&mut self, kind: &'static str, key: Key, comes_or_goes: bool) {
        let Key { namespace, name } = &key;
        self.facts.insert(Fact::object(kind, namespace, name));
        self.facts.insert(Fact::namespace(kind, namespace));
        if comes_or_goes {
            self.facts.insert(Fact::names(kind, namespace));
            self.facts.insert(Fact::namespaces(kind, name));
        }
        self.objects.entry(kind).or_default().insert(key);
    }

    pub fn has<T: Kind>(&self) -> bool {
        self.objects.contains_key(T::NAME)
    }

    /// The objects of this kind.
    pub fn of<T: Kind>(&self) -> impl Iterator<Item = &Key> {
        self.objects.get(T::NAME).into_iter().flatten()
    }
}

// === impl Memo ===

impl<O> Default for Memo<O> {
    fn default() -> Self {
        Self { units: BTreeMap::new(), findings: BTreeMap::new(), readers: BTreeMap::new(), asked: BTreeSet::new() }
    }
}

impl<O: PartialEq> Memo<O> {
    /// Asks again the units whose object changed, and those that read what changed. Returns those that say something
    /// else now.
    pub fn step<T: Kind>(
        &mut self,
        objects: &Objects,
        made: &Made,
        dirty: &Dirty,
        mut unit: impl FnMut(View<'_>, &Object<T>, &mut Vec<Finding>) -> Option<O>,
    ) -> Vec<Turn<O>> {
        let own = dirty.of::<T>().map(|key| Arc::new(key.clone()));
        let readers = dirty.facts.iter().filter_map(|fact| self.readers.get(fact)).flatten().map(Arc::clone);
        let due: BTreeSet<Arc<Key>> = own.chain(readers).collect();
        let mut turns = Vec::new();
        for key in &due {
            let key = Arc::clone(key);
            let mut findings = Vec::new();
            let reads = Reads::default();
            let object = T::store(objects).get(&key.namespace, &key.name);
            let output = object.and_then(|object| unit(View::new(objects, made, &reads), object, &mut findings));
            let before = match object {
                Some(_) => self.replace(&key, output, reads.into_facts(), findings),
                None => self.remove(&key),
            };
            let after = self.output(&key);
            if before.as_deref() != after.as_deref() {
                turns.push(Turn { key, before, after });
            }
        }
        self.asked = due;
        turns
    }

    /// Returns the output until now.
    fn replace(
        &mut self,
        key: &Arc<Key>,
        output: Option<O>,
        reads: BTreeSet<Fact>,
        findings: Vec<Finding>,
    ) -> Option<Arc<O>> {
        if findings.is_empty() {
            self.findings.remove(key);
        } else {
            self.findings.insert(Arc::clone(key), findings);
        }
        let before = self.units.remove(key);
        let last = before.as_ref().map_or(&[][..], |unit| &unit.reads);
        for fact in last.iter().filter(|fact| !reads.contains(fact)) {
            take_out(&mut self.readers, fact, key);
        }
        for fact in reads.iter().filter(|fact| last.binary_search(fact).is_err()) {
            self.readers.entry(*fact).or_default().insert(Arc::clone(key));
        }
        let before = before.and_then(|unit| unit.output);
        // What is the same stays the same in memory.
        let output = match (&before, output) {
            (Some(before), Some(output)) if **before == output => Some(Arc::clone(before)),
            (_, output) => output.map(Arc::new),
        };
        self.units.insert(Arc::clone(key), Unit { output, reads: reads.into_iter().collect() });
        before
    }

    /// Returns the output until now.
    fn remove(&mut self, key: &Key) -> Option<Arc<O>> {
        self.findings.remove(key);
        let unit = self.units.remove(key)?;
        for fact in &unit.reads {
            take_out(&mut self.readers, fact, key);
        }
        unit.output
    }

    pub fn output(&self, key: &Key) -> Option<Arc<O>> {
        self.units.get(key).and_then(|unit| unit.output.clone())
    }

    pub fn outputs(&self) -> impl Iterator<Item = (&Arc<Key>, &Arc<O>)> {
        self.units.iter().filter_map(|(key, unit)| Some((key, unit.output.as_ref()?)))
    }

    pub fn findings_of(&self, key: &Key) -> &[Finding] {
        self.findings.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    /// The units that were asked in the last step, whatever they said.
    pub fn asked(&self) -> impl Iterator<Item = &Key> {
        self.asked.iter().map(AsRef::as_ref)
    }

    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.findings.values().flatten()
    }
}
