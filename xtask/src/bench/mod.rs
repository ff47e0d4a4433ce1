//! `cargo xtask bench`: CPU time per request of Envoy with the whole chain, over plain Envoy on the
//! same work in the same run. CPU time and not latency, because that is what a gateway costs and what
//! a busy machine does not blur; short rounds in turns, so that what blurs hits all alike.
//!
//! ```text
//! load (8 connections) -> plain Envoy                 -> responder (1 KB, whole or as events)
//!                      -> Envoy programmed by tollgate ->
//! ```
//! Parts are switched off one by one by asking on other routes of the same Envoy.

mod config;
mod load;
mod plain;
mod responder;
mod stats;
mod wire;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::artifacts;
use crate::process::{self, Run};
use crate::setup;
use crate::workspace::Workspace;
use load::Request;
use stats::Samples;

const REQUESTS_PER_ROUND: usize = 2_000;
const WARM_UP: usize = 4_000;

/// One line of the result: the same work on one way through one of the two Envoys.
struct Lane {
    name: &'static str,
    /// What differs from the line that it is compared with.
    means: &'static str,
    /// Index of the line that it is compared with.
    over: Option<usize>,
    request: Request,
    port: u16,
    envoy: u32,
    samples: Samples,
}

pub fn run(workspace: &Workspace, rounds: usize) -> anyhow::Result<()> {
    let tools = setup::tools(workspace)?;
    let wasm = artifacts::filter(workspace)?;
    let tollgate = artifacts::debug(workspace, &wasm)?;
    let home = workspace.target().join("bench");
    if home.exists() {
        std::fs::remove_dir_all(&home)?;
    }
    std::fs::create_dir_all(home.join("config"))?;

    let backend = responder::start()?;
    let plain = plain::start(&tools, backend, &home)?;
    let gateway_port = process::port_or_free(0)?;
    let bare_port = process::port_or_free(0)?;
    config::write(&home.join("config"), gateway_port, bare_port, backend)?;
    let admin = format!("127.0.0.1:{}", process::port_or_free(0)?);
    let state = home.join("state");
    let gateway = Run {
        tollgate: &tollgate,
        tools: &tools,
        config: &home.join("config"),
        state: &state,
        admin: &admin,
        arguments: &["--concurrency", "1"],
        log: &home.join("tollgate.log"),
    }
    .start()?;
    let chain = process::envoy_of(&state)?;

    let mut lanes = lanes((plain.port, plain.process.id()), (bare_port, chain), (gateway_port, chain));
    println!(
        "==> {rounds} rounds in turns, {REQUESTS_PER_ROUND} requests each on {} connections, one worker \
         (about {} s)",
        load::CONNECTIONS,
        rounds * lanes.len() / 3
    );
    for lane in &lanes {
        warm_up(lane).with_context(|| format!("warming up: {}", lane.name))?;
    }
    for round in 0..rounds {
        for lane in &mut lanes {
            let before = stats::cpu_time(lane.envoy)?;
            lane.request.send(lane.port, REQUESTS_PER_ROUND)?;
            let used = stats::cpu_time(lane.envoy)?.saturating_sub(before);
            lane.samples.push(used.as_secs_f64() * 1e6 / REQUESTS_PER_ROUND as f64);
        }
        if (round + 1) % 5 == 0 {
            println!("    {} of {rounds}", round + 1);
        }
    }
    gateway.stop();
    print(&lanes, &wasm)
}

/// The first answers may be refusals, while workers take up what the main thread has acknowledged.
fn warm_up(lane: &Lane) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    while let Err(error) = lane.request.send(lane.port, load::CONNECTIONS) {
        anyhow::ensure!(Instant::now() < end, error);
        std::thread::sleep(Duration::from_millis(100));
    }
    lane.request.send(lane.port, WARM_UP)
}

fn lanes(plain: (u16, u32), bare: (u16, u32), chain: (u16, u32)) -> Vec<Lane> {
    let key = Some(config::KEY);
    let lane = |name, means, over, (port, envoy), request| Lane {
        name,
        means,
        over,
        request,
        port,
        envoy,
        samples: Samples::default(),
    };
    let path = "/v1/chat/completions";
    let at = |prefix: &str| format!("/{prefix}{path}");
    vec![
        lane("plain Envoy", "", None, plain, Request::new(path, "smol", None, false)),
        lane(
            "no filter",
            "listener and route as we make them",
            Some(0),
            bare,
            Request::new(&at("bare"), "smol", None, false),
        ),
        lane("filter passes by", "+ entering wasm", Some(1), chain, Request::new(&at("pass"), "smol", None, false)),
        lane(
            "anonymous, no budget",
            "+ body, model, routing, usage",
            Some(2),
            chain,
            Request::new(&at("open"), "smol", None, false),
        ),
        lane("key, no budget", "+ key", Some(3), chain, Request::new(&at("key"), "smol", key, false)),
        lane(
            "key and budget",
            "+ reservation, settlement",
            Some(4),
            chain,
            Request::new(&at("budget"), "smol", key, false),
        ),
        lane(
            "the same with failover",
            "+ the filter of each attempt",
            Some(5),
            chain,
            Request::new(&at("budget"), "pair", key, false),
        ),
        lane("plain Envoy, events", "", None, plain, Request::new(path, "smol", None, true)),
        lane("key and budget, events", "", Some(7), chain, Request::new(&at("budget"), "smol", key, true)),
    ]
}

fn print(lanes: &[Lane], wasm: &Path) -> anyhow::Result<()> {
    println!(
        "\nCPU microseconds of Envoy per request, 2 KB request, 1 KB answer (events: 10 of them)\n\
         filter.wasm {} KB; lowest round, quartiles of the rounds; differences are of the same round\n",
        std::fs::metadata(wasm)?.len().div_ceil(1024)
    );
    println!("{:<26}{:>7}{:>7}{:>7}{:>7}   over plain Envoy", "", "lowest", "25 %", "50 %", "75 %");
    for lane in lanes {
        let of = |part: f64| lane.samples.quantile(part);
        print!("{:<26}{:>7.1}{:>7.1}{:>7.1}{:>7.1}", lane.name, of(0.0), of(0.25), of(0.5), of(0.75));
        if let (Some(_), Some(base)) = (lane.over, base(lanes, lane)) {
            let more = lane.samples.minus(&base.samples);
            print!(
                "   {:+.1} ({:+.1} to {:+.1}), x{:.2}",
                more.quantile(0.5),
                more.quantile(0.25),
                more.quantile(0.75),
                lane.samples.quantile(0.5) / base.samples.quantile(0.5)
            );
        }
        println!();
    }
    println!("\nwhere it goes (each line over the one above it)");
    for lane in lanes.iter().filter(|lane| !lane.means.is_empty()) {
        if let Some(over) = lane.over.and_then(|index| lanes.get(index)) {
            let more = lane.samples.minus(&over.samples);
            println!(
                "{:<36}{:>+7.1} ({:+.1} to {:+.1})",
                lane.means,
                more.quantile(0.5),
                more.quantile(0.25),
                more.quantile(0.75)
            );
        }
    }
    println!("\nother gateways are not part of this run yet");
    Ok(())
}

/// The plain Envoy's lane that a lane's chain of comparisons ends at.
fn base<'a>(lanes: &'a [Lane], lane: &'a Lane) -> Option<&'a Lane> {
    let mut at = lane;
    while let Some(over) = at.over {
        at = lanes.get(over)?;
    }
    Some(at)
}
