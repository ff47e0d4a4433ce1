//! Two replicas on one volume: one ledger, whichever of them a proxy or a person asks, and the same one when another leads.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::Signal;
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tollgate_tests::lab::install::{CONTROL_PLANE, NAMESPACE, TWO_REPLICAS};
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::lab::{Lab, PATIENCE, WAIT};
use tollgate_tests::poll;

use crate::chain::{BUDGET, Chain, chain, chat};
use crate::faults::{process_of, resume, signal};
use crate::shop::{self, Answer};

e2e! {
    two_replicas_have_the_same_books,
}

const CONSUMER: &str = "books/research";
/// Which control plane a proxy comes to is chance. One that is deleted takes half a minute to end, because its leases go back.
const CHANCE: Duration = Duration::from_secs(1200);
/// Where the admin API of a control plane is, and proxies.
const ADMIN: &str = "127.0.0.1:19000";
const XDS: u16 = 18000;
const TOKENS: [&str; 2] = ["input_tokens", "output_tokens"];
/// Clients that ask all the time.
const CLIENTS: usize = 2;
const ENOUGH: u64 = 40;

/// Enough for both replicas.
const PROXIES: &str = "
apiVersion: tollgate.dev/v1alpha1
kind: ProxyParameters
metadata: {name: several, namespace: NAMESPACE}
spec: {replicas: 2}
";
const SEVERAL: &str = r#"{"spec":{"infrastructure":{"parametersRef":{"group":"tollgate.dev","kind":"ProxyParameters","name":"several"}}}}"#;

/// Clients that add up what they are told they used.
struct Clients {
    stop: watch::Sender<bool>,
    answers: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<anyhow::Result<Added>>>,
}

#[derive(Debug, Default)]
struct Added {
    requests: u64,
    tokens: u64,
    refused: Vec<Answer>,
}

async fn two_replicas_have_the_same_books(lab: Arc<Lab>) -> anyhow::Result<()> {
    lab.install_books().await?;
    lab.upgrade(&TWO_REPLICAS).await?;
    let pods = poll::until("there are two replicas", || replicas(&lab)).await?;

    let Chain { url, research } = chain(&lab, "books", &format!("{BUDGET}---{PROXIES}")).await?;
    // What was used before somebody adds it up.
    let before = settled(&pods, None).await?;
    let clients = Clients::start(&lab, &url, &research);
    lab.kubectl(&["-n", "books", "patch", "gateway", "llm", "--type", "merge", "-p", SEVERAL]).await?.success()?;
    poll::within(CHANCE, "each replica has a proxy", || each_has_a_proxy(&lab, &pods)).await?;
    a_gateway_of_a_follower_is_programmed(&lab, &pods).await?;
    let books = async |pod: &str, more: u64| {
        poll::until("the books grow", || async {
            let used = sum(&asked(pod, "usage").await?, &TOKENS);
            anyhow::ensure!(used > more, "{pod}: {used}");
            Ok(used)
        })
        .await
    };
    let [one, other] = &pods;
    books(one, books(other, before).await?).await?;

    // Killed without a word.
    clients.settle().await?;
    let (killed, at) = (lab.leader().await?, Instant::now());
    lab.kubectl(&["-n", NAMESPACE, "delete", "pod", &killed, "--grace-period=0", "--force"]).await?.success()?;
    let next = poll::within(PATIENCE, "another one leads", || another_leads(&lab, &killed)).await?;
    let used = books(&next, before).await?;
    println!("    a leader that was killed was replaced after {:.1} s", at.elapsed().as_secs_f64());
    let pods = poll::until("there are two replicas again", || replicas(&lab)).await?;
    for pod in &pods {
        books(pod, used).await?;
    }

    // Stopped, and gone on. It gives the file up when it sees that it does not lead any more.
    clients.settle().await?;
    let (stopped, at) = (lab.leader().await?, Instant::now());
    let process = process_of(&stopped)?;
    signal(process, Signal::STOP)?;
    let next = poll::until("another one leads", || another_leads(&lab, &stopped)).await;
    resume(process)?;
    for pod in [next?, stopped] {
        books(&pod, used).await?;
    }
    println!(
        "    one that was stopped was replaced, and both have the books after {:.1} s",
        at.elapsed().as_secs_f64()
    );

    let added = clients.stop().await?;
    println!("    {} requests, {} tokens", added.requests, added.tokens);
    anyhow::ensure!(added.refused.is_empty(), "{:?}", added.refused);
    settled(&pods, Some(before + added.tokens)).await?;
    lab.upgrade(&[]).await
}

pub async fn another_leads(lab: &Lab, before: &str) -> anyhow::Result<String> {
    let now = lab.leader().await?;
    anyhow::ensure!(now != before, "{now} leads");
    Ok(now)
}

/// The Pods of the control plane, once there are two and both are ready.
pub async fn replicas(lab: &Lab) -> anyhow::Result<[String; 2]> {
    let list = ["-n", NAMESPACE, "get", "pods", "-l", CONTROL_PLANE, "-o", "json"];
    let list: Value = serde_json::from_str(&lab.kubectl(&list).await?.success()?.out)?;
    let pods = list.get("items").and_then(Value::as_array).context("no list")?;
    let is_ready = |pod: &&Value| {
        let conditions = pod.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
        let mut ready = conditions.filter(|condition| condition.get("type") == Some(&"Ready".into()));
        pod.pointer("/metadata/deletionTimestamp").is_none()
            && ready.any(|condition| condition.get("status") == Some(&"True".into()))
    };
    let names = pods.iter().filter(is_ready).filter_map(|pod| pod.pointer("/metadata/name")?.as_str());
    let names: Vec<String> = names.map(str::to_owned).collect();
    anyhow::ensure!(pods.len() == names.len(), "{} Pods, ready: {names:?}", pods.len());
    names.try_into().map_err(|names| anyhow::anyhow!("ready: {names:?}"))
}

/// Deletes proxies of the Gateway until each replica serves one of them.
async fn each_has_a_proxy(lab: &Lab, pods: &[String]) -> anyhow::Result<()> {
    let rollout = ["-n", "books", "rollout", "status", "deployment/llm-tollgate", WAIT];
    lab.kubectl(&rollout).await?.success()?;
    let proxies = proxies(lab, "books", "llm").await?;
    anyhow::ensure!(proxies.len() == 2, "{proxies:?}");
    for pod in pods {
        if served_by(pod)?.is_disjoint(&proxies.iter().map(|(_, address)| *address).collect()) {
            let (any, _) = proxies.first().context("there is none")?;
            lab.kubectl(&["-n", "books", "delete", "pod", any]).await?.success()?;
            anyhow::bail!("{pod} serves none of {proxies:?}");
        }
    }
    Ok(())
}

/// Makes Gateways until the one that does not lead serves a proxy of one.
async fn a_gateway_of_a_follower_is_programmed(lab: &Lab, pods: &[String]) -> anyhow::Result<()> {
    let leader = lab.leader().await?;
    let follower = pods.iter().find(|pod| **pod != leader).context("all of them lead")?;
    // It is chance: one in a million is left.
    for number in 0..20 {
        let name = format!("new-{number}");
        lab.apply(&GATEWAY.replace("NAME", &name)).await?;
        shop::programmed(lab, "books", &name).await?;
        let proxies = proxies(lab, "books", &name).await?.into_iter().map(|(_, address)| address);
        if !served_by(follower)?.is_disjoint(&proxies.collect()) {
            return Ok(());
        }
    }
    anyhow::bail!("no proxy has come to {follower}")
}

const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: NAME, namespace: books}
spec: {gatewayClassName: tollgate, listeners: [{name: http, port: 80, protocol: HTTP}]}
";

/// Names and addresses of a Gateway's proxies.
pub async fn proxies(lab: &Lab, namespace: &str, gateway: &str) -> anyhow::Result<Vec<(String, Ipv4Addr)>> {
    let label = format!("gateway.networking.k8s.io/gateway-name={gateway}");
    let rows = "{range .items[*]}{.metadata.name} {.status.podIP};{end}";
    let found = lab.field(&["-n", namespace, "pods", "-l", &label], rows).await?;
    found
        .split_terminator(';')
        .map(|row| {
            let (name, address) = row.split_once(' ').context("no address")?;
            Ok((name.to_owned(), address.parse()?))
        })
        .collect()
}

/// The addresses that have a connection to the xDS server of this Pod.
fn served_by(pod: &str) -> anyhow::Result<BTreeSet<Ipv4Addr>> {
    const ESTABLISHED: &str = "01";
    let process = process_of(pod)?.as_raw_nonzero();
    let table = std::fs::read_to_string(format!("/proc/{process}/net/tcp"))?;
    // 1: 0A01F40A:4650 0B01F40A:C350 01 ...
    let peer = |line: &str| {
        let mut columns = line.split_whitespace().skip(1);
        let (local, peer, state) = (columns.next()?, columns.next()?, columns.next()?);
        let is_ours = local.ends_with(&format!(":{XDS:04X}")) && state == ESTABLISHED;
        let address = u32::from_str_radix(peer.split(':').next()?, 16).ok().filter(|_| is_ours)?;
        Some(Ipv4Addr::from(address.to_ne_bytes()))
    };
    Ok(table.lines().filter_map(peer).collect())
}

/// Waits until both replicas say the same of what was used and of the budget, and it is what is expected.
async fn settled(pods: &[String], expected: Option<u64>) -> anyhow::Result<u64> {
    poll::until("the books of both replicas are the same", || async {
        let used = sum(&asked_all(pods, "usage").await?, &TOKENS);
        let spent = sum(&asked_all(pods, "budgets").await?, &["spent"]);
        anyhow::ensure!(used == spent && used > 0, "{used} were used, and {spent} of the budget are spent");
        anyhow::ensure!(expected.is_none_or(|expected| expected == used), "{used} were used, not {expected:?}");
        Ok(used)
    })
    .await
}

/// What all of the Pods answer alike.
async fn asked_all(pods: &[String], what: &str) -> anyhow::Result<Vec<Value>> {
    let mut answers = Vec::new();
    for pod in pods {
        answers.push(asked(pod, what).await?);
    }
    let first = answers.pop().context("there is no Pod")?;
    anyhow::ensure!(answers.iter().all(|other| *other == first), "{first:?} and {answers:?}");
    Ok(first)
}

/// What a Pod's admin API says of the consumer.
async fn asked(pod: &str, what: &str) -> anyhow::Result<Vec<Value>> {
    let rows = told(pod, what).await?.into_iter();
    let is_of_consumer =
        |row: &Value| [row.get("consumer"), row.pointer("/scope/Consumer")].contains(&Some(&CONSUMER.into()));
    Ok(rows.filter(is_of_consumer).collect())
}

/// The rows that a Pod's admin API has under this name. It listens where nobody else is.
pub async fn told(pod: &str, what: &str) -> anyhow::Result<Vec<Value>> {
    let process = process_of(pod)?.as_raw_nonzero().to_string();
    let url = format!("http://{ADMIN}/api/{what}");
    let curl = ["curl", "-s", "--fail-with-body", "--max-time", "120", &url];
    let output = Command::new("nsenter").args(["--target", &process, "--net"]).args(curl).output().await?;
    let mut answer: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
    let rows = answer.get_mut("rows").and_then(Value::as_array_mut).context("no rows")?;
    Ok(std::mem::take(rows))
}

fn sum(rows: &[Value], fields: &[&str]) -> u64 {
    rows.iter().flat_map(|row| fields.iter().filter_map(|field| row.get(field)?.as_u64())).sum()
}

// === impl Clients ===

impl Clients {
    fn start(lab: &Arc<Lab>, url: &str, key: &str) -> Self {
        let (stop, stopped) = watch::channel(false);
        let answers = Arc::new(AtomicU64::new(0));
        let client = |_| {
            let (lab, url, key, stopped) = (Arc::clone(lab), url.to_owned(), key.to_owned(), stopped.clone());
            let answers = Arc::clone(&answers);
            tokio::spawn(async move {
                let mut added = Added::default();
                while !*stopped.borrow() {
                    added.add(chat(&lab, &url, &key).await?)?;
                    answers.fetch_add(1, Ordering::Relaxed);
                }
                Ok(added)
            })
        };
        Self { tasks: (0..CLIENTS).map(client).collect(), stop, answers }
    }

    /// Waits until proxies know what these clients need in a while.
    async fn settle(&self) -> anyhow::Result<()> {
        let before = self.answers.load(Ordering::Relaxed);
        poll::within(PATIENCE, "the clients are answered", || async {
            let more = self.answers.load(Ordering::Relaxed) - before;
            anyhow::ensure!(more >= ENOUGH, "{more} answers");
            Ok(())
        })
        .await
    }

    async fn stop(self) -> anyhow::Result<Added> {
        self.stop.send_replace(true);
        let mut all = Added::default();
        for task in self.tasks {
            let Added { requests, tokens, refused } = task.await??;
            all.requests += requests;
            all.tokens += tokens;
            all.refused.extend(refused);
        }
        Ok(all)
    }
}

// === impl Added ===

impl Added {
    fn add(&mut self, answer: Answer) -> anyhow::Result<()> {
        self.requests += 1;
        if answer.status != 200 {
            self.refused.push(answer);
            return Ok(());
        }
        let told: Value = serde_json::from_str(&answer.body)?;
        self.tokens += told.pointer("/usage/total_tokens").and_then(Value::as_u64).context("no usage")?;
        Ok(())
    }
}
