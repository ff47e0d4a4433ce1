//! What one start of the benchmark has started, and where each way leads.

use std::path::{Path, PathBuf};

use crate::bench::cpus::Cpus;
use crate::bench::gateway::Gateway;
use crate::bench::lane::{Build, Way};
use crate::bench::peers::{Peer, Running};
use crate::bench::plain::{self, Plain};
use crate::bench::refusal::Refusal;
use crate::bench::sidecar::{Filter, Sidecars};
use crate::bench::tree::Tree;
use crate::setup::Tools;
use crate::workspace::Workspace;

/// All of it runs until this value is dropped.
pub struct Started {
    backend: u16,
    plain: Plain,
    noop: Plain,
    gateways: Vec<(Build, Gateway)>,
    sidecars: Option<Sidecars>,
    /// What did not start has its reason.
    peers: Vec<(Peer, Result<Running, Refusal>)>,
}

/// Where requests are sent, and the processes that are measured.
#[derive(Clone, Copy)]
pub struct Place {
    pub port: u16,
    pub tree: Tree,
}

/// What to start.
pub struct Setup<'a> {
    pub workspace: &'a Workspace,
    pub tools: &'a Tools,
    pub cpus: &'a Cpus,
    pub home: &'a Path,
    pub backend: u16,
    /// In the order in which they start.
    pub builds: Vec<(Build, PathBuf)>,
    pub sidecars: bool,
    pub peers: &'a [Peer],
}

// === impl Setup ===

impl Setup<'_> {
    pub fn start(&self) -> anyhow::Result<Started> {
        let Self { workspace, tools, cpus, home, backend, .. } = *self;
        // Their control plane and callers are no part of what is measured.
        let sidecars = self.sidecars.then(|| Sidecars::start(workspace, backend, home)).transpose()?;
        for envoy in sidecars.iter().flat_map(Sidecars::envoys) {
            cpus.give(envoy)?;
        }
        cpus.of_gateways(|| {
            let plain = plain::start(tools, backend, home)?;
            let noop = plain::with_noop(tools, backend, home)?;
            let mut gateways = Vec::new();
            for (build, tollgate) in &self.builds {
                let home = home.join(format!("build-{build:?}").to_lowercase());
                gateways.push((*build, Gateway::start(tools, tollgate, build.arguments(), backend, &home)?));
            }
            let start = |peer: &Peer| {
                println!("==> starting {}", peer.name());
                let running = peer.start(workspace, backend, &home.join(peer.name()));
                (*peer, running.map_err(|error| Refusal::skipped(&error)))
            };
            let peers = self.peers.iter().map(start).collect();
            Ok(Started { backend, plain, noop, gateways, sidecars, peers })
        })
    }
}

// === impl Build ===

impl Build {
    /// What `tollgate run` is given besides.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::This | Self::Other => &[],
            Self::Native => &["--filter", "native"],
        }
    }
}

// === impl Started ===

impl Started {
    pub fn place(&self, way: Way) -> Result<Place, Refusal> {
        let missing = || Refusal::Skipped { reason: "it was not started".to_owned() };
        let gateway = |build: Build| {
            self.gateways.iter().find(|(of, _)| *of == build).map(|(_, gateway)| gateway).ok_or_else(missing)
        };
        let plain = |plain: &Plain| Place { port: plain.port, tree: Tree::Below(plain.process.id()) };
        Ok(match way {
            Way::Direct => Place { port: self.backend, tree: Tree::Nothing },
            Way::Plain => plain(&self.plain),
            Way::Noop => plain(&self.noop),
            Way::Bare(build) => Place { port: gateway(build)?.bare, tree: gateway(build)?.tree() },
            Way::Chain(build) => Place { port: gateway(build)?.port, tree: gateway(build)?.tree() },
            Way::Sidecar(filter) => self.sidecar(filter).ok_or_else(missing)?,
            Way::Peer(peer) => {
                let (_, running) = self.peers.iter().find(|(of, _)| *of == peer).ok_or_else(missing)?;
                let running = running.as_ref().map_err(Clone::clone)?;
                Place { port: running.port, tree: Tree::Below(running.process.id()) }
            }
        })
    }

    fn sidecar(&self, filter: Filter) -> Option<Place> {
        let place = self.sidecars.as_ref()?.place(filter);
        Some(Place { port: place.port, tree: Tree::One(place.envoy) })
    }
}

// === impl Gateway ===

impl Gateway {
    fn tree(&self) -> Tree {
        Tree::With { root: self.control_plane.id(), envoy: self.envoy.id }
    }
}
