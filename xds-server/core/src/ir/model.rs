//! Pools of models, and the backends and Services behind them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

pub use crate::objects::{Access, OnPickerFailure, Schema, Timeouts};
use crate::status::Origin;

use super::{Name, SecretText};

/// What cluster names of backends begin with; the namespace and the name follow.
pub const BACKEND_PREFIX: &str = "backend/";

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pool {
    pub origin: Origin,
    /// `namespace/name`.
    pub name: String,
    pub access: Access,
    pub consumers: ConsumerNamespaces,
    pub models: Vec<Model>,
}

/// The namespaces whose Consumers a pool accepts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum ConsumerNamespaces {
    All,
    Only(BTreeSet<String>),
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Model {
    /// Without the trailing `*` of a prefix.
    pub name: String,
    pub prefix: bool,
    pub targets: Vec<Target>,
    /// Attempts after the first.
    pub retries: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Target {
    /// Cluster name of the backend.
    pub backend: String,
    /// What the backend calls the model. Absent: the name that the client asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    pub weight: u32,
    pub priority: u32,
}

/// A ModelBackend that some pool of the Gateway uses.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Backend {
    pub origin: Origin,
    /// `backend/<namespace>/<name>`.
    pub cluster: String,
    pub schema: Schema,
    pub endpoint: Endpoint,
    pub tls: Tls,
    pub path_prefix: String,
    /// The `:authority` of requests to it.
    pub authority: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
    pub timeouts: Timeouts,
    /// Every attempt is rewritten for its own backend and counted. This is so if some model that names the backend has
    /// more than one target, or more than one retry.
    pub per_attempt: bool,
    /// The Service whose sidecars have the filter, and are told what a request is charged to.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "service_as_text")]
    pub hands_over: Option<Name>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Endpoint {
    Address {
        ip: IpAddr,
        port: u16,
    },
    Dns {
        hostname: String,
        port: u16,
    },
    /// Cluster name of a Service of the Gateway.
    Service {
        cluster: String,
    },
    /// The same of an InferencePool. The endpoint with the fewest requests is taken.
    InferencePool {
        cluster: String,
        h2c: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Tls {
    None,
    /// The certificates of the mesh.
    Istio {
        /// None: nobody is known who could be there, so nobody is reached.
        #[serde(skip_serializing_if = "Option::is_none")]
        peers: Option<Arc<Peers>>,
        to: MeshTo,
    },
    /// The certificate is checked against the authority and the name.
    Simple {
        sni: String,
        ca: Authority,
    },
}

/// Who may be at the other side of the mesh's TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Peers {
    pub server_name: String,
    /// SPIFFE IDs, sorted; a certificate is for one of them. There is one at least.
    pub identities: Vec<String>,
}

/// Which endpoints are reached by the mesh's TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum MeshTo {
    All,
    /// Those that are in the mesh. The others are spoken to in plain text.
    Members,
}

/// Who is trusted to sign a backend's certificate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Authority {
    /// The authorities that the proxy's machine trusts.
    System,
    Certificate {
        origin: Origin,
        name: String,
        pem: SecretText,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Credential {
    /// The Secret.
    pub origin: Origin,
    pub secret: SecretText,
}

/// A port of a Service, or an InferencePool, that requests are routed to, with its endpoints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Service {
    pub origin: Origin,
    /// `service/<namespace>/<name>/<port>` or `inferencepool/<namespace>/<name>`. With `/h2c` behind it, it speaks HTTP/2
    /// because a GRPCRoute leads to it; with `/picker`, because it picks endpoints of an InferencePool.
    pub cluster: String,
    /// Whether it speaks HTTP/2 without TLS.
    pub h2c: bool,
    /// Whether it speaks WebSocket.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub websocket: bool,
    /// Present: it is reached by TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Arc<ServiceTls>>,
    /// The endpoints that are in the mesh. None: there are none. Where `tls` is present, that holds for all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<Arc<Peers>>,
    #[serde(skip_serializing_if = "Choice::is_by_turns")]
    pub choice: Choice,
    pub endpoints: Vec<ServiceEndpoint>,
}

/// Who chooses the endpoint of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub enum Choice {
    #[default]
    ByTurns,
    /// The proxy, by how many requests each has.
    LeastBusy,
    /// Somebody else. If nothing is picked and the request is not refused for it, the same as `LeastBusy`.
    Picked(Arc<Picker>),
}

/// Who picks an endpoint of an InferencePool for each request (GIE's proposal 004, Endpoint Picker Protocol).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Picker {
    /// Cluster name.
    pub service: String,
    /// The `:authority` of calls to it.
    pub authority: String,
    pub on_failure: OnPickerFailure,
}

/// How a Service is reached by TLS.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum ServiceTls {
    Verified {
        /// The policy.
        origin: Origin,
        sni: String,
        /// The certificate has one of these.
        names: Vec<SubjectName>,
        ca: Authority,
    },
    /// The policy is invalid, so nobody reaches the Service.
    Closed { origin: Origin },
    /// Without a policy: whoever answers is believed. An endpoint picker makes a certificate for itself.
    Unverified,
}

/// A name that a certificate may be for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum SubjectName {
    /// Its first label may be `*`.
    Dns(String),
    Uri(String),
}

/// Where one replica of a Service is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ServiceEndpoint {
    pub ip: IpAddr,
    pub port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<Arc<str>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_in_mesh: bool,
}

// === impl Choice ===

impl Choice {
    pub fn picker(&self) -> Option<&Arc<Picker>> {
        match self {
            Self::Picked(picker) => Some(picker),
            Self::ByTurns | Self::LeastBusy => None,
        }
    }

    fn is_by_turns(&self) -> bool {
        *self == Self::ByTurns
    }
}

// === impl ServiceTls ===

impl ServiceTls {
    /// The BackendTLSPolicy that says so.
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            Self::Verified { origin, .. } | Self::Closed { origin } => Some(origin),
            Self::Unverified => None,
        }
    }
}

// === impl ConsumerNamespaces ===

impl ConsumerNamespaces {
    pub fn include(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(namespace),
        }
    }

    /// Includes what the other one includes, too.
    pub fn extend(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::All, _) => {}
            (_, Self::All) => *self = Self::All,
            (Self::Only(names), Self::Only(more)) => names.extend(more.iter().cloned()),
        }
    }
}

impl Default for ConsumerNamespaces {
    /// None.
    fn default() -> Self {
        Self::Only(BTreeSet::new())
    }
}

fn service_as_text<S: serde::Serializer>(service: &Option<Name>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{}", service.as_ref().map(ToString::to_string).unwrap_or_default()))
}
