//! A Service at which callers in the mesh ask for models (its frontend, GEP-1324), as their sidecars must know it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::status::Origin;
use crate::terms::Key;

use super::{ConsumerNamespaces, Pool};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Frontend {
    /// The pool.
    pub origin: Origin,
    #[serde(serialize_with = "as_text")]
    pub service: Key,
    /// The name by which callers know the Service.
    pub host: String,
    /// The ports of the Service.
    pub ports: BTreeSet<u16>,
    /// The namespaces whose workloads have the filter.
    pub callers: ConsumerNamespaces,
    /// Its models have the targets that sidecars reach, and no others.
    pub pool: Pool,
    /// By cluster name.
    pub runners: BTreeMap<String, Runner>,
}

/// A ModelBackend that is a Service of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Runner {
    #[serde(serialize_with = "as_text")]
    pub backend: Key,
    #[serde(serialize_with = "as_text")]
    pub service: Key,
    pub port: u16,
    pub path_prefix: String,
}

fn as_text<S: serde::Serializer>(key: &Key, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(key)
}
