//! `cargo xtask bench`: CPU time per request of Envoy with the whole chain, over plain Envoy on the same work in the
//! same run. It measures CPU time and not latency, because that is what a gateway costs and what a busy machine does
//! not blur. Rounds are short and taken in turns, so that a disturbance hits all alike.
//!
//! ```text
//! load (8 connections) -> plain Envoy                 -> responder (1 KB, whole or as events)
//!                      -> Envoy programmed by tollgate ->
//! ```
//! Parts are left out one by one, by sending requests to other routes of the same Envoy. `--against` adds an Envoy that
//! another build programs, in turns with the first. Where a process's code happens to lie in memory changes its cost by
//! some microseconds, so two builds are compared over several starts.
//!
//! `--sidecar` measures the filter in a sidecar of a mesh, over the same sidecar without it, in turns with the chain of a
//! Gateway.
//!
//! `--scale` measures something else: what a change costs among many routes or keys (`scale/`). `--kubernetes` measures the
//! same among many HTTPRoutes in a Kubernetes.

mod cluster;
mod config;
mod cpus;
mod gateway;
mod load;
mod plain;
mod responder;
mod scale;
mod sidecar;
mod stats;
mod table;
mod wire;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::artifacts;
use crate::setup;
use crate::workspace::Workspace;
use cpus::Cpus;
use gateway::Gateway;
use load::Request;
use plain::Plain;
use sidecar::{Filter, Sidecars};
use stats::Samples;

const REQUESTS_PER_ROUND: usize = 2_000;
const WARM_UP: usize = 4_000;

/// What to measure, and how often.
#[derive(Clone, clap::Args)]
pub struct Options {
    /// Short rounds, taken in turns
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Everything is started anew so many times, with this number of rounds each
    #[arg(long, default_value_t = 1)]
    starts: usize,
    /// Another build's `tollgate`, with its filter inside, to compare this one with
    #[arg(long, value_name = "TOLLGATE")]
    against: Option<PathBuf>,
    /// The filter in a sidecar of a mesh, over the same sidecar without it, and the whole chain of a Gateway beside
    #[arg(long, conflicts_with_all = ["among", "against"])]
    sidecar: bool,
    /// Measures something else: starts, and single changes among many routes and keys, with the released build
    #[arg(long, group = "among", conflicts_with_all = ["rounds", "starts", "against"])]
    pub scale: bool,
    /// The same single changes of HTTPRoutes in a Kubernetes of its own, from the API server to traffic
    ///
    /// The released build is installed by its chart into a lab (tests/lab/README.md). Each route has a hostname of its own,
    /// and ten share a namespace. One after the other gets a new version by one write. A client asks for it every
    /// millisecond until it sees the new version, and another client asks for a route that never changes. The table says how
    /// long that took, what CPU time and memory the control plane and Envoy used, how many bytes Envoy got, and how many
    /// answers were not right. One such answer fails the command. Use a machine that does nothing else.
    #[arg(long, group = "among", conflicts_with_all = ["rounds", "starts", "against"])]
    pub kubernetes: bool,
    #[command(flatten)]
    amounts: scale::Amounts,
}

/// One line of the result: the same work, sent on one way through Envoy.
struct Lane {
    name: &'static str,
    /// What differs from the line that it is compared with.
    means: &'static str,
    /// Index of the line that it is compared with.
    over: Option<usize>,
    request: Request,
    way: Way,
    /// The samples of this build, and of the other one if there is one.
    samples: [Samples; 2],
}

/// Which listener of which Envoy a lane's requests go to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    /// The listener of a Gateway without the filter.
    Bare,
    Chain,
    /// One of those that `--sidecar` starts.
    Sidecar(Filter),
}

/// What one start has started.
struct Started {
    plain: Plain,
    /// By the index of their build.
    gateways: Vec<(usize, Gateway)>,
    sidecars: Option<Sidecars>,
}

pub fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    if options.scale {
        return scale::run(workspace, &options.amounts);
    }
    if options.kubernetes {
        return cluster::run(workspace, &options.amounts);
    }
    let tools = setup::tools(workspace)?;
    let wasm = artifacts::filter(workspace)?;
    let mut builds = vec![artifacts::debug(workspace, &wasm)?];
    builds.extend(options.against.as_ref().map(std::path::absolute).transpose()?);
    let home = workspace.target().join("bench");
    if home.exists() {
        std::fs::remove_dir_all(&home)?;
    }
    std::fs::create_dir_all(&home)?;
    if options.sidecar {
        sidecar::build(workspace)?;
    }
    let cpus = Cpus::divide()?;
    let backend = responder::start()?;
    let mut lanes = if options.sidecar { lanes_of_sidecars() } else { lanes() };
    let per_start = options.rounds * lanes.len() * builds.len() / 3 + 6 * builds.len();
    println!(
        "==> {} rounds in turns, {REQUESTS_PER_ROUND} requests each on {} connections, one worker; {} start(s), about {} s",
        options.rounds,
        load::CONNECTIONS,
        options.starts,
        per_start * options.starts
    );
    for start in 0..options.starts {
        // Which build comes first changes from start to start.
        let mut order: Vec<_> = builds.iter().enumerate().collect();
        order.rotate_left(start % builds.len());
        let plain = plain::start(&tools, backend, &home)?;
        cpus.give(plain.process.id())?;
        let mut gateways = Vec::new();
        for (build, tollgate) in order {
            let home = home.join(format!("build-{build}"));
            let gateway = Gateway::start(&tools, tollgate, backend, &home)?;
            cpus.give(gateway.envoy)?;
            gateways.push((build, gateway));
        }
        let sidecars = options.sidecar.then(|| Sidecars::start(workspace, backend, &home)).transpose()?;
        for envoy in sidecars.iter().flat_map(Sidecars::envoys) {
            cpus.give(envoy)?;
        }
        measure(&Started { plain, gateways, sidecars }, options.rounds, &mut lanes)?;
        println!("    start {} of {}", start + 1, options.starts);
    }
    table::print(&lanes, &wasm)?;
    if builds.len() > 1 {
        table::compare(&lanes, options.rounds);
    }
    Ok(())
}

/// Measures all rounds of one start, in turns between the builds.
fn measure(started: &Started, rounds: usize, lanes: &mut [Lane]) -> anyhow::Result<()> {
    for lane in lanes.iter() {
        for (_, gateway) in lane.measured_at(&started.gateways) {
            let (port, _) = lane.way.of(started, gateway)?;
            warm_up(&lane.request, port).with_context(|| format!("warming up: {}", lane.name))?;
        }
    }
    for _ in 0..rounds {
        for lane in lanes.iter_mut() {
            for (build, gateway) in lane.measured_at(&started.gateways) {
                let (port, envoy) = lane.way.of(started, gateway)?;
                let before = stats::cpu_time(envoy)?;
                lane.request.send(port, REQUESTS_PER_ROUND)?;
                let used = stats::cpu_time(envoy)?.saturating_sub(before);
                if let Some(samples) = lane.samples.get_mut(*build) {
                    samples.push(used.as_secs_f64() * 1e6 / REQUESTS_PER_ROUND as f64);
                }
            }
        }
    }
    Ok(())
}

/// The first answers may be refusals, until workers have taken up what the main thread has acknowledged.
fn warm_up(request: &Request, port: u16) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    while let Err(error) = request.send(port, load::CONNECTIONS) {
        anyhow::ensure!(Instant::now() < end, error);
        std::thread::sleep(Duration::from_millis(100));
    }
    request.send(port, WARM_UP)
}

const PATH: &str = "/v1/chat/completions";

fn lane(name: &'static str, means: &'static str, over: Option<usize>, way: Way, request: Request) -> Lane {
    Lane { name, means, over, request, way, samples: Default::default() }
}

fn lanes() -> Vec<Lane> {
    let key = Some(config::KEY);
    let at = |prefix: &str| format!("/{prefix}{PATH}");
    let request = |prefix: &str, model, key| Request::new(&at(prefix), model, key, false);
    vec![
        lane("plain Envoy", "", None, Way::Plain, Request::new(PATH, "smol", None, false)),
        lane("no filter", "listener and route as we make them", Some(0), Way::Bare, request("bare", "smol", None)),
        lane("filter passes by", "+ entering wasm", Some(1), Way::Chain, request("pass", "smol", None)),
        lane(
            "anonymous, no budget",
            "+ body, model, routing, usage",
            Some(2),
            Way::Chain,
            request("open", "smol", None),
        ),
        lane("key, no budget", "+ key", Some(3), Way::Chain, request("key", "smol", key)),
        lane("key and budget", "+ reservation, settlement", Some(4), Way::Chain, request("budget", "smol", key)),
        lane(
            "the same with failover",
            "+ the filter of each attempt",
            Some(5),
            Way::Chain,
            request("budget", "pair", key),
        ),
        lane("plain Envoy, events", "", None, Way::Plain, Request::new(PATH, "smol", None, true)),
        lane("key and budget, events", "", Some(7), Way::Chain, Request::new(&at("budget"), "smol", key, true)),
    ]
}

fn lanes_of_sidecars() -> Vec<Lane> {
    let key = Some(config::KEY);
    let request = |path: &str, key| Request::new(path, "smol", key, false);
    vec![
        lane("plain Envoy", "", None, Way::Plain, request(PATH, None)),
        lane("key and budget", "", Some(0), Way::Chain, request(&format!("/budget{PATH}"), key)),
        lane("plain sidecar", "", None, Way::Sidecar(Filter::None), request(PATH, None)),
        lane("sidecar, key and budget", "", Some(2), Way::Sidecar(Filter::Key), request(PATH, key)),
        lane("the same by its identity", "", Some(2), Way::Sidecar(Filter::Identity), request(PATH, None)),
    ]
}

// === impl Lane ===

impl Lane {
    /// The gateways whose turn a round is. What is the same for all builds has the rounds of this build alone.
    fn measured_at<'g>(
        &self,
        gateways: &'g [(usize, Gateway)],
    ) -> impl Iterator<Item = &'g (usize, Gateway)> + use<'g> {
        let of_all = matches!(self.way, Way::Bare | Way::Chain);
        gateways.iter().filter(move |(build, _)| of_all || *build == 0)
    }
}

// === impl Way ===

impl Way {
    /// Its port, and the process whose time counts.
    fn of(self, started: &Started, gateway: &Gateway) -> anyhow::Result<(u16, u32)> {
        Ok(match self {
            Self::Plain => (started.plain.port, started.plain.process.id()),
            Self::Bare => (gateway.bare, gateway.envoy),
            Self::Chain => (gateway.port, gateway.envoy),
            Self::Sidecar(filter) => {
                let place = started.sidecars.as_ref().context("no sidecars were started")?.place(filter);
                (place.port, place.envoy)
            }
        })
    }
}
