//! One change after the other: how long it takes until traffic shows it, and what it costs.

use std::time::Instant;

use anyhow::Context;
use serde_json::Value;

use super::asker::{Faults, Watch};
use super::client::{Answer, Probe};
use super::cluster::Cluster;
use super::rest::Rest;
use super::stats::Samples;

/// New fields of an object, and what a request is answered before and after.
pub struct Change {
    pub path: String,
    pub fields: Value,
    pub before: Answer,
    pub after: Probe,
}

/// What changes cost, one sample each.
#[derive(Default)]
pub struct Measured {
    /// Milliseconds from the API server's answer until traffic shows it; negative if traffic is first.
    pub time: Samples,
    /// The same from the start of the write.
    pub whole: Samples,
    /// Milliseconds of CPU time of the control plane, until it rests again.
    pub server: Samples,
    /// The same of Envoy.
    pub envoy: Samples,
    /// Bytes from the control plane to Envoy.
    pub bytes: Samples,
    pub faults: Faults,
}

// === impl Measured ===

impl Measured {
    /// Makes a change and measures it.
    pub async fn add(&mut self, cluster: &mut Cluster, rest: &Rest, change: &Change) -> anyhow::Result<()> {
        let received = cluster.received()?;
        rest.comes(cluster)?;
        let window = cluster.window()?;
        let another = cluster.client.another();
        let watch = Watch::start(std::mem::replace(&mut cluster.client, another), change)?;
        let written = cluster.api.patch(&change.path, &change.fields).await?;
        let (client, watched) = watch.end()?;
        cluster.client = client;
        let seen = watched.seen.with_context(|| format!("no traffic shows the change of {}", change.path))?;
        self.time.push(millis(written.answered, seen));
        self.whole.push(millis(written.began, seen));
        self.faults += watched.faults;
        rest.comes(cluster)?;
        let [server, envoy] = rest.without(cluster.used_since(&window)?, watched.questions);
        self.server.push(server);
        self.envoy.push(envoy);
        self.bytes.push(cluster.received()?.saturating_sub(received) as f64);
        Ok(())
    }
}

fn millis(from: Instant, to: Instant) -> f64 {
    (to.saturating_duration_since(from).as_secs_f64() - from.saturating_duration_since(to).as_secs_f64()) * 1e3
}
