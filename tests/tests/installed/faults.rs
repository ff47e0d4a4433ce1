//! What goes wrong on purpose: processes that are killed, or stand still for a while.

use std::time::Duration;

use anyhow::Context;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tollgate_tests::lab::install::{CONTROL_PLANE, NAMESPACE};
use tollgate_tests::lab::{Lab, PATIENCE};
use tollgate_tests::poll;

const PODS: [&str; 5] = ["-n", NAMESPACE, "pods", "-l", CONTROL_PLANE];
const API_SERVER: &str = "kube-apiserver";
/// Where the lab's etcd answers.
const ETCD: &str = "http://127.0.0.1:2379";

/// Kills a Pod of the control plane without a word.
pub async fn kill_one(lab: &Lab) -> anyhow::Result<()> {
    // Others may have been killed a moment ago.
    let pods = poll::within(PATIENCE, "one of them runs", || running(lab)).await?;
    let pod = pods.first().context("none is running")?;
    lab.kubectl(&["-n", NAMESPACE, "delete", "pod", pod, "--grace-period=0", "--force"]).await?.success()?;
    Ok(())
}

async fn running(lab: &Lab) -> anyhow::Result<Vec<String>> {
    let running = [&PODS[..], &["--field-selector=status.phase=Running"]].concat();
    let names = lab.field(&running, "{.items[*].metadata.name}").await?;
    Ok(names.split(' ').map(str::to_owned).collect())
}

/// What the control planes did not see, because they stood still, is forgotten by the time that they ask: etcd has compacted
/// it, and an API server that has just started has never known it. The watches of all of them have a gap.
pub async fn watch_gap(lab: &Lab, change: impl AsyncFnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let stand: Vec<Pid> = poll::within(PATIENCE, "those that run have processes", || async {
        running(lab).await?.iter().map(|pod| process_of(pod)).collect()
    })
    .await?;
    stand.iter().try_for_each(|process| signal(*process, Signal::STOP))?;
    let forgotten = async {
        change().await?;
        let list = lab.kubectl(&["get", "--raw", "/api/v1/namespaces"]).await?.success()?;
        let list: Value = serde_json::from_str(&list.out)?;
        let revision = list.pointer("/metadata/resourceVersion").context("no revision")?;
        let compact = json!({"revision": revision, "physical": true}).to_string();
        lab.exec(&["curl", "-s", "--fail-with-body", "-d", &compact, &format!("{ETCD}/v3/kv/compaction")])
            .await?
            .success()?;
        kill_api_server(lab).await
    }
    .await;
    stand.iter().try_for_each(|process| resume(*process))?;
    forgotten
}

/// Kills the API server, and waits until it is back.
pub async fn kill_api_server(lab: &Lab) -> anyhow::Result<()> {
    let before = component(lab, API_SERVER)?;
    signal(before, Signal::KILL)?;
    poll::within(PATIENCE, "the API server is back", || async {
        anyhow::ensure!(component(lab, API_SERVER)? != before, "it lives yet");
        lab.kubectl(&["get", "--raw", "/readyz"]).await?.success().map(drop)
    })
    .await
}

/// Holds a component of the cluster for a while.
pub async fn paused(lab: &Lab, name: &str, time: Duration) -> anyhow::Result<()> {
    let process = component(lab, name)?;
    signal(process, Signal::STOP)?;
    tokio::time::sleep(time).await;
    resume(process)
}

fn component(lab: &Lab, name: &str) -> anyhow::Result<Pid> {
    let of_lab = lab.home().to_str().context("a path in UTF-8")?;
    process("cmdline", |line| line.starts_with(&format!("lab {name} ")) && line.contains(of_lab))
}

/// The process of a Pod. Its name is in the environment.
pub fn process_of(pod: &str) -> anyhow::Result<Pid> {
    process("environ", |text| names_pod(text, pod))
}

fn names_pod(environment: &str, pod: &str) -> bool {
    environment.split(' ').any(|variable| variable.strip_prefix("POD_NAME=") == Some(pod))
}

/// The Envoy of a proxy's Pod.
pub fn envoy_of(pod: &str) -> anyhow::Result<u32> {
    let envoy = all("environ", |text| names_pod(text, pod)).find(|id| {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", id.as_raw_nonzero()));
        name.is_ok_and(|name| name.trim() == "envoy")
    });
    Ok(envoy.context("the Pod has no Envoy")?.as_raw_nonzero().get().unsigned_abs())
}

/// The first process that says so in this file of /proc.
fn process(file: &'static str, is_it: impl Fn(&str) -> bool) -> anyhow::Result<Pid> {
    all(file, is_it).next().context("there is no such process")
}

/// All of them. Ids begin anew some time, so a child may come before its parent.
fn all(file: &'static str, is_it: impl Fn(&str) -> bool) -> impl Iterator<Item = Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let id: i32 = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join(file)).unwrap_or_default();
        is_it(&String::from_utf8_lossy(&line).replace('\0', " ")).then(|| Pid::from_raw(id)).flatten()
    })
}

pub fn signal(process: Pid, signal: Signal) -> anyhow::Result<()> {
    kill_process(process, signal).with_context(|| format!("process {process:?} cannot be signalled"))
}

/// Lets a process go on that was stopped. One that stood still for so long that its Pod has another one now is gone.
pub fn resume(process: Pid) -> anyhow::Result<()> {
    match kill_process(process, Signal::CONT) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("process {process:?} does not go on")),
    }
}
