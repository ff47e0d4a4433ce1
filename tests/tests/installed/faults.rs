//! What goes wrong on purpose: processes that are killed, or stand still for a while.

use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tollgate_tests::lab::Lab;
use tollgate_tests::lab::install::{CONTROL_PLANE, NAMESPACE};
use tollgate_tests::poll;

const PODS: [&str; 5] = ["-n", NAMESPACE, "pods", "-l", CONTROL_PLANE];
const API_SERVER: &str = "kube-apiserver";
/// Where the lab's etcd answers.
const ETCD: &str = "http://127.0.0.1:2379";

/// Kills a Pod of the control plane without a word.
pub async fn kill_one(lab: &Lab) -> anyhow::Result<()> {
    let pods = running(lab).await?;
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
    let stand: Vec<Pid> = running(lab).await?.iter().map(|pod| process_of(pod)).collect::<Result<_, _>>()?;
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
        let before = component(lab, API_SERVER)?;
        signal(before, Signal::KILL)?;
        poll::within(Duration::from_secs(60), "the API server is back", || async {
            anyhow::ensure!(component(lab, API_SERVER)? != before, "it lives yet");
            lab.kubectl(&["get", "--raw", "/readyz"]).await?.success()
        })
        .await?;
        anyhow::Ok(())
    }
    .await;
    stand.iter().try_for_each(|process| signal(*process, Signal::CONT))?;
    forgotten
}

/// Holds a component of the cluster for a while.
pub async fn paused(lab: &Lab, name: &str, time: Duration) -> anyhow::Result<()> {
    let process = component(lab, name)?;
    signal(process, Signal::STOP)?;
    tokio::time::sleep(time).await;
    signal(process, Signal::CONT)
}

fn component(lab: &Lab, name: &str) -> anyhow::Result<Pid> {
    let of_lab = lab.home().to_str().context("a path in UTF-8")?;
    process("cmdline", |line| line.starts_with(&format!("lab {name} ")) && line.contains(of_lab))
}

/// The process of a Pod. Its name is in the environment.
pub fn process_of(pod: &str) -> anyhow::Result<Pid> {
    let is_of_pod = format!("POD_NAME={pod}");
    process("environ", |text| text.split(' ').any(|variable| variable == is_of_pod))
}

/// The Envoy of a proxy's Pod.
pub fn envoy_of(pod: &str) -> anyhow::Result<u32> {
    let proxy = process_of(pod)?.as_raw_nonzero();
    let children = std::fs::read_to_string(format!("/proc/{proxy}/task/{proxy}/children"))?;
    Ok(children.split_whitespace().next().context("the Pod has no Envoy")?.parse()?)
}

/// The first process that says so in this file of /proc.
fn process(file: &str, is_it: impl Fn(&str) -> bool) -> anyhow::Result<Pid> {
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let line = std::fs::read(entry.path().join(file)).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if is_it(&line)
            && let Some(pid) = Pid::from_raw(id)
        {
            return Ok(pid);
        }
    }
    anyhow::bail!("there is no such process")
}

pub fn signal(process: Pid, signal: Signal) -> anyhow::Result<()> {
    kill_process(process, signal).with_context(|| format!("process {process:?} cannot be signalled"))
}
