//! Two control planes in the mesh, with one volume for the books. Sidecars are served by both, and the one with the ledger is
//! killed under requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::Context;
use futures::future::try_join3;
use serde_json::Value;
use tokio::time::Instant;
use tollgate_tests::lab::books;
use tollgate_tests::lab::caller::Caller;
use tollgate_tests::lab::install::{CONTROL_PLANE, NAMESPACE, TWO_REPLICAS};
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::lab::{Lab, PATIENCE};
use tollgate_tests::poll;

use crate::members;
use crate::sidecars::{host, policy};

e2e! {
    a_leader_is_killed_and_no_known_caller_notices,
}

/// What sidecars ask the control plane at, in hex (18002).
const PORT: &str = "4652";
/// So many answers before and after, from each client.
const ENOUGH: u64 = 20;
/// Enough for all of the clients.
const BUDGET: u64 = 10_000_000;

/// What clients are told they used, and when they are to stop.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    requests: AtomicU64,
    tokens: AtomicU64,
}

async fn a_leader_is_killed_and_no_known_caller_notices(lab: Arc<Lab>) -> anyhow::Result<()> {
    lab.install_books().await?;
    lab.upgrade_tollgate_in_mesh(&TWO_REPLICAS).await?;
    let result = two_replicas(&lab).await;
    // Other tests have one, without a volume.
    lab.upgrade_tollgate_in_mesh(&[]).await?;
    result
}

async fn two_replicas(lab: &Lab) -> anyhow::Result<()> {
    let (ns, runner) = ("replicas", host("replicas"));
    members::namespace(lab, ns).await?;
    members::runner(lab, ns).await?;
    let web = members::caller(lab, ns, "web").await?;
    let stranger = members::caller(lab, ns, "stranger").await?;
    members::apply(lab, ns, &policy(BUDGET)).await?;
    stranger.answered(&runner, 401, "the policy is in force").await?;
    members::drained(lab, ns).await?;

    let load = Load::default();
    let killed = async {
        // Leases are as large as what is asked for lately.
        load.answers("the callers are answered", 2 * ENOUGH).await?;
        poll::within(PATIENCE, "each replica serves the sidecar", || each_serves(lab, ns)).await?;
        let (before, at) = (lab.leader().await?, Instant::now());
        lab.kubectl(&["-n", NAMESPACE, "delete", "pod", &before, "--grace-period=0", "--force"]).await?.success()?;
        poll::until("another one leads", || async {
            let now = lab.leader().await?;
            anyhow::ensure!(now != before, "{now} leads");
            Ok(())
        })
        .await?;
        println!("    another one led after {:.1} s", at.elapsed().as_secs_f64());
        load.answers("the callers are answered while there is one", 2 * ENOUGH).await?;
        poll::within(PATIENCE, "each replica serves the sidecar again", || each_serves(lab, ns)).await?;
        load.answers("the callers are answered by two again", 2 * ENOUGH).await?;
        load.stop.store(true, Ordering::Relaxed);
        anyhow::Ok(())
    };
    try_join3(load.client(&web, &runner), load.client(&web, &runner), killed).await?;

    let [requests, tokens] = [&load.requests, &load.tokens].map(|count| count.load(Ordering::Relaxed));
    println!("    {requests} requests, {tokens} tokens");
    for pod in pods(lab).await? {
        poll::until("the books of each replica have all of it", || async {
            let rows = books::as_told(lab, &pod, &format!("{ns}/web")).await?;
            let sum = |names: &[&str]| -> u64 {
                rows.iter().flat_map(|row| names.iter().filter_map(|name| row.get(name)?.as_u64())).sum()
            };
            let found = (sum(&["requests"]), sum(&["input_tokens", "output_tokens"]));
            anyhow::ensure!(found == (requests, tokens), "{pod} has {found:?}, not {:?}", (requests, tokens));
            Ok(())
        })
        .await?;
    }
    // The next leader knows what was spent under the one before.
    members::apply(lab, ns, &policy(tokens)).await?;
    web.answered(&runner, 429, "the budget is used up").await?;
    members::apply(lab, ns, &policy(BUDGET)).await?;
    web.answered(&runner, 200, "a larger budget is not").await?;
    Ok(())
}

async fn pods(lab: &Lab) -> anyhow::Result<Vec<String>> {
    let names = lab.field(&["-n", NAMESPACE, "pods", "-l", CONTROL_PLANE], "{.items[*].metadata.name}").await?;
    Ok(names.split(' ').map(str::to_owned).collect())
}

/// An error unless there are two replicas, and the runner's sidecar has a connection to each.
async fn each_serves(lab: &Lab, namespace: &str) -> anyhow::Result<()> {
    let address = lab.field(&["-n", namespace, "pods", "-l", "app=runner"], "{.items[0].status.podIP}").await?;
    let octets = address.parse::<std::net::Ipv4Addr>()?.octets();
    // As it stands in /proc/net/tcp.
    let peer: String = octets.iter().rev().map(|octet| format!("{octet:02X}")).collect();
    let pods = pods(lab).await?;
    anyhow::ensure!(pods.len() == 2, "{pods:?}");
    for pod in pods {
        let exec = ["-n", NAMESPACE, "exec", &pod, "-c", "tollgate", "--", "cat", "/proc/net/tcp", "/proc/net/tcp6"];
        let table = lab.kubectl(&exec).await?.success()?.out;
        // 1: 0A01F40A:4652 0B01F40A:C350 01 ...
        let is_of_runner = |line: &str| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let [_, local, remote, state, ..] = columns[..] else { return false };
            local.ends_with(&format!(":{PORT}")) && remote.contains(&format!("{peer}:")) && state == "01"
        };
        anyhow::ensure!(table.lines().any(is_of_runner), "{pod} does not serve {address}");
    }
    Ok(())
}

// === impl Load ===

impl Load {
    /// Asks until it is to stop.
    ///
    /// # Errors
    /// When one request is not answered, or not with 200.
    async fn client(&self, caller: &Caller<'_>, host: &str) -> anyhow::Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            let answer = caller.chat(host).await?.expect(200)?;
            let told: Value = serde_json::from_str(&answer.body)?;
            let used = told.pointer("/usage/total_tokens").and_then(Value::as_u64).context("no usage")?;
            self.requests.fetch_add(1, Ordering::Relaxed);
            self.tokens.fetch_add(used, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Waits for so many more answers.
    async fn answers(&self, what: &str, more: u64) -> anyhow::Result<()> {
        let before = self.requests.load(Ordering::Relaxed);
        poll::within(PATIENCE, what, || async {
            let came = self.requests.load(Ordering::Relaxed) - before;
            anyhow::ensure!(came >= more, "{came} answers");
            Ok(())
        })
        .await
    }
}
