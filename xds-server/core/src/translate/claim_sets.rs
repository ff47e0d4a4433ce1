//! Which claims the filter in the sidecars of a namespace looks at: those that its Consumers ask for. A filter looks at so
//! many sets of claims and no more, because each costs every request with a JWT. The others are left out, and their
//! Consumers say so.

use std::collections::{BTreeMap, BTreeSet};

use tollgate_proto::jwt::MAX_SETS;

use crate::ir::{ClaimSet, Key, Proof};
use crate::objects::{Consumer, Object};
use crate::status::{Finding, Reason, Severity};

/// The sets that the Consumers of one namespace ask for, each with the keys that are known by it.
#[derive(Debug, Default)]
pub struct ClaimSets(BTreeMap<ClaimSet, BTreeSet<String>>);

// === impl ClaimSets ===

impl ClaimSets {
    /// Returns whether there is another set now.
    pub fn add(&mut self, key: &Key) -> bool {
        let Proof::Jwt(proof) = &key.proof else { return false };
        let keys = self.0.entry(proof.claim_set()).or_default();
        keys.insert(proof.name().to_owned());
        keys.len() == 1
    }

    /// Returns whether there is one set less now.
    pub fn remove(&mut self, key: &Key) -> bool {
        let Proof::Jwt(proof) = &key.proof else { return false };
        let set = proof.claim_set();
        let Some(keys) = self.0.get_mut(&set) else { return false };
        keys.remove(proof.name());
        keys.is_empty() && self.0.remove(&set).is_some()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first ones, in the order of issuers and names.
    pub fn looked_at(&self) -> BTreeSet<ClaimSet> {
        self.0.keys().take(MAX_SETS).cloned().collect()
    }

    /// The names of the keys that nobody can show, because their sets are left out.
    pub fn left_out(&self) -> impl Iterator<Item = &str> {
        self.0.values().skip(MAX_SETS).flatten().map(String::as_str)
    }
}

/// What is said of a Consumer whose claims are left out.
pub fn left_out(consumer: &Object<Consumer>) -> Finding {
    let message = format!("the Consumers of the namespace ask for more than {MAX_SETS} different sets of claims");
    let hint = "these are not looked at; ask for the same claims of an issuer in several Consumers";
    consumer.meta.finding(Severity::Error, Reason::TooManyClaims, "spec.claims", message, hint)
}
