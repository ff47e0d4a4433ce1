//! The objects by which istiod programs sidecars for us. The leader keeps them in the cluster.

use std::fmt;

use serde_json::Value;

use crate::terms::Key;

/// One object, for server-side apply.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    pub name: KeptName,
    /// The Service that it is for.
    pub service: Key,
    pub document: Value,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeptName {
    pub kind: KeptKind,
    pub key: Key,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeptKind {
    EnvoyFilter,
    HttpRoute,
}

// === impl KeptName ===

impl fmt::Display for KeptName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.key)
    }
}

// === impl KeptKind ===

impl KeptKind {
    pub const ALL: [Self; 2] = [Self::EnvoyFilter, Self::HttpRoute];

    /// Group, version and kind.
    pub fn type_of(self) -> [&'static str; 3] {
        match self {
            Self::EnvoyFilter => ["networking.istio.io", "v1alpha3", "EnvoyFilter"],
            Self::HttpRoute => ["gateway.networking.k8s.io", "v1", "HTTPRoute"],
        }
    }
}

impl fmt::Display for KeptKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [.., kind] = self.type_of();
        f.write_str(kind)
    }
}
