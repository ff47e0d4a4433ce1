//! Who calls: a proxy, a member of the mesh, or another replica of the control plane. The URI in the client certificate
//! says so, and TLS has already checked that the certificate is one of ours, or of the mesh. It is read once per connection
//! (`serve/incoming.rs`), and each call on that connection carries it.

use std::fmt;
use std::sync::Arc;

use tollgate_core::mesh::Mesh;
use tollgate_core::objects::Key;
use tollgate_core::scope::Scope;
use tonic::{Request, Status};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Whose connection it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    Proxy(Identity),
    /// On the port for sidecars. Each call says for which workload it is (`serve/sidecars/members.rs`).
    Member(Member),
    /// `spiffe://tollgate/control-plane`.
    Replica,
}

/// Who a proxy is. This decides what it may have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identity {
    /// `spiffe://tollgate/gateway`: every Gateway. The one Envoy of `tollgate run`, and the Pods of one fleet for all.
    AllGateways,
    /// One scope. `spiffe://tollgate/gateway/<namespace>/<name>` is a Gateway. No certificate names a workload: those of
    /// the mesh name an account, and what is published says for which workloads it may speak.
    Of(Scope),
}

/// The SPIFFE ID of an account in the mesh: `spiffe://<trust domain>/ns/<namespace>/sa/<account>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member(Arc<str>);

/// The certificate is of no member.
#[derive(Debug, thiserror::Error)]
#[error("the client certificate is of no member of the mesh; it needs one URI SAN spiffe://<trust domain>/...")]
pub struct InvalidMember;

/// The certificate names no Gateway.
#[derive(Debug, thiserror::Error)]
#[error("the client certificate names no gateway; it needs one URI SAN spiffe://tollgate/gateway/<namespace>/<name>")]
pub struct InvalidIdentity;

/// What the certificate of a replica says.
pub const REPLICA: &str = "spiffe://tollgate/control-plane";
const TRUST_DOMAIN: &str = "spiffe://tollgate";
const PREFIX: &str = "spiffe://tollgate/gateway";

// === impl Caller ===

impl Caller {
    /// # Errors
    /// When the certificate has not exactly one URI of ours.
    pub fn of_certificate(der: &[u8]) -> Result<Self, InvalidIdentity> {
        match only_uri(der)?.as_str() {
            REPLICA => Ok(Self::Replica),
            uri => uri.parse().map(Self::Proxy),
        }
    }

    /// Whether the call came over a connection of another replica.
    ///
    /// # Errors
    /// When it did not.
    pub fn is_replica<T>(request: &Request<T>) -> Result<(), Status> {
        match request.extensions().get() {
            Some(Self::Replica) => Ok(()),
            _ => Err(Status::permission_denied("only a replica of the control plane may ask this")),
        }
    }
}

// === impl Member ===

impl Member {
    /// # Errors
    /// When the certificate has not exactly one URI, in a trust domain of the mesh.
    pub fn of_certificate(der: &[u8], mesh: &Mesh) -> Result<Self, InvalidMember> {
        let uri = only_uri(der).map_err(|InvalidIdentity| InvalidMember)?;
        let rest = uri.strip_prefix("spiffe://").ok_or(InvalidMember)?;
        match rest.split_once('/') {
            Some((domain, path)) if !path.is_empty() && mesh.trust_domains().any(|own| own == domain) => {
                Ok(Self(uri.into()))
            }
            _ => Err(InvalidMember),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn only_uri(der: &[u8]) -> Result<String, InvalidIdentity> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| InvalidIdentity)?;
    let names = certificate.subject_alternative_name().ok().flatten().ok_or(InvalidIdentity)?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(uri),
        _ => Err(InvalidIdentity),
    }
}

// === impl Identity ===

impl Identity {
    /// Who calls.
    ///
    /// # Errors
    /// When the call did not come over a connection of a proxy.
    pub fn of_request<T>(request: &Request<T>) -> Result<&Self, Status> {
        let caller = request.extensions().get();
        proxy(caller).ok_or_else(|| Status::unauthenticated("no client certificate of a proxy"))
    }

    /// The same of a request of HTTP. None: it did not come over a connection of a proxy.
    pub fn of_extensions(extensions: &axum::http::Extensions) -> Option<&Self> {
        proxy(extensions.get())
    }

    pub fn of_gateway(namespace: &str, name: &str) -> Self {
        Self::Of(Scope::Gateway(Key::new(namespace, name)))
    }

    /// The one scope that the proxy is for. None: it is for all Gateways.
    pub fn scope(&self) -> Option<&Scope> {
        match self {
            Self::AllGateways => None,
            Self::Of(scope) => Some(scope),
        }
    }

    /// # Errors
    /// When the certificate has not exactly one URI of ours.
    pub fn of_certificate(der: &[u8]) -> Result<Self, InvalidIdentity> {
        only_uri(der)?.parse()
    }

    /// The one that another replica tells of. It may be of a workload, too.
    ///
    /// # Errors
    /// When the text is of no proxy.
    pub fn of_replica(text: &str) -> Result<Self, InvalidIdentity> {
        let path = text.strip_prefix(TRUST_DOMAIN).and_then(|path| path.strip_prefix('/'));
        match path.map(str::parse) {
            Some(Ok(scope @ Scope::Workload { .. })) => Ok(Self::Of(scope)),
            _ => text.parse(),
        }
    }
}

fn proxy(caller: Option<&Caller>) -> Option<&Identity> {
    match caller {
        Some(Caller::Proxy(identity)) => Some(identity),
        Some(Caller::Member(_) | Caller::Replica) | None => None,
    }
}

impl std::str::FromStr for Identity {
    type Err = InvalidIdentity;

    fn from_str(uri: &str) -> Result<Self, InvalidIdentity> {
        let path = uri.strip_prefix(PREFIX).ok_or(InvalidIdentity)?;
        if path.is_empty() {
            return Ok(Self::AllGateways);
        }
        match path.strip_prefix('/').and_then(|path| path.split_once('/')) {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::of_gateway(namespace, name))
            }
            _ => Err(InvalidIdentity),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllGateways => f.write_str(PREFIX),
            Self::Of(scope @ Scope::Gateway(_)) => write!(f, "{PREFIX}/{scope}"),
            Self::Of(scope @ Scope::Workload { .. }) => write!(f, "{TRUST_DOMAIN}/{scope}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use tollgate_core::placement::Direction;

    use super::*;

    #[test]
    fn uris() {
        let parse = |uri: &str| uri.parse::<Identity>().ok();
        assert_eq!(parse("spiffe://tollgate/gateway"), Some(Identity::AllGateways));
        let one = parse("spiffe://tollgate/gateway/default/llm").unwrap();
        assert_eq!(one, Identity::of_gateway("default", "llm"));
        assert_eq!(one.to_string(), "spiffe://tollgate/gateway/default/llm");
        for bad in [
            "spiffe://other/gateway",
            "spiffe://tollgate/gateway/",
            "spiffe://tollgate/gateway/a",
            "spiffe://tollgate/gateways",
            "spiffe://tollgate/gateway//x",
            "spiffe://tollgate/gateway/a/b/c",
            "spiffe://tollgate/workload/a/b/inbound",
            REPLICA,
            "spiffe://cluster.local/ns/a/sa/b",
            "",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    /// The ledger keeps its books by this text.
    #[test]
    fn a_workload_is_named_by_replicas_and_by_no_certificate() {
        let (service, direction) = (Key::new("default", "runner"), Direction::Inbound);
        let workload = Identity::Of(Scope::Workload { service, direction });
        assert_eq!(workload.to_string(), "spiffe://tollgate/workload/default/runner/inbound");
        assert!(workload.to_string().parse::<Identity>().is_err());
        for identity in [workload, Identity::AllGateways, Identity::of_gateway("default", "llm")] {
            assert_eq!(Identity::of_replica(&identity.to_string()).unwrap(), identity);
        }
        for bad in ["spiffe://tollgate/default/llm", "spiffe://other/workload/a/b/inbound", "workload/a/b/inbound"] {
            assert!(Identity::of_replica(bad).is_err(), "{bad}");
        }
    }
}
