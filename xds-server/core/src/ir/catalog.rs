//! What the filter in a proxy must know to decide about requests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use crate::scope::Scope;

use super::{Backend, ClaimSet, Class, Pool};

/// All that the filter of one scope knows, besides keys and limits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Catalog {
    #[serde(skip)]
    pub scope: Scope,
    /// Whether some listener takes members of the mesh alone, so that the identities of callers are known there.
    #[serde(skip)]
    pub has_members: bool,
    /// What the requests have in common that the filter decides about.
    #[serde(skip)]
    pub classes: BTreeSet<Class>,
    /// What Consumers ask of JWTs.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub claim_sets: BTreeSet<ClaimSet>,
    /// By `namespace/name`.
    pub pools: BTreeMap<String, Arc<Pool>>,
    /// By cluster name.
    pub backends: BTreeMap<String, Arc<Backend>>,
}

// === impl Catalog ===

impl Catalog {
    pub fn new(scope: Scope) -> Self {
        Self {
            scope,
            has_members: false,
            classes: BTreeSet::new(),
            claim_sets: BTreeSet::new(),
            pools: BTreeMap::new(),
            backends: BTreeMap::new(),
        }
    }

    /// Ids of the limits that hold for some requests.
    pub fn limits(&self) -> impl Iterator<Item = &str> {
        self.classes.iter().flat_map(|class| &class.limits).map(String::as_str)
    }
}
