//! What the filter of any scope is told of its surroundings: where its code is, and how it reaches the control plane.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::core::v3::GrpcService;
use envoy_types::pb::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use prost::Message as _;
use thiserror::Error;

/// The Envoy cluster of the control plane in the bootstrap of the proxies that we program.
pub const CONTROL_CLUSTER: &str = "tollgate_control";

/// What the surroundings add to the filter's configuration.
#[derive(Debug, Clone)]
pub struct FilterSetup {
    pub code: FilterCode,
    pub runtime: Runtime,
    pub control_cluster: ControlCluster,
    /// Whom sidecars believe about what a request is charged to: the SPIFFE IDs of the proxies of Gateways.
    pub gateways: BTreeSet<String>,
    pub fields: RequestFields,
}

/// Whether the filter says in filter state what it knows of each request, for access logs and spans (docs/signals.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RequestFields {
    #[default]
    Kept,
    Told,
}

/// As what the proxies of Gateways run the filter. Sidecars run it as WebAssembly, whatever is said here.
#[derive(Debug, Clone)]
pub enum Runtime {
    /// In a sandbox of Envoy's.
    Wasm,
    /// As a dynamic module, machine code inside Envoy. This is the module.
    Native(FilterCode),
}

/// How Envoy gets the filter's code.
#[derive(Debug, Clone)]
pub enum FilterCode {
    /// A file on Envoy's machine.
    File(String),
    /// Fetched from the control plane by HTTP, through its cluster.
    Remote { sha256: String, path: String },
    /// Fetched by Istio's agent, which puts a file in its place before Envoy sees it. An agent that cannot fetch it tries again
    /// when istiod sends the filter again, and not before. So `teller` is another with each control plane that begins to tell of
    /// the code: it makes the EnvoyFilter another one, and means nothing to agents and to Envoy.
    ByAgent { sha256: String, uri: String, teller: String },
}

/// The cluster through which a proxy reaches the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlCluster {
    /// The static one of our bootstrap, which the proxies of Gateways have.
    Bootstrap,
    /// The one that istiod makes of our Service in every sidecar, under the mTLS of the mesh.
    Istio(IstioCluster),
}

/// The port of a Service, as the filter in a sidecar names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IstioCluster {
    host: String,
    port: u16,
}

/// A filter has no way to name the Service.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "the host {host} is too long by {excess} characters for filters in sidecars (hint: give the Service a shorter name)"
)]
pub struct HostTooLong {
    host: String,
    excess: usize,
}

/// The authority of calls from sidecars. Envoy would take the name of the cluster, and `|` is no character of an authority:
/// the control plane's HTTP/2 would end the connection.
const AUTHORITY: &str = "tollgate";

/// A filter gives Envoy this message as text. So long, its inner length is one byte of ASCII.
const MAX_BYTES: usize = 127;

// === impl FilterSetup ===

impl FilterSetup {
    /// In the proxies of Gateways.
    pub fn of_gateways(code: FilterCode) -> Self {
        let (runtime, control_cluster) = (Runtime::Wasm, ControlCluster::Bootstrap);
        Self { code, runtime, control_cluster, gateways: BTreeSet::new(), fields: RequestFields::Kept }
    }

    /// The same, run in another way.
    #[must_use]
    pub fn with_runtime(self, runtime: Runtime) -> Self {
        Self { runtime, ..self }
    }

    /// The same, and the filter tells as much as this.
    #[must_use]
    pub fn telling(self, fields: RequestFields) -> Self {
        Self { fields, ..self }
    }
}

// === impl ControlCluster ===

impl ControlCluster {
    pub fn name(&self) -> String {
        match self {
            Self::Bootstrap => CONTROL_CLUSTER.to_owned(),
            Self::Istio(cluster) => cluster.name(),
        }
    }

    /// What a filter calls (`RequestStage.control_cluster`).
    pub fn service(&self) -> String {
        match self {
            Self::Bootstrap => CONTROL_CLUSTER.to_owned(),
            // It is ASCII, as `IstioCluster::new` makes sure.
            Self::Istio(cluster) => String::from_utf8(cluster.message().encode_to_vec()).unwrap_or_default(),
        }
    }

    /// The authority of requests to the control plane.
    pub fn host(&self) -> &str {
        match self {
            Self::Bootstrap => CONTROL_CLUSTER,
            Self::Istio(cluster) => &cluster.host,
        }
    }
}

// === impl IstioCluster ===

impl IstioCluster {
    /// # Errors
    /// When the host is too long, or is not ASCII.
    pub fn new(host: impl Into<String>, port: u16) -> Result<Self, HostTooLong> {
        let cluster = Self { host: host.into(), port };
        let inner = cluster.grpc().encoded_len();
        if inner > MAX_BYTES || !cluster.host.is_ascii() {
            return Err(HostTooLong { excess: inner.saturating_sub(MAX_BYTES), host: cluster.host });
        }
        Ok(cluster)
    }

    /// As istiod names the clusters of the requests that a sidecar sends.
    fn name(&self) -> String {
        format!("outbound|{}||{}", self.port, self.host)
    }

    fn grpc(&self) -> EnvoyGrpc {
        EnvoyGrpc { cluster_name: self.name(), authority: AUTHORITY.to_owned(), ..Default::default() }
    }

    fn message(&self) -> GrpcService {
        GrpcService { target_specifier: Some(TargetSpecifier::EnvoyGrpc(self.grpc())), ..Default::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_names_istiods_cluster_and_an_authority() {
        let cluster = IstioCluster::new("tollgate.tollgate-system.svc.cluster.local", 18002).unwrap();
        let service = ControlCluster::Istio(cluster).service();
        let read = GrpcService::decode(service.as_bytes()).unwrap();
        let Some(TargetSpecifier::EnvoyGrpc(grpc)) = read.target_specifier else { panic!("{read:?}") };
        assert_eq!(grpc.cluster_name, "outbound|18002||tollgate.tollgate-system.svc.cluster.local");
        assert_eq!(grpc.authority, "tollgate");
    }

    #[test]
    fn a_host_that_does_not_fit_is_refused_and_the_longest_is_not() {
        let fits = |len: usize| IstioCluster::new("h".repeat(len), 18002);
        let longest = (1..200).take_while(|len| fits(*len).is_ok()).last().unwrap();
        let service = ControlCluster::Istio(fits(longest).unwrap()).service();
        assert!(GrpcService::decode(service.as_bytes()).is_ok_and(|read| read.target_specifier.is_some()));
        assert_eq!(service.len(), MAX_BYTES + 2);
        assert_eq!(fits(longest + 3).unwrap_err().excess, 3);
        assert!(IstioCluster::new("b\u{fc}cher.example", 1).is_err());
    }
}
