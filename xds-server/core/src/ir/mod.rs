//! What the configuration means, free of Kubernetes and of Envoy. Every value is valid and carries its origin.

mod catalog;
mod delta;
mod frontend;
mod gateway;
mod jwt;
mod model;
mod route;
mod tunnel;
mod workload;

pub use catalog::Catalog;
pub use delta::{Delta, GatewayDelta, Host, PartsDelta};
pub use frontend::{Frontend, Runner};
pub use gateway::{
    Certificate, ClientAuthority, ClientCertificate, Gateway, Listener, Site, SiteTls, Tunnels, VirtualHost,
};
pub use jwt::{ClaimSet, JwtIssuer, JwtKeys, JwtProof};
pub use model::{
    Access, Authority, BACKEND_PREFIX, Backend, Choice, ConsumerNamespaces, Credential, Endpoint, MeshTo, Model,
    OnPickerFailure, Peers, Picker, Pool, Schema, Service, ServiceEndpoint, ServiceTls, SubjectName, Target, Timeouts,
    Tls,
};
pub use route::{
    Action, Class, Cors, Edits, HeaderEdits, HeaderMatch, Match, Mirror, OriginMatch, PathMatch, PathRewrite, Redirect,
    Retry, Rewrite, Route, Session, TextMatch, WeightedService, nobody_there,
};
pub use tunnel::{Tunnel, TunnelService};
pub use workload::{AskedModel, Workload};

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tollgate_proto::v1::CountWeights;

use crate::status::Origin;
use crate::terms::Key as Name;
pub use crate::terms::duration::{duration_as_text, optional_duration};
pub use crate::terms::{
    CalendarUnit, Domain, Mode, OnEarlyEnd, OnLedgerUnavailable, ScopePart, SecretText, Thresholds, Window,
};

/// The whole configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Ir {
    #[serde(serialize_with = "values")]
    pub gateways: BTreeMap<Name, Gateway>,
    /// By Service.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", serialize_with = "values")]
    pub workloads: BTreeMap<Name, Arc<Workload>>,
    /// By Service.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", serialize_with = "values")]
    pub frontends: BTreeMap<Name, Arc<Frontend>>,
    /// By name.
    #[serde(serialize_with = "values")]
    pub keys: BTreeMap<String, Arc<Key>>,
    /// By id.
    #[serde(serialize_with = "values")]
    pub limits: BTreeMap<String, Arc<Limit>>,
}

/// One key of one Consumer, or one identity or JWT that stands for a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Key {
    pub origin: Origin,
    #[serde(flatten)]
    pub proof: Proof,
    /// Display name of the Consumer.
    pub consumer: String,
    pub labels: BTreeMap<String, String>,
    /// Unix seconds after which it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<i64>,
    pub models: AllowedModels,
}

/// What its callers show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// Lowercase hex SHA-256 of the key; 64 characters.
    Sha256(String),
    /// A SPIFFE ID, in their certificate of the mesh.
    Identity(String),
    /// A JWT that Envoy has verified.
    Jwt(JwtProof),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum AllowedModels {
    All,
    /// Names; a trailing `*` matches a prefix.
    Only(Vec<String>),
}

/// One limit of one TokenPolicy, as the filter and the ledger both know it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Limit {
    pub origin: Origin,
    /// `namespace/policy/limit`.
    pub id: String,
    /// Display name of the policy.
    pub policy: String,
    pub name: String,
    pub tokens: u64,
    pub window: Window,
    pub scope: Vec<ScopePart>,
    #[serde(serialize_with = "count_as_text")]
    pub count: CountWeights,
    pub mode: Mode,
    pub on_ledger_unavailable: OnLedgerUnavailable,
    pub on_early_end: OnEarlyEnd,
    #[serde(skip_serializing_if = "Thresholds::is_default")]
    pub warn_at: Thresholds,
}

// === impl Proof ===

impl Proof {
    /// How it is told apart from all others. No hash looks like an identity, or like the name of a JWT's claims.
    pub fn name(&self) -> &str {
        match self {
            Self::Sha256(name) | Self::Identity(name) => name,
            Self::Jwt(proof) => proof.name(),
        }
    }
}

/// A map as the list of its values, which have their names in themselves.
fn values<K, V: Serialize, S: serde::Serializer>(map: &BTreeMap<K, V>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(map.values())
}

fn count_as_text<S: serde::Serializer>(count: &CountWeights, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!(
        "{} + {}*input + {}*output + {}*cached + {}*reasoning",
        count.constant, count.input, count.output, count.cached, count.reasoning
    ))
}
