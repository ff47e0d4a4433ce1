//! A lab with Tollgate in it, one Gateway, and what its two processes use.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::api::Api;
use super::asker::PACE;
use super::client::{Client, Probe};
use super::routes;
use super::stats::{self, Threads};
use crate::lab::Lab;
use crate::lab::network::Network;
use crate::process;
use crate::tools::Tools;

/// All routes are made by then, and served.
const PATIENCE: Duration = Duration::from_secs(300);
/// What the control plane has sent to Envoy, as Envoy counts it.
const RECEIVED: &str = "envoy_cluster_upstream_cx_rx_bytes_total{envoy_cluster_name=\"tollgate_control\"} ";
/// Where a proxy tells it.
const STATUS_PORT: u16 = 15021;

pub struct Cluster {
    pub client: Client,
    pub api: Api,
    network: Network,
    /// Where the Gateway's proxy tells how it is.
    status: SocketAddr,
    server: u32,
    envoy: u32,
    /// It ends when this is dropped.
    _lab: Lab,
}

/// A moment from which on CPU time is counted.
pub struct Window {
    since: Instant,
    server: Threads,
    envoy: Threads,
}

/// Milliseconds of CPU time in a window: the control plane's, and Envoy's.
pub struct Used {
    pub elapsed: Duration,
    pub cpu: [f64; 2],
}

// === impl Cluster ===

impl Cluster {
    /// Returns when the Gateway is programmed.
    pub async fn start(tools: &Tools, name: &str) -> anyhow::Result<Self> {
        let lab = Lab::up(tools, name).await?;
        lab.install_gateway_api().await?;
        lab.install_tollgate().await?;
        lab.apply(&routes::gateway().to_string()).await?;
        let gateway = format!("gateway/{}", routes::GATEWAY);
        lab.kubectl(&["wait", "--for=condition=Programmed", "--timeout=90s", &gateway]).await?.success()?;
        let address = lab.field(&[&gateway], "{.status.addresses[0].value}").await?;
        let label = format!("gateway.networking.k8s.io/gateway-name={}", routes::GATEWAY);
        let pod = lab.field(&["pods", "-l", &label], "{.items[0].status.podIP}").await?;

        let first = lab.first_process()?;
        let network = Network::of(&lab)?;
        Ok(Self {
            client: Client::new(network.clone(), SocketAddr::new(address.parse()?, 80)),
            api: Api::of(&lab).await?,
            network,
            status: SocketAddr::new(pod.parse()?, STATUS_PORT),
            server: find(first, "tollgate", "serve")?,
            envoy: find(first, "envoy", "--config-path")?,
            _lab: lab,
        })
    }

    /// Waits until the probe gets the right answer. What is answered before does not count.
    pub fn serves(&mut self, probe: &Probe) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        while !self.client.gets(probe) {
            anyhow::ensure!(Instant::now() < end, "no right answer after {} s", PATIENCE.as_secs());
            std::thread::sleep(PACE);
        }
        Ok(())
    }

    pub fn window(&self) -> anyhow::Result<Window> {
        let server = Threads::of(self.server).context("tollgate serve has ended")?;
        let envoy = Threads::of(self.envoy).context("Envoy has ended")?;
        Ok(Window { since: Instant::now(), server, envoy })
    }

    pub fn used_since(&self, window: &Window) -> anyhow::Result<Used> {
        let now = self.window()?;
        let millis = |used: Duration| used.as_secs_f64() * 1e3;
        let cpu = [millis(now.server.since(&window.server)), millis(now.envoy.since(&window.envoy))];
        Ok(Used { elapsed: now.since.duration_since(window.since), cpu })
    }

    /// Bytes that Envoy has received from the control plane so far.
    pub fn received(&self) -> anyhow::Result<u64> {
        let answer = self.network.get(self.status, "/metrics")?;
        let value = answer.lines().find_map(|line| line.strip_prefix(RECEIVED)?.trim().parse().ok());
        value.with_context(|| format!("the proxy does not tell {RECEIVED}"))
    }

    /// MiB of the control plane and of Envoy.
    pub fn memory(&self) -> anyhow::Result<[f64; 2]> {
        Ok([stats::memory(self.server)?, stats::memory(self.envoy)?])
    }
}

/// The only process of the lab that runs this program with this argument.
fn find(first: u32, program: &str, argument: &str) -> anyhow::Result<u32> {
    let mut found = Vec::new();
    let mut below = vec![first];
    while let Some(id) = below.pop() {
        below.extend(process::children(id));
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        let mut words = line.split('\0');
        let name = words.next().and_then(|path| Path::new(path).file_name());
        if name.is_some_and(|name| name == program) && words.any(|word| word == argument) {
            found.push(id);
        }
    }
    match found[..] {
        [one] => Ok(one),
        _ => anyhow::bail!("{} processes of {program} {argument} in place of one", found.len()),
    }
}
