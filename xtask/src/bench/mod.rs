//! `cargo xtask bench`: what a gateway costs, over plain Envoy on the same work in the same run. CPU time is what a
//! gateway costs and what a busy machine does not blur, so it is measured for all work; times are measured besides.
//! Rounds are short and taken in turns, so that a disturbance hits all alike, and differences are of the same round.
//!
//! ```text
//! load -> plain Envoy                 -> responder (1 KB, whole or as events)
//!      -> Envoy programmed by tollgate ->
//!      -> another gateway (--peers)    ->
//! ```
//! Each gateway has all of its processes on a CPU that the load and the responder do not use, and all of them count
//! (`tree.rs`). A number that cannot be trusted is refused with its reason (`refusal.rs`).
//!
//! Parts of the chain are left out one by one, by sending requests to other routes of the same Envoy (`parts.rs`). Whole
//! gateways do the same work side by side (`contenders.rs`). `--against` adds an Envoy that
//! another build programs, in turns with the first. Where a process's code happens to lie in memory changes its cost by
//! some microseconds, so two builds are compared over several starts.
//!
//! `--sidecar` measures the filter in a sidecar of a mesh, over the same sidecar without it, in turns with the chain of a
//! Gateway.
//!
//! `--scale` measures something else: what a change costs among many routes or keys (`scale/`). `--kubernetes` measures the
//! same among many HTTPRoutes in a Kubernetes.

mod busy;
mod cluster;
mod config;
mod contenders;
mod cpus;
mod gateway;
mod idle;
mod lane;
mod load;
mod noop;
mod parts;
mod peers;
mod plain;
mod proc;
mod refusal;
mod responder;
mod scale;
mod sidecar;
mod started;
mod stats;
mod streams;
mod table;
mod tree;
mod turn;
mod wire;

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::artifacts;
use crate::interrupt;
use crate::setup::{self, Tools};
use crate::workspace::Workspace;
use contenders::Contender;
use cpus::Cpus;
use lane::{Build, Lane, Way};
use peers::Peer;
use started::{Setup, Started};
use table::Rest;

/// What to measure, and how often.
#[derive(Clone, clap::Args)]
pub struct Options {
    /// Short rounds, taken in turns
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Everything is started anew so many times, with this number of rounds each
    #[arg(long, default_value_t = 1)]
    starts: usize,
    /// Other gateways on the same work: all that a package registry has, or some of them
    ///
    /// They are installed below target/peers on first use, by pinned versions (xtask/peers): up to a GB and some minutes.
    /// Portkey needs Node.js with npm. One that cannot be installed or does not start is shown as SKIPPED, with the reason.
    #[arg(long, value_enum, value_delimiter = ',', num_args = 0.., default_missing_values = ["aigw", "litellm", "portkey"])]
    #[arg(conflicts_with_all = ["among", "against", "sidecar"])]
    peers: Vec<Peer>,
    /// Measures the released build, as --scale does, instead of the debug build of the control plane
    ///
    /// The filter is the same in both. Building takes some minutes.
    #[arg(long, conflicts_with_all = ["among", "sidecar"])]
    pub released: bool,
    /// A round counts if other processes use at most this of the CPUs
    ///
    /// More blurs what is measured. For trying things out on a busy machine, 100 takes every round.
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0, conflicts_with = "among")]
    others: f64,
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

pub fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    interrupt::watch()?;
    if options.scale {
        return scale::run(workspace, &options.amounts);
    }
    if options.kubernetes {
        return cluster::run(workspace, &options.amounts);
    }
    let tools = setup::tools(workspace)?;
    let wasm = artifacts::filter(workspace)?;
    let this = if options.released { artifacts::dist(workspace)? } else { artifacts::debug(workspace, &wasm)? };
    let control_plane =
        if options.released { "the released control plane" } else { "the control plane's debug build, see --released" };
    if options.sidecar {
        sidecar::build(workspace)?;
    }
    for peer in &options.peers {
        // Not while others are measured. What is wrong is said when it is to start.
        let _said_later = peer.install(workspace);
    }
    let home = workspace.target().join("bench");
    if home.exists() {
        std::fs::remove_dir_all(&home)?;
    }
    std::fs::create_dir_all(&home)?;
    cpus::allow_many_connections()?;
    let bench =
        Bench { workspace, options, tools, home: &home, cpus: Cpus::divide()?, backend: responder::start()?, this };
    if options.sidecar {
        let mut lanes = parts::of_sidecars();
        bench.starts(&mut lanes, |_| ())?;
        return table::parts(&lanes, &wasm, control_plane);
    }
    if options.against.is_some() {
        let mut lanes = parts::lanes(&[Build::This, Build::Other]);
        bench.starts(&mut lanes, |_| ())?;
        table::parts(&lanes, &wasm, control_plane)?;
        table::compare(&lanes, options.rounds);
        return Ok(());
    }
    let mut lanes = parts::lanes(&[Build::This]);
    lanes.extend(parts::more());
    let contenders = contenders::all(&options.peers, bench.backend);
    lanes.extend(contenders::lanes(&contenders, &lanes));
    let rest = bench.starts(&mut lanes, |started| rest(started, &contenders))?;
    table::parts(&lanes, &wasm, control_plane)?;
    table::gateways(&lanes, &contenders, &rest);
    table::prompts(&lanes, &contenders);
    table::targets(&lanes, &rest);
    Ok(())
}

struct Bench<'a> {
    workspace: &'a Workspace,
    options: &'a Options,
    tools: Tools,
    home: &'a Path,
    cpus: Cpus,
    /// The responder's port.
    backend: u16,
    /// This build's `tollgate`.
    this: PathBuf,
}

// === impl Bench ===

impl Bench<'_> {
    /// Starts everything and measures all rounds, as often as is asked for. `last` is done at the end of the last start.
    fn starts<T>(&self, lanes: &mut [Lane], last: impl FnOnce(&Started) -> T) -> anyhow::Result<T> {
        let Options { rounds, starts, .. } = *self.options;
        println!("==> {rounds} rounds in turns, {} lanes, {starts} start(s)", lanes.len());
        let mut at_last = None;
        for start in 0..starts.max(1) {
            println!("==> start {} of {starts}", start + 1);
            // What of the last start runs ends first.
            drop(at_last.take());
            let started = self.start(start)?;
            measure(&started, rounds, self.options.others, lanes);
            at_last = Some(started);
        }
        let started = at_last.ok_or_else(|| anyhow::anyhow!("nothing was started"))?;
        Ok(last(&started))
    }

    fn start(&self, start: usize) -> anyhow::Result<Started> {
        let mut builds = vec![(Build::This, self.this.clone())];
        if let Some(other) = &self.options.against {
            builds.push((Build::Other, std::path::absolute(other)?));
        } else if !self.options.sidecar {
            builds.push((Build::Native, self.this.clone()));
        }
        // Which build comes first changes from start to start.
        let count = builds.len();
        builds.rotate_left(start % count);
        let setup = Setup {
            workspace: self.workspace,
            tools: &self.tools,
            cpus: &self.cpus,
            home: self.home,
            backend: self.backend,
            builds,
            sidecars: self.options.sidecar,
            peers: &self.options.peers,
        };
        setup.start()
    }
}

/// Measures all rounds of one start, in turns.
fn measure(started: &Started, rounds: usize, others: f64, lanes: &mut [Lane]) {
    println!("==> warming up");
    let ready: Vec<_> = lanes
        .iter_mut()
        .map(|lane| {
            let place = started.place(lane.way)?;
            lane.warm_up(place)?;
            Ok(place)
        })
        .collect();
    for round in 1..=rounds {
        let began = Instant::now();
        for (lane, place) in lanes.iter_mut().zip(&ready) {
            let turn = place.clone().and_then(|place| lane.measure(place, others));
            lane.rounds.push(turn);
        }
        println!("    round {round} of {rounds} ({:.1} s)", began.elapsed().as_secs_f64());
    }
}

/// What is measured once: memory after the rounds and with many streams, and idling. A filter that does nothing holds
/// nothing either.
fn rest(started: &Started, contenders: &[Contender]) -> Vec<Rest> {
    let contenders: Vec<_> = contenders.iter().filter(|contender| contender.way != Way::Noop).collect();
    let places: Vec<_> = contenders.iter().map(|contender| started.place(contender.way)).collect();
    let memory: Vec<_> = places.iter().map(|place| place.clone()?.tree.memory()).collect();
    let streams = contenders.iter().zip(&places).map(|(contender, place)| {
        println!("==> {} streams at once: {}", streams::STREAMS, contender.title);
        streams::run(place.clone()?, &contender.entry)
    });
    let streams: Vec<_> = streams.collect();
    let idle = idle::percents(&places);
    let all = contenders.into_iter().zip(memory).zip(streams).zip(idle);
    all.map(|(((contender, memory), streams), idle)| Rest { of: contender.clone(), memory, streams, idle }).collect()
}
