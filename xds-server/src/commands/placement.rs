//! `--placement`, for the commands that must know it.

use clap::ValueEnum;
use tollgate_core::placement::Placement;

#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Placements {
    /// Where the proxies of Gateways run
    #[arg(long, value_enum, default_value = "one-host")]
    placement: Name,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Name {
    /// All Gateways are opened on the same addresses, by one Envoy or several; a port belongs to one Gateway
    OneHost,
    /// Each Gateway has Envoys of its own, whose certificates name it; several Gateways may have the same port
    ProxyPerGateway,
}

// === impl Placements ===

impl Placements {
    pub fn get(self) -> Placement {
        match self.placement {
            Name::OneHost => Placement::OneHost,
            Name::ProxyPerGateway => Placement::ProxyPerGateway,
        }
    }
}
