//! Where proxies run, and what follows from that for the translation.

use std::fmt;

/// Which Gateways share an Envoy, or at least its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placement {
    /// All Gateways are opened on the same addresses, and one Envoy may serve all of
    /// them.
    #[default]
    OneHost,
    /// Each Gateway has proxies of its own, and no proxy serves another one.
    ProxyPerGateway,
}

/// Which requests a sidecar sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Those to its workload.
    Inbound,
    /// Those of its workload to others.
    Outbound,
}

// === impl Placement ===

impl Placement {
    /// Whether a port belongs to one Gateway, because all are opened on the same addresses.
    pub fn shares_ports(self) -> bool {
        self == Self::OneHost
    }

    /// Whether one Envoy may serve all Gateways. Then a cluster is the same for all of them.
    pub fn shares_proxies(self) -> bool {
        self == Self::OneHost
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        })
    }
}
