//! What `cargo xtask bench --sidecar` measures: the sidecar of an application with the filter, the same without it, and the
//! sidecars of callers. Prints where they are in one line of JSON, and runs until it is told to end.
//!
//! ```text
//! load -> a caller's sidecar -> mutual TLS of the mesh -> the sidecar that is measured -> the application
//! ```

use anyhow::Context;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tollgate_tests::config;
use tollgate_tests::mesh::Sidecar;
use tollgate_tests::meshed::{Meshed, policy};
use tollgate_tests::tools::Tools;

/// Tokens that never run out, so that every request is admitted from a lease.
const PLENTY: u64 = 1_000_000_000_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (app, key) = arguments.next().zip(arguments.next()).context("the port of the application, and a key")?;
    let app = app.parse()?;
    let meshed = Meshed::new(&Tools::find()?, "bench", "runner", app)?;
    meshed.elsewhere.conf.write("policy.yaml", &policy(PLENTY))?;
    meshed.elsewhere.conf.write("keyed.yaml", &config::consumer("keyed", &key, ""))?;
    let _control_plane = meshed.serve().await?;
    let plain = meshed.istiod.sidecar_without(app).await?;
    let filtered = meshed.istiod.sidecar(app).await?;
    // A key and the identity of another Consumer are refused together.
    let to_plain = meshed.caller("stranger", &plain).await?;
    let by_key = meshed.caller("stranger", &filtered).await?;
    let by_identity = meshed.caller("web", &filtered).await?;
    println!(
        "{}",
        json!({
            "plain": way(&to_plain, &plain),
            "key": way(&by_key, &filtered),
            "identity": way(&by_identity, &filtered),
        })
    );
    let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    Ok(())
}

/// Where requests are sent, and whose time counts.
fn way(caller: &Sidecar, measured: &Sidecar) -> Value {
    json!({"port": caller.port(), "envoy": measured.process.id()})
}
