//! Where the proxies of Gateways run, and what follows from that for the translation.

/// Which Gateways share an Envoy, or at least its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placement {
    /// All Gateways are opened on the same addresses, and one Envoy may serve all of them. So a port belongs to one
    /// Gateway, and a cluster is the same for all.
    #[default]
    OneHost,
    /// Each Gateway has proxies of its own, and no proxy serves another one. So its ports and clusters are its own.
    ProxyPerGateway,
}
