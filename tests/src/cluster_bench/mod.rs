//! `cargo xtask bench --kubernetes`: what a change of one HTTPRoute costs among many, in a real Kubernetes. The whole way
//! runs, with Tollgate installed by its chart:
//!
//! ```text
//! api.rs: one write -> API server -> tollgate serve -> Envoy of the Gateway <- asker.rs asks for the changed route
//!                                                                         <- and for one that never changes
//! ```
//! Each route redirects to a path that names the route and its version, so an answer says which route gave it, in which
//! version, without a backend. What both processes use at rest and what the questions cost is measured first and taken
//! off.

mod api;
mod asker;
mod changes;
mod client;
mod cluster;
mod rest;
mod routes;
mod table;

/// The other benchmarks measure in the same way. xtask depends on no package of this workspace, and nothing on xtask.
#[path = "../../../xtask/src/bench/stats.rs"]
pub mod stats;
#[path = "../../../xtask/src/bench/wire.rs"]
pub mod wire;

use std::time::Instant;

use anyhow::Context;

use crate::tools::Tools;
use asker::{Faults, Witness};
use changes::Measured;
use cluster::Cluster;
use rest::Rest;
use routes::Routes;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Numbers of routes.
    pub sizes: Vec<u32>,
    /// Single changes of each size.
    pub changes: u32,
}

/// What a number of routes costs.
struct Costs {
    /// How many routes there are.
    size: u32,
    /// Seconds from the first write until all routes are written and the last one is served.
    made: f64,
    /// MiB of the control plane at rest, after the changes.
    server: f64,
    /// MiB of Envoy at rest, after the changes.
    envoy: f64,
}

/// Measures and prints. False: an answer was not as it should be.
///
/// # Errors
/// When something could not be measured.
pub async fn run(options: Options) -> anyhow::Result<bool> {
    let tools = Tools::find()?;
    let mut sizes = options.sizes;
    sizes.sort_unstable();
    sizes.dedup();
    anyhow::ensure!(sizes.first().is_some_and(|size| *size > 1), "two routes are the fewest");
    println!("tollgate: {}", tools.tollgate.display());
    // What was measured is shown at once: a size takes minutes, and another one may fail.
    let mut failures = 0;
    let mut all = Vec::new();
    for size in sizes {
        println!("==> {size} routes, {} changes", options.changes);
        match measure(&tools, size, options.changes).await {
            Ok(measured) => {
                all.push(measured);
                table::print(&all);
            }
            Err(error) => {
                failures += 1;
                eprintln!("    failed: {error:#}");
            }
        }
    }
    table::print_goals();
    anyhow::ensure!(failures == 0, "{failures} sizes were not measured");
    Ok(all.iter().all(|(_, changes)| changes.faults == Faults::default()))
}

/// In a cluster of its own, so that nothing is left of another size.
async fn measure(tools: &Tools, size: u32, count: u32) -> anyhow::Result<(Costs, Measured)> {
    let mut cluster = Cluster::start(tools, &format!("cluster-bench-{size}")).await?;
    let mut routes = Routes::new(size)?;
    let last = routes.probe(routes.last());
    println!("    the cluster has a Gateway; the routes are made");
    let began = Instant::now();
    routes.make(&cluster.api).await?;
    cluster.serves(&last)?;
    let made = began.elapsed().as_secs_f64();
    println!("    the last route is served after {made:.1} s; waiting until all have a status");
    routes.all_have_a_status(&cluster.api).await?;

    let witness = Witness::start(cluster.client.another(), last.clone());
    let rest = Rest::measure(&mut cluster, &last)?;
    let mut changes = Measured::default();
    for index in 0..count {
        let change = routes.change(routes::spread(index, size - 1));
        changes.add(&mut cluster, &rest, &change).await.with_context(|| format!("change {index}"))?;
    }
    let witnessed = witness.end()?;
    changes.faults += witnessed.faults;
    println!("    the route that never changes was asked for {} times meanwhile", witnessed.questions);
    // No route has another one's answer, or an old one.
    for route in 0..size {
        let probe = routes.probe(route);
        let answer = cluster.client.ask(&probe.request);
        changes.faults.judge(&answer, &[probe.answer]);
    }
    rest.comes(&cluster)?;
    let [server, envoy] = cluster.memory()?;
    Ok((Costs { size, made, server, envoy }, changes))
}
