//! The objects of a cluster, as its watches tell of them one at a time: watch event -> here -> [`Changes`] -> `World::step`.
//!
//! It is for a cluster what the folder is for files. It knows what is in force, because a version that is refused leaves
//! the last good one of its object in force, and because [`Changes`] tell of refused objects all at once. It also says
//! which Secrets and ConfigMaps are referred to and which Pods are selected, because no others are to be read.
//!
//! A Gateway of another controller, and a route that has none of our Gateways, is not ours to answer for. If it is
//! refused, nobody is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::read;
use super::references::{Whose, is_our_class};
use super::secret::NoSecretSource;
use super::{
    Changes, ClusterVersion, EachKind, GatewayClass, Key, Kind, Meta, Needed, Object, Objects, Pod, Provenance,
    Refused, RefusedPolicy, Selection, each_kind,
};
use crate::sets::Changing;
use crate::status::{Finding, Origin, Reason, Severity};

#[derive(Debug, Default)]
pub struct Cluster {
    /// What is in force, and all of ours that is refused.
    objects: Objects,
    /// What became of it since somebody took the changes.
    changes: Changes,
    has_other_refused: bool,
    /// What is wrong with objects as they were given last.
    wrong: BTreeMap<Origin, Wrong>,
    /// The Secrets and ConfigMaps that objects refer to, each by some of them.
    needed: Changing<Needed>,
    /// The Pods that objects select.
    selected: Changing<Selection>,
}

#[derive(Debug)]
struct Wrong {
    version: ClusterVersion,
    findings: Vec<Finding>,
    whose: Whose,
    /// No version of it is in force.
    is_refused: bool,
}

/// It is no object that anything is made of here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnObject {
    #[error("it has no apiVersion or no kind (the items of a list leave them out: put those of the list in)")]
    Untyped,
    #[error("{kind} of {api_version} is not read here (watch only what is)")]
    Foreign { api_version: String, kind: String },
}

// === impl Cluster ===

impl Cluster {
    /// What is in force.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// What is wrong with the objects as they were given, except what is refused in parts: that is told by those who do
    /// without it.
    pub fn findings(&self) -> Vec<Finding> {
        let ours = self.wrong.values().filter(|wrong| self.is_ours(&wrong.whose));
        ours.flat_map(|wrong| &wrong.findings).cloned().collect()
    }

    /// Whether an object that is in force refers to this one.
    pub fn needs(&self, needed: &Needed) -> bool {
        self.needed.contains(needed)
    }

    /// The Secrets and ConfigMaps that were not referred to and are now, or the other way round, since this was asked
    /// last.
    pub fn other_needed(&mut self) -> BTreeSet<Needed> {
        self.needed.others()
    }

    /// Whether an object that is in force selects these Pods.
    pub fn selects(&self, selection: &Selection) -> bool {
        self.selected.contains(selection)
    }

    /// The Pods that were not selected and are now, or the other way round, since this was asked last.
    pub fn other_selected(&mut self) -> BTreeSet<Selection> {
        self.selected.others()
    }

    /// What became of the objects since this was asked last.
    pub fn changes(&mut self) -> Changes {
        let mut changes = std::mem::take(&mut self.changes);
        if std::mem::take(&mut self.has_other_refused) {
            let Objects { refused, refused_policies, .. } = &self.objects;
            changes.refused = Some(Refused { objects: refused.clone(), policies: refused_policies.clone() });
        }
        changes
    }

    /// Takes an object that is new, or a new version of one. An object that says the same as before changes nothing: its
    /// status is no input.
    ///
    /// # Errors
    /// When it is of no kind that is known here. An object that is refused is no error: findings tell of it.
    pub fn upsert(&mut self, mut document: Value) -> Result<(), NotAnObject> {
        let body = document.as_object().ok_or(NotAnObject::Untyped)?;
        let text = |name: &str| body.get(name).and_then(Value::as_str).ok_or(NotAnObject::Untyped);
        let (api_version, kind) = (text("apiVersion")?, text("kind")?);
        if !read::is_of_known_group(api_version, kind) {
            return Err(NotAnObject::Foreign { api_version: api_version.to_owned(), kind: kind.to_owned() });
        }
        let origin = read::origin(body);
        let version = version(&origin.kind, body);
        let whose = Whose::of(&origin.kind, &origin.namespace, body);
        let mut looking = Looking { objects: &self.objects, origin: &origin, found: None };
        each_kind(&mut looking);
        let is_the_same = match looking.found {
            Some(meta) => is_the_same(meta, &version, body),
            None => self.wrong.get(&origin).is_some_and(|wrong| wrong.version.is_the_same(&version)),
        };
        if is_the_same {
            return Ok(());
        }
        if let Some(Value::Object(metadata)) = document.get_mut("metadata") {
            // They are most of what a cluster says of an object, and nothing is made of them.
            metadata.shift_remove("managedFields");
        }
        let mut given = Objects::default();
        let mut findings = Vec::new();
        read::read(&mut given, Provenance::Cluster(version.clone()), document, &NoSecretSource, &mut findings);
        let mut taking = Taking { cluster: self, given: &given, origin: &origin, version: &version, kept: None };
        each_kind(&mut taking);
        let kept = taking.kept;
        let is_refused = given.refused.contains_key(&origin) && kept.is_none();
        self.forget_refused(&origin);
        if is_refused && !given.refused_policies.is_empty() {
            self.has_other_refused = true;
            self.objects.refused_policies.append(&mut given.refused_policies);
            self.objects.refused_policies.sort_by(|a, b| a.meta.origin.cmp(&b.meta.origin));
        }
        findings.extend(kept);
        if findings.is_empty() {
            self.wrong.remove(&origin);
        } else {
            let refuses = is_refused && self.is_ours(&whose);
            if refuses {
                self.has_other_refused = true;
                self.objects.refused.insert(origin.clone(), version.observed);
            }
            self.wrong.insert(origin.clone(), Wrong { version, findings, whose, is_refused });
        }
        self.sort_out(&origin.kind);
        Ok(())
    }

    /// An object is gone. Of kinds without a namespace the key has none.
    pub fn remove(&mut self, kind: &str, key: &Key) {
        each_kind(&mut Removing { cluster: self, kind, key });
        let origin = origin(kind, key);
        self.forget_refused(&origin);
        self.wrong.remove(&origin);
        self.sort_out(kind);
    }

    /// Whether there may be TokenPolicies that nobody lets us read, in a namespace or everywhere. They close all that they
    /// may have been meant for.
    pub fn has_unknown_policies(&mut self, namespace: Option<&str>, has: bool) {
        let unknown = RefusedPolicy::unknown(namespace);
        let policies = &mut self.objects.refused_policies;
        let is_unknown = |policy: &RefusedPolicy| policy.meta.origin == unknown.meta.origin;
        if policies.iter().any(is_unknown) == has {
            return;
        }
        policies.retain(|policy| !is_unknown(policy));
        if has {
            policies.push(unknown);
            policies.sort_by(|a, b| a.meta.origin.cmp(&b.meta.origin));
        }
        self.has_other_refused = true;
    }

    /// A watch began anew, and these are all objects of its kind, in this namespace if it is of one. Others are gone.
    pub fn keep_only(&mut self, kind: &str, namespace: Option<&str>, keys: &BTreeSet<Key>) {
        let mut listing = Listing { objects: &self.objects, kind, keys: BTreeSet::new() };
        each_kind(&mut listing);
        let mut known = listing.keys;
        known.extend(self.wrong.keys().filter(|origin| origin.kind == kind).map(Origin::key));
        known.retain(|key| namespace.is_none_or(|namespace| *key.namespace == *namespace));
        known.difference(keys).for_each(|key| self.remove(kind, key));
    }

    fn is_ours(&self, whose: &Whose) -> bool {
        let is_our_class = |class: &str| is_our_class(&self.objects.gateway_classes, class);
        match whose {
            Whose::Ours => true,
            Whose::OfClass(class) => is_our_class(class),
            Whose::OfGateways(gateways) => gateways.iter().any(|key| {
                let gateway = self.objects.gateways.get(&key.namespace, &key.name);
                gateway.is_some_and(|gateway| is_our_class(&gateway.spec.gateway_class_name))
                    || self.objects.refused.contains_key(&origin("Gateway", key))
            }),
        }
    }

    /// After a change of this kind, others may be ours that are refused.
    fn sort_out(&mut self, kind: &str) {
        let kinds: &[&str] = match kind {
            // Those of Gateways first, because routes are ours by them.
            "GatewayClass" => &["Gateway", "ListenerSet", "HTTPRoute", "GRPCRoute", "TLSRoute"],
            "Gateway" => &["ListenerSet", "HTTPRoute", "GRPCRoute", "TLSRoute"],
            _ => return,
        };
        for kind in kinds {
            let refused = self.wrong.iter().filter(|(origin, wrong)| wrong.is_refused && origin.kind == *kind);
            let sorted: Vec<_> = refused
                .map(|(origin, wrong)| (origin.clone(), wrong.version.observed, self.is_ours(&wrong.whose)))
                .collect();
            for (origin, generation, is_ours) in sorted {
                let refused = &mut self.objects.refused;
                let was_ours = if is_ours {
                    refused.insert(origin, generation).is_some()
                } else {
                    refused.remove(&origin).is_some()
                };
                self.has_other_refused |= is_ours != was_ours;
            }
        }
    }

    fn forget_refused(&mut self, origin: &Origin) {
        let Objects { refused, refused_policies, .. } = &mut self.objects;
        self.has_other_refused |= refused.remove(origin).is_some();
        refused_policies.retain(|policy| policy.meta.origin != *origin);
    }

    fn put<T: Kind>(&mut self, object: Arc<Object<T>>) {
        self.changes.gone.remove(&(T::NAME, object.meta.key()));
        T::store_mut(&mut self.changes.set).put(Arc::clone(&object));
        self.recount::<T>(&object.meta.key(), |objects| {
            T::store_mut(objects).put(object);
        });
    }

    fn take<T: Kind>(&mut self, key: &Key) {
        if T::store(&self.objects).get(&key.namespace, &key.name).is_some() {
            self.recount::<T>(key, |objects| {
                T::store_mut(objects).take(key);
            });
            T::store_mut(&mut self.changes.set).take(key);
            self.changes.gone.insert((T::NAME, key.clone()));
        }
    }

    /// Counts what the object of this key refers to, before and after a change.
    fn recount<T: Kind>(&mut self, key: &Key, change: impl FnOnce(&mut Objects)) {
        // What a class is decides for its Gateways.
        let is_class = T::NAME == GatewayClass::NAME;
        let named = |objects: &Objects| {
            if is_class {
                let gateways = objects.gateways.iter();
                gateways.flat_map(|gateway| needs(objects, gateway)).collect()
            } else {
                T::store(objects)
                    .get(&key.namespace, &key.name)
                    .map(|object| needs(objects, object))
                    .unwrap_or_default()
            }
        };
        let selected = |objects: &Objects| -> Vec<Selection> {
            T::store(objects).get(&key.namespace, &key.name).and_then(T::pods).into_iter().collect()
        };
        let before: (Vec<Needed>, Vec<Selection>) = (named(&self.objects), selected(&self.objects));
        change(&mut self.objects);
        self.needed.exchange(before.0, named(&self.objects));
        self.selected.exchange(before.1, selected(&self.objects));
    }
}

fn origin(kind: &str, key: &Key) -> Origin {
    Origin::new(super::kinds::named(kind), Arc::clone(&key.namespace), Arc::clone(&key.name))
}

/// What an object refers to. What only another controller acts on is not read.
fn needs<T: Kind>(objects: &Objects, object: &Object<T>) -> Vec<Needed> {
    if T::class(object).is_none_or(|class| is_our_class(&objects.gateway_classes, class)) {
        T::needs(object)
    } else {
        Vec::new()
    }
}

/// What the metadata of an object says of its version. A change of a status is none of the generation.
fn version(kind: &str, body: &Map<String, Value>) -> ClusterVersion {
    let metadata = body.get("metadata");
    let text = |name: &str| metadata.and_then(|all| all.get(name)).and_then(Value::as_str).unwrap_or_default().into();
    let generation = metadata.and_then(|all| all.get("generation")).and_then(Value::as_i64);
    let generation = generation.filter(|_| kind != Pod::NAME);
    ClusterVersion { uid: text("uid"), resource_version: text("resourceVersion"), generation, observed: generation }
}

/// Whether an object says what the known one says. Labels have no part in the generation.
fn is_the_same(known: &Meta, version: &ClusterVersion, body: &Map<String, Value>) -> bool {
    let before = known.provenance.cluster();
    before.is_some_and(|before| before.is_the_same(version)) && has_labels(body, &known.labels)
}

fn has_labels(body: &Map<String, Value>, labels: &BTreeMap<String, String>) -> bool {
    let given = body.get("metadata").and_then(|metadata| metadata.get("labels")).and_then(Value::as_object);
    let given = given.into_iter().flatten();
    let given: BTreeMap<&str, Option<&str>> = given.map(|(key, value)| (key.as_str(), value.as_str())).collect();
    given.len() == labels.len() && labels.iter().all(|(key, value)| given.get(key.as_str()) == Some(&Some(value)))
}

/// Looks an object up.
struct Looking<'a> {
    objects: &'a Objects,
    origin: &'a Origin,
    found: Option<&'a Meta>,
}

impl EachKind for Looking<'_> {
    fn kind<T: Kind>(&mut self) {
        if T::NAME == self.origin.kind {
            let object = T::store(self.objects).get(&self.origin.namespace, &self.origin.name);
            self.found = object.map(|object| &object.meta);
        }
    }
}

/// Puts the object that was read in force. If it was refused, the last good version of it stays.
struct Taking<'a> {
    cluster: &'a mut Cluster,
    given: &'a Objects,
    origin: &'a Origin,
    version: &'a ClusterVersion,
    /// Says that an older version is in force.
    kept: Option<Finding>,
}

impl EachKind for Taking<'_> {
    fn kind<T: Kind>(&mut self) {
        let Origin { kind, namespace, name, .. } = self.origin;
        if T::NAME != kind {
            return;
        }
        if let Some(object) = T::store(self.given).get_shared(namespace, name) {
            self.cluster.put(Arc::clone(object));
            return;
        }
        let last = T::store(&self.cluster.objects).get_shared(namespace, name).map(Arc::clone);
        let last = last.and_then(|last| Some((last.meta.provenance.cluster()?.clone(), last)));
        match last {
            Some((before, mut last)) if before.uid == self.version.uid => {
                let ClusterVersion { resource_version, observed, .. } = self.version.clone();
                let version = ClusterVersion { resource_version, observed, ..before };
                let which =
                    version.generation.map_or_else(String::new, |generation| format!(" of generation {generation}"));
                let message = format!("its version{which} stays in force");
                Arc::make_mut(&mut last).meta.provenance = Provenance::Cluster(version);
                self.kept =
                    Some(last.meta.finding(Severity::Warning, Reason::LastGood, "", message, super::LAST_GOOD_HINT));
                self.cluster.put(last);
            }
            // It is another object, and nothing of this one was ever good.
            _ => self.cluster.take::<T>(&self.origin.key()),
        }
    }
}

struct Removing<'a> {
    cluster: &'a mut Cluster,
    kind: &'a str,
    key: &'a Key,
}

impl EachKind for Removing<'_> {
    fn kind<T: Kind>(&mut self) {
        if T::NAME == self.kind {
            self.cluster.take::<T>(self.key);
        }
    }
}

struct Listing<'a> {
    objects: &'a Objects,
    kind: &'a str,
    keys: BTreeSet<Key>,
}

impl EachKind for Listing<'_> {
    fn kind<T: Kind>(&mut self) {
        if T::NAME == self.kind {
            self.keys.extend(T::store(self.objects).iter().map(|object| object.meta.key()));
        }
    }
}
