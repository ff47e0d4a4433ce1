//! A workload of the mesh, as its sidecars see it in one direction.

use std::collections::{BTreeMap, BTreeSet};

use serde::ser::{Serialize, SerializeStruct as _, Serializer};

use crate::status::{Membership, Origin};

use super::{Catalog, ConsumerNamespaces};

/// A model as a workload is asked for it, and how ModelPools that lead there name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct AskedModel {
    /// Without the trailing `*` of a prefix.
    pub name: String,
    pub prefix: bool,
    /// In budgets and usage rows, with the trailing `*`.
    pub counts_as: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// The Service by which it is called.
    pub origin: Origin,
    /// Its classes have no pool: a request goes where it would go without us.
    pub catalog: Catalog,
    /// Whose Consumers count there. It is the namespace of the Service, never all.
    pub consumers: ConsumerNamespaces,
    /// No two have the same name. What is none of them counts as `*`.
    pub models: Vec<AskedModel>,
    /// The labels of its Pods. There is always one: without any, the filter would be in every sidecar of the namespace.
    pub selector: BTreeMap<String, String>,
    /// The ports of its Pods on which requests to the Service arrive.
    pub ports: BTreeSet<u16>,
    /// The SPIFFE IDs of its Pods, which may ask for what it serves.
    pub identities: BTreeSet<String>,
    /// Its Pods by name, ready or not.
    pub pods: BTreeMap<String, Membership>,
}

// === impl Workload ===

impl Workload {
    /// What stands in usage rows in the place of a route.
    pub fn route(&self) -> String {
        format!("service/{}", self.origin.display_name())
    }
}

impl Serialize for Workload {
    /// A Gateway's classes stand in its routes. A workload has no routes, so here they are told.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Workload", 9)?;
        fields.serialize_field("origin", &self.origin)?;
        fields.serialize_field("scope", &self.catalog.scope)?;
        fields.serialize_field("consumers", &self.consumers)?;
        if self.catalog.claim_sets.is_empty() {
            fields.skip_field("claim_sets")?;
        } else {
            fields.serialize_field("claim_sets", &self.catalog.claim_sets)?;
        }
        if self.models.is_empty() {
            fields.skip_field("models")?;
        } else {
            fields.serialize_field("models", &self.models)?;
        }
        fields.serialize_field("selector", &self.selector)?;
        fields.serialize_field("ports", &self.ports)?;
        fields.serialize_field("identities", &self.identities)?;
        fields.serialize_field("pods", &self.pods)?;
        fields.serialize_field("classes", &self.catalog.classes)?;
        fields.end()
    }
}
