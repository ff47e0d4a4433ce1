//! A Gateway and what listens for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::status::Origin;

use super::{Catalog, Domain, Route, SecretText, Service, Tunnel, values};

/// One Gateway with all that belongs to it, complete in itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gateway {
    pub origin: Origin,
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
    /// With any, TLS is terminated. The client's name and kinds of keys choose among them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<Certificate>,
    /// Present: clients are asked for a certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clients: Option<ClientAuthority>,
    #[serde(serialize_with = "values")]
    pub virtual_hosts: BTreeMap<Domain, Arc<VirtualHost>>,
    /// Present: connections are passed on as a whole, by the name that the client asks for, and there are no virtual
    /// hosts. Without a certificate their TLS is passed on too. A name without a tunnel is nobody's, and its connections
    /// are closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnels: Option<Tunnels>,
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

// === impl Site ===

impl Site {
    /// Its tunnels, once for each name that has it.
    pub fn tunnels(&self) -> impl Iterator<Item = &Tunnel> {
        self.tunnels.iter().flat_map(BTreeMap::values).flatten().map(AsRef::as_ref)
    }
}
