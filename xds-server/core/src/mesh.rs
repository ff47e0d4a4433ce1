//! The mesh that the proxies of Gateways are part of: Istio's, whose workload certificates they show and ask for.
//!
//! A workload is in the mesh if its Pod has the label that Istio's injection gives it. Its identity is that of its service
//! account (SPIFFE ID: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`).

use crate::objects::{Key, Meta, Pod};

/// The label of Pods that can be spoken to by the mesh's TLS, and its value. Other proxies go by it too.
pub const TLS_MODE: (&str, &str) = ("security.istio.io/tlsMode", "istio");
/// What has Istio put its agent into a Pod, and its agent alone: the Envoy is ours. A label and an annotation.
pub const INJECTED: (&str, &str) = ("sidecar.istio.io/inject", "true");
pub const AGENT_ALONE: (&str, &str) = ("inject.istio.io/templates", "grpc-agent");

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mesh {
    /// The domain that new certificates are for.
    pub trust_domain: String,
    /// Domains that certificates may be for as well, as while a mesh changes its domain.
    pub aliases: Vec<String>,
    /// The domain of Services, such as `cluster.local`.
    pub cluster_domain: String,
    /// The folder on the machine of each proxy where Istio's agent keeps the proxy's certificate.
    pub certificates: String,
}

// === impl Mesh ===

impl Mesh {
    /// The certificate chain, the private key and the authorities, in PEM, as Istio's agent names them (`OUTPUT_CERTS`).
    pub const FILES: [&str; 3] = ["cert-chain.pem", "key.pem", "root-cert.pem"];

    /// Whether a Pod is in the mesh.
    pub fn has(meta: &Meta) -> bool {
        let (label, value) = TLS_MODE;
        meta.labels.get(label).is_some_and(|mode| mode == value)
    }

    /// The identities that a workload may show. Empty: it is outside of the mesh.
    pub fn identities(&self, pod: &Pod, meta: &Meta) -> Vec<String> {
        if !Self::has(meta) {
            return Vec::new();
        }
        self.identities_of(&Key::new(meta.namespace(), &*pod.service_account))
    }

    /// Those of whoever has this service account.
    pub fn identities_of(&self, account: &Key) -> Vec<String> {
        let Key { namespace, name } = account;
        self.trust_domains().map(|domain| format!("spiffe://{domain}/ns/{namespace}/sa/{name}")).collect()
    }

    /// The domains that certificates may be for.
    pub fn trust_domains(&self) -> impl Iterator<Item = &str> {
        [&self.trust_domain].into_iter().chain(&self.aliases).map(String::as_str)
    }

    /// The identities that are the same workload's as this one: that of each domain, if it is of one of them.
    pub fn aliases_of(&self, identity: &str) -> Vec<String> {
        let path = self.trust_domains().find_map(|domain| {
            let path = identity.strip_prefix("spiffe://")?.strip_prefix(domain)?;
            path.starts_with('/').then_some(path)
        });
        match path {
            Some(path) => self.trust_domains().map(|domain| format!("spiffe://{domain}{path}")).collect(),
            None => vec![identity.to_owned()],
        }
    }

    /// The server name of TLS to a port, as Istio's own proxies write it.
    pub fn server_name(host: &str, port: u16) -> String {
        format!("outbound_.{port}_._.{host}")
    }

    /// The name of a Service.
    pub fn host(&self, namespace: &str, service: &str) -> String {
        format!("{service}.{namespace}.svc.{}", self.cluster_domain)
    }
}
