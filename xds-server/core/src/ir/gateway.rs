//! A Gateway and what listens for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::mesh::Mesh;
use crate::status::Origin;

use super::{Catalog, Domain, JwtIssuer, Route, SecretText, Service, Tunnel, values};

/// One Gateway with all that belongs to it, complete in itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gateway {
    pub origin: Origin,
    #[serde(skip_serializing_if = "ClientCertificate::is_none")]
    pub client_certificate: ClientCertificate,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub jwt_issuers: Vec<JwtIssuer>,
    /// The mesh that its proxies are in.
    #[serde(skip)]
    pub mesh: Option<Arc<Mesh>>,
    pub listeners: Vec<Listener>,
    #[serde(flatten)]
    pub catalog: Catalog,
    /// By cluster name.
    pub services: BTreeMap<String, Arc<Service>>,
}

/// One port. The listeners of the Gateway that share it are its sites.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listener {
    pub port: u16,
    pub sites: Vec<Site>,
}

/// One listener of the Gateway.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Site {
    /// Its section is the listener's name.
    pub origin: Origin,
    pub name: Arc<str>,
    /// `*` for every hostname.
    pub hostname: String,
    #[serde(flatten)]
    pub tls: SiteTls,
    #[serde(serialize_with = "values")]
    pub virtual_hosts: BTreeMap<Domain, Arc<VirtualHost>>,
    /// Present: connections are passed on as a whole, by the name that the client asks for, and there are no virtual
    /// hosts. Without a certificate their TLS is passed on too. A name without a tunnel is nobody's, and its connections
    /// are closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnels: Option<Tunnels>,
}

/// How TLS is terminated.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum SiteTls {
    /// It is not.
    None {},
    Certificates {
        /// At least one. The client's name and kinds of keys choose among them.
        certificates: Vec<Certificate>,
        /// Present: clients are asked for a certificate.
        #[serde(skip_serializing_if = "Option::is_none")]
        clients: Option<ClientAuthority>,
    },
    /// By the proxy's certificate in its mesh, for members of the mesh.
    Mesh {
        /// The domains of the mesh that clients may be of.
        trust_domains: Vec<String>,
    },
}

pub type Tunnels = BTreeMap<Domain, Option<Arc<Tunnel>>>;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Certificate {
    pub origin: Origin,
    /// `namespace/name` of the Secret.
    pub name: String,
    pub chain: SecretText,
    pub private_key: SecretText,
}

/// What a Gateway shows to backends that it speaks TLS to.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub enum ClientCertificate {
    #[default]
    None,
    Shown(Certificate),
    /// It is to show one that cannot be had. It speaks TLS to nobody until then: a backend might take it for somebody else.
    Missing,
}

/// Who signs the certificates of clients.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClientAuthority {
    pub origin: Origin,
    pub name: String,
    pub pem: SecretText,
    /// Clients without a certificate of its are let in as well.
    pub is_optional: bool,
}

/// What is served under one hostname. Its routes are in the order in which they are tried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VirtualHost {
    pub domain: Domain,
    pub routes: Vec<Arc<Route>>,
}

// === impl Gateway ===

impl Gateway {
    /// The name of a cluster as this Gateway has it. One Envoy may serve several Gateways. So with a certificate to show, or
    /// without the one that it should show, the clusters of a Gateway are its own.
    pub fn own_cluster(&self, cluster: &str) -> String {
        match self.client_certificate {
            ClientCertificate::None => cluster.to_owned(),
            ClientCertificate::Shown(_) | ClientCertificate::Missing => format!("{cluster}/of/{}", self.origin.key()),
        }
    }

    /// Every route, once for each virtual host that has it.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.listeners
            .iter()
            .flat_map(|listener| &listener.sites)
            .flat_map(|site| site.virtual_hosts.values())
            .flat_map(|host| &host.routes)
            .map(AsRef::as_ref)
    }

    /// Every tunnel, once for each name that has it.
    pub fn tunnels(&self) -> impl Iterator<Item = &Tunnel> {
        self.listeners.iter().flat_map(|listener| &listener.sites).flat_map(Site::tunnels)
    }
}

// === impl ClientCertificate ===

impl ClientCertificate {
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    pub fn shown(&self) -> Option<&Certificate> {
        match self {
            Self::Shown(certificate) => Some(certificate),
            Self::None | Self::Missing => None,
        }
    }
}

// === impl Site ===

impl Site {
    pub fn terminates_tls(&self) -> bool {
        !matches!(self.tls, SiteTls::None {})
    }

    pub fn is_for_members(&self) -> bool {
        matches!(self.tls, SiteTls::Mesh { .. })
    }

    /// Its tunnels, once for each name that has it.
    pub fn tunnels(&self) -> impl Iterator<Item = &Tunnel> {
        self.tunnels.iter().flat_map(BTreeMap::values).flatten().map(AsRef::as_ref)
    }
}
