//! Records what changes of the configuration, object by object and key by key, for the audit log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tollgate_core::ir;
use tollgate_core::objects::{Changes, Edit, Objects, Provenance};
use tollgate_core::status::{Finding, Origin, Severity, Spot};

use super::ends;
use crate::audit::{Action, Audit, Event};

/// Their changes are nobody's decision.
const OF_THE_CLUSTER: [&str; 2] = ["EndpointSlice", "Pod"];

#[derive(Debug)]
pub struct Edits {
    audit: Audit,
    /// The objects that were given and not taken.
    refused: BTreeSet<Origin>,
    /// By name, to say whose a key was that is gone.
    keys: BTreeMap<String, Arc<ir::Key>>,
}

// === impl Edits ===

impl Edits {
    pub fn new(audit: Audit) -> Self {
        Self { audit, refused: BTreeSet::new(), keys: BTreeMap::new() }
    }

    /// These changes are about to be taken over.
    pub fn objects(&self, before: &Objects, changes: &Changes) {
        let edits = before.edits(changes);
        edits.iter().filter(|edit| !OF_THE_CLUSTER.contains(&edit.kind)).for_each(|edit| self.object(edit));
    }

    /// What is wrong with the objects that were given. One with an error is not in force.
    pub fn refused(&mut self, findings: &[Finding]) {
        let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
        let refused: BTreeMap<Origin, Option<Spot>> =
            errors.filter_map(|error| Some((whole(error.origin.as_ref()?), error.spot.clone()))).collect();
        for (origin, spot) in refused.iter().filter(|(origin, _)| !self.refused.contains(*origin)) {
            self.audit.record(Event::Configuration {
                action: Action::Refused,
                kind: &origin.kind,
                namespace: &origin.namespace,
                name: &origin.name,
                generation: None,
                resource_version: None,
                file: spot.as_ref().map(|spot| format!("{}:{}", spot.file, spot.line)),
                spec: None,
            });
        }
        self.refused = refused.into_keys().collect();
    }

    fn object(&self, Edit { kind, key, now, was_there }: &Edit) {
        let action = match (now, was_there) {
            (None, _) => Action::Removed,
            (Some(_), true) => Action::Changed,
            (Some(_), false) => Action::Added,
        };
        let version = now.as_ref().map(|now| &now.provenance);
        let cluster = version.and_then(Provenance::cluster);
        let spot = version.and_then(|version| version.spot(""));
        self.audit.record(Event::Configuration {
            action,
            kind,
            namespace: &key.namespace,
            name: &key.name,
            generation: cluster.and_then(|version| version.generation),
            resource_version: cluster.map(|version| &*version.resource_version),
            file: spot.map(|spot| format!("{}:{}", spot.file, spot.line)),
            spec: now.as_ref().map(|now| digest(&now.shown)),
        });
    }

    /// Keys with these names came, went, or are others now.
    pub fn keys(&mut self, changed: &BTreeSet<String>, now: &BTreeMap<String, Arc<ir::Key>>) {
        for name in changed {
            let (action, key) = match (self.keys.get(name).cloned(), now.get(name)) {
                (None, Some(key)) => (Action::Added, Arc::clone(key)),
                (Some(before), Some(key)) if before != *key => (Action::Changed, Arc::clone(key)),
                (Some(before), None) => (Action::Removed, before),
                _ => continue,
            };
            ends::record(&key, action, &self.audit);
            match action {
                Action::Removed => drop(self.keys.remove(name)),
                _ => drop(self.keys.insert(name.clone(), key)),
            }
        }
    }
}

fn whole(origin: &Origin) -> Origin {
    Origin { section: None, ..origin.clone() }
}

fn digest(text: &str) -> String {
    let mut digest = hex::encode(Sha256::digest(text));
    digest.truncate(32);
    digest
}
