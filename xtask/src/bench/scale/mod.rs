//! `cargo xtask bench --scale`: what a start and a single change cost among many routes, and among many keys. The whole
//! way runs: files -> the released `tollgate run` -> a real Envoy -> a client.
//!
//! ```text
//! folder of N routes, a file per 100 -> tollgate run -> Envoy <- one connection asks for the changed route every 1 ms
//! ```
//! Each route redirects to a path that names the route and its version, so an answer says which route gave it, in which
//! version, without a backend. A change is one file that is written anew and renamed, as an editor saves. In it, one
//! route has a new version. What the questions cost is measured at rest and taken off.

mod changes;
mod client;
mod gateway;
mod keys;
#[cfg(test)]
mod parsed;
mod rest;
mod routes;
mod table;

use std::path::PathBuf;

use anyhow::Context;

use crate::artifacts;
use crate::setup::{self, Tools};
use crate::workspace::Workspace;
use changes::Measured;
use gateway::{Gateway, Home};
use keys::Keys;
use rest::Rest;
use routes::Routes;

/// How many routes and keys there are, and how often one of them changes.
#[derive(Clone, clap::Args)]
pub struct Amounts {
    /// Numbers of routes
    #[arg(long, requires = "among", value_delimiter = ',', default_values_t = [100, 1_000, 10_000])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub sizes: Vec<u32>,
    /// The number of keys; 0 leaves them out
    #[arg(long, requires = "scale", default_value_t = 100_000)]
    keys: u32,
    /// Single changes of each size; otherwise 20, or 50 with --kubernetes
    #[arg(long, requires = "among")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub changes: Option<u32>,
}

/// Single changes of each size, unless the command line says otherwise.
const CHANGES: u32 = 20;

/// What a folder of files costs.
struct Costs {
    /// How many routes or keys there are.
    size: u32,
    /// Seconds from the start of `tollgate run` to the first right answer.
    start: f64,
    /// MiB of the control plane at rest, after the changes.
    server: f64,
    /// MiB of Envoy at rest, after the changes.
    envoy: f64,
}

pub fn run(workspace: &Workspace, amounts: &Amounts) -> anyhow::Result<()> {
    let tools = setup::tools(workspace)?;
    let tollgate = artifacts::dist(workspace)?;
    let changes = amounts.changes.unwrap_or(CHANGES);
    let bench = Bench { tools, tollgate, home: workspace.target().join("scale"), changes };
    let mut sizes = amounts.sizes.clone();
    sizes.sort_unstable();
    sizes.dedup();

    // What was measured is shown, even if something else fails.
    let mut failures = 0;
    let mut of_routes = Vec::new();
    for size in sizes {
        println!("==> {size} routes, {changes} changes");
        of_routes.extend(shown(bench.routes(size), &mut failures));
    }
    let mut of_keys = None;
    if amounts.keys > 0 {
        println!("==> {} keys, {changes} additions and revocations", amounts.keys);
        of_keys = shown(bench.keys(amounts.keys), &mut failures);
    }
    table::print_routes(&of_routes);
    let mut wrong: usize = of_routes.iter().map(|(_, changes)| changes.wrong).sum();
    if let Some((costs, added, revoked)) = &of_keys {
        table::print_keys(costs, added, revoked);
        wrong += added.wrong + revoked.wrong;
    }
    table::print_goals();
    anyhow::ensure!(
        failures == 0 && wrong == 0,
        "{failures} failures, {wrong} wrong answers; logs: {}",
        bench.home.display()
    );
    Ok(())
}

/// What was measured, or its failure on the terminal.
fn shown<T>(result: anyhow::Result<T>, failures: &mut usize) -> Option<T> {
    if let Err(error) = &result {
        *failures += 1;
        eprintln!("    failed: {error:#}");
    }
    result.ok()
}

struct Bench {
    tools: Tools,
    tollgate: PathBuf,
    home: PathBuf,
    changes: u32,
}

// === impl Bench ===

impl Bench {
    fn routes(&self, count: u32) -> anyhow::Result<(Costs, Measured)> {
        let home = Home::make(&self.home.join(format!("routes-{count}")))?;
        let mut routes = Routes::write(home.config(), home.port(), count)?;
        let last = routes.probe(count - 1);
        let mut gateway = Gateway::start(&self.tools, &self.tollgate, home, &last)?;
        let rest = Rest::measure(&mut gateway, &last)?;
        let mut changes = Measured::default();
        for index in 0..self.changes {
            let change = routes.change(routes::spread(index, count));
            changes.add(&mut gateway, &rest, &change).with_context(|| format!("change {index}"))?;
        }
        // No route has another one's answer, or an old one.
        changes.wrong += (0..count).filter(|route| !gateway.client.gets(&routes.probe(*route))).count();
        Ok((Costs::of(count, &mut gateway)?, changes))
    }

    fn keys(&self, count: u32) -> anyhow::Result<(Costs, Measured, Measured)> {
        let home = Home::make(&self.home.join(format!("keys-{count}")))?;
        let keys = Keys::write(home.config(), home.port(), count)?;
        let known = keys.known();
        let mut gateway = Gateway::start(&self.tools, &self.tollgate, home, &known)?;
        let rest = Rest::measure(&mut gateway, &known)?;
        let (mut added, mut revoked) = (Measured::default(), Measured::default());
        for index in 0..self.changes {
            added.add(&mut gateway, &rest, &keys.addition()).with_context(|| format!("addition {index}"))?;
            revoked.add(&mut gateway, &rest, &keys.revocation()).with_context(|| format!("revocation {index}"))?;
        }
        revoked.wrong += usize::from(!gateway.client.gets(&known));
        Ok((Costs::of(count, &mut gateway)?, added, revoked))
    }
}

// === impl Costs ===

impl Costs {
    fn of(size: u32, gateway: &mut Gateway) -> anyhow::Result<Self> {
        gateway.come_to_rest()?;
        let [server, envoy] = gateway.memory()?;
        Ok(Self { size, start: gateway.start_time.as_secs_f64(), server, envoy })
    }
}
