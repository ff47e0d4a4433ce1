//! `--placement`, for the commands that must know it.

use clap::ValueEnum;
use tollgate_core::objects::Key;
use tollgate_core::placement::{Direction, Placement};
use tollgate_core::terms::names::is_dns_label;

use crate::source::Source;

#[derive(Debug, Clone, clap::Args)]
pub struct Placements {
    /// Where the proxies run, and who programs them [default: one-host for a folder, proxy-per-gateway for a cluster]
    #[arg(long, value_enum)]
    placement: Option<Name>,
    /// In a cluster: the same proxies serve all Gateways. It is the name of the Service that leads to them, whose address
    /// and ports the Gateways have, and of the service account that they run as
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = fleet, conflicts_with = "placement")]
    fleet: Option<Key>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Name {
    /// All Gateways are opened on the same addresses, by one Envoy or several; a port belongs to one Gateway
    OneHost,
    /// Each Gateway has Envoys of its own, whose certificates name it; several Gateways may have the same port
    ProxyPerGateway,
    /// Sidecars, which istiod programs, for the requests to their workloads; no Gateway is opened. Only for translate
    /// and validate
    SidecarInbound,
    /// The same for the requests of their workloads to the Services that are parents of a ModelPool
    SidecarOutbound,
}

/// The placement is not one that this version can serve.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} is a placement of tollgate translate and tollgate validate (sidecars are served beside Gateways, with --sidecars)"
)]
pub struct NotServed(String);

// === impl Placements ===

impl Placements {
    pub fn get(&self, source: &Source) -> Placement {
        if let Some(fleet) = &self.fleet {
            return Placement::OneFleet(fleet.clone());
        }
        match (self.placement, source) {
            (Some(Name::OneHost), _) | (None, Source::Folder(_)) => Placement::OneHost,
            // The Gateways of a cluster have Services, and so addresses, of their own.
            (Some(Name::ProxyPerGateway), _) | (None, Source::Kubernetes(_)) => Placement::ProxyPerGateway,
            (Some(Name::SidecarInbound), _) => Placement::Sidecar(Direction::Inbound),
            (Some(Name::SidecarOutbound), _) => Placement::Sidecar(Direction::Outbound),
        }
    }

    /// Whether nothing of Gateways is asked for.
    pub fn is_sidecar(&self) -> bool {
        matches!(self.placement, Some(Name::SidecarInbound | Name::SidecarOutbound))
    }

    /// The same for a command that serves proxies.
    ///
    /// # Errors
    /// When they are sidecars.
    pub fn served(&self, source: &Source) -> Result<Placement, NotServed> {
        match self.get(source) {
            Placement::Sidecar(direction) => Err(NotServed(format!("sidecar-{direction}"))),
            placement @ (Placement::OneHost | Placement::ProxyPerGateway | Placement::OneFleet(_)) => Ok(placement),
        }
    }
}

fn fleet(text: &str) -> Result<Key, &'static str> {
    match text.split_once('/') {
        Some((namespace, name)) if is_dns_label(namespace) && is_dns_label(name) => Ok(Key::new(namespace, name)),
        _ => Err("not NAMESPACE/NAME"),
    }
}
