//! Whole connections that are passed on, told apart by the name that the client asks for (SNI).

use serde::Serialize;

use crate::status::Origin;

/// Where a TLSRoute leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tunnel {
    pub origin: Origin,
    pub services: Vec<TunnelService>,
    /// The weight of references that cannot be used. Their share of connections is closed.
    pub invalid: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TunnelService {
    /// Cluster name.
    pub service: String,
    pub weight: u32,
}
