//! Changes while what carries them is killed, paused and doubled. In the end each proxy does what the objects say.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::{Pid, Signal, kill_process};
use tollgate_tests::lab::Lab;
use tollgate_tests::lab::install::{NAMESPACE, VALUES};
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::poll;

use crate::shop::{self, Load};

e2e! {
    after_chaos_each_proxy_does_what_the_objects_say,
}

const ROUTES: u32 = 40;
const STEPS: u32 = 24;
const SEED: u64 = 20_261_128;

/// Redirects one path to a name that says its version.
const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: route-NUMBER, namespace: chaos}
spec:
  parentRefs: [{name: shop}]
  rules:
  - matches: [{path: {type: Exact, value: /route-NUMBER}}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: v-VERSION.example}}]
---
";

async fn after_chaos_each_proxy_does_what_the_objects_say(lab: Arc<Lab>) -> anyhow::Result<()> {
    let address = shop::web(&lab, "chaos", "").await?;
    let two = [&VALUES[..], &["replicas=2"]].concat();
    lab.helm("upgrade", &["--wait", "--timeout", "120s"], &two).await?;
    let load = Load::start(&lab, &format!("http://{address}/"), 200, &[])?;
    let mut random = StdRng::seed_from_u64(SEED);
    let mut wanted: BTreeMap<u32, u32> = BTreeMap::new();
    for step in 0..STEPS {
        // What the API server has acknowledged is never lost.
        change(&lab, &mut wanted, &mut random).await?;
        match step {
            4 => kill_one(&lab).await?,
            8 => paused(&lab, "kube-apiserver", Duration::from_secs(3)).await?,
            12 => {
                // Longer than a leader is given. The other one leads meanwhile, and there are changes that it misses.
                // One that was killed is named by the Lease until it is replaced.
                let leader = poll::until("the leader lives", || async { process_of(&leader(&lab).await?) }).await?;
                signal(leader, Signal::STOP)?;
                for _ in 0..4 {
                    change(&lab, &mut wanted, &mut random).await?;
                    tokio::time::sleep(Duration::from_secs(3)).await;
                }
                signal(leader, Signal::CONT)?;
            }
            16 => {
                kill_one(&lab).await?;
                kill_one(&lab).await?;
            }
            20 => paused(&lab, "etcd", Duration::from_secs(2)).await?,
            _ => {}
        }
    }
    let rollout = ["-n", NAMESPACE, "rollout", "status", "deployment/tollgate", "--timeout=90s"];
    lab.kubectl(&rollout).await?.success()?;
    poll::until("the proxy does what the objects say", || async {
        let answers = answers(&lab, &address).await?;
        let expected: Vec<String> = (0..ROUTES)
            .map(|number| match wanted.get(&number) {
                Some(version) => format!("http://v-{version}.example/route-{number}"),
                // The route for all paths has it.
                None => String::new(),
            })
            .collect();
        let differs: Vec<_> = answers.iter().zip(&expected).filter(|(answer, expected)| answer != expected).collect();
        anyhow::ensure!(answers.len() == expected.len() && differs.is_empty(), "{differs:?}");
        Ok(())
    })
    .await?;
    for number in wanted.keys() {
        let accepted =
            "{.status.parents[0].conditions[?(@.type=='Accepted')].observedGeneration}/{.metadata.generation}";
        let name = format!("route-{number}");
        poll::until("each status is about the last generation", || async {
            let found = lab.field(&["-n", "chaos", "httproute", &name], accepted).await?;
            let (observed, generation) = found.split_once('/').context("no generation")?;
            anyhow::ensure!(observed == generation, "{name}: {found}");
            Ok(())
        })
        .await?;
    }
    let answered = load.stop()?;
    println!("    {} requests meanwhile, {} wrong", answered.requests, answered.wrong.len());
    lab.helm("upgrade", &["--wait", "--timeout", "120s"], &VALUES).await?;
    answered.all_right()
}

/// Changes some routes, makes some and deletes some.
async fn change(lab: &Lab, wanted: &mut BTreeMap<u32, u32>, random: &mut StdRng) -> anyhow::Result<()> {
    let mut set = String::new();
    for _ in 0..6 {
        let (number, version) = (random.random_range(0..ROUTES), random.random::<u32>());
        set += &ROUTE.replace("NUMBER", &number.to_string()).replace("VERSION", &version.to_string());
        wanted.insert(number, version);
    }
    // A route may stand there twice, and the last one counts.
    lab.kubectl_with(&["apply", "-f", "-"], &set).await?.success()?;
    for _ in 0..2 {
        let number = random.random_range(0..ROUTES);
        if wanted.remove(&number).is_some() {
            lab.kubectl(&["-n", "chaos", "delete", "httproute", &format!("route-{number}")]).await?.success()?;
        }
    }
    Ok(())
}

/// Where each path leads.
async fn answers(lab: &Lab, address: &str) -> anyhow::Result<Vec<String>> {
    let mut script = String::new();
    for number in 0..ROUTES {
        writeln!(script, "curl -s -o /dev/null -w '%{{redirect_url}}\\n' http://{address}/route-{number}")?;
    }
    let output = lab.exec(&["sh", "-c", &script]).await?.success()?;
    Ok(output.out.lines().map(str::to_owned).collect())
}

/// Kills a Pod of the control plane without a word.
async fn kill_one(lab: &Lab) -> anyhow::Result<()> {
    let pods =
        ["-n", NAMESPACE, "pods", "-l", "app.kubernetes.io/name=tollgate", "--field-selector=status.phase=Running"];
    let pod = lab.field(&pods, "{.items[0].metadata.name}").await?;
    lab.kubectl(&["-n", NAMESPACE, "delete", "pod", &pod, "--grace-period=0", "--force"]).await?.success()?;
    Ok(())
}

/// Holds a component of the cluster for a while.
async fn paused(lab: &Lab, component: &str, time: Duration) -> anyhow::Result<()> {
    let of_lab = lab.home().to_str().context("a path in UTF-8")?.to_owned();
    let process = process("cmdline", |line| line.starts_with(&format!("lab {component} ")) && line.contains(&of_lab))?;
    signal(process, Signal::STOP)?;
    tokio::time::sleep(time).await;
    signal(process, Signal::CONT)
}

/// The Pod of the control plane that leads.
pub async fn leader(lab: &Lab) -> anyhow::Result<String> {
    lab.field(&["-n", NAMESPACE, "lease", "tollgate-controller"], "{.spec.holderIdentity}").await
}

/// The process of a Pod. Its name is in the environment.
pub fn process_of(pod: &str) -> anyhow::Result<Pid> {
    let is_of_pod = format!("POD_NAME={pod}");
    process("environ", |text| text.split(' ').any(|variable| variable == is_of_pod))
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
