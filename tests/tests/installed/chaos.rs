//! Changes while what carries them is killed, paused and doubled. In the end each proxy does what the objects say.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::Signal;
use tollgate_tests::lab::install::NAMESPACE;
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::lab::{Lab, PATIENCE, WAIT};
use tollgate_tests::poll;

use crate::dump;
use crate::faults::{kill_one, paused, process_of, resume, signal, watch_gap};
use crate::shop::{self, Load};

e2e! {
    after_chaos_each_proxy_does_what_the_objects_say,
}

const ROUTES: u32 = 40;
const STEPS: u32 = 24;
const SEED: u64 = 20_261_128;
/// Proxies that tell what they go by: from before, and made in the end.
const OLD: &str = "old";
const NEW: &str = "new";

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
    lab.upgrade(&["replicas=2"]).await?;
    dump::watched(&lab, "chaos", "shop-tollgate", OLD).await?;
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
                let leader = poll::until("the leader lives", || async { process_of(&lab.leader().await?) }).await?;
                signal(leader, Signal::STOP)?;
                for _ in 0..4 {
                    change(&lab, &mut wanted, &mut random).await?;
                    tokio::time::sleep(Duration::from_secs(3)).await;
                }
                resume(leader)?;
            }
            16 => {
                kill_one(&lab).await?;
                kill_one(&lab).await?;
            }
            18 => watch_gap(&lab, async || change(&lab, &mut wanted, &mut random).await).await?,
            20 => paused(&lab, "etcd", Duration::from_secs(2)).await?,
            _ => {}
        }
    }
    let rollout = ["-n", NAMESPACE, "rollout", "status", "deployment/tollgate", WAIT];
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
    all_is_as_if_new(&lab, &wanted).await?;
    for name in [OLD, NEW] {
        dump::unwatched(&lab, "chaos", name).await?;
    }
    lab.upgrade(&[]).await?;
    answered.all_right()
}

/// Makes a control plane that knows nothing, and a proxy that knows nothing. That one is sent what the old one has.
async fn all_is_as_if_new(lab: &Lab, wanted: &BTreeMap<u32, u32>) -> anyhow::Result<()> {
    lab.kubectl(&["-n", NAMESPACE, "rollout", "restart", "deployment/tollgate"]).await?.success()?;
    lab.kubectl(&["-n", NAMESPACE, "rollout", "status", "deployment/tollgate", WAIT]).await?.success()?;
    dump::watched(lab, "chaos", "shop-tollgate", NEW).await?;
    poll::until("a new proxy has what the old one has", || async {
        let (has, would_have) = (dump::taken(OLD)?, dump::taken(NEW)?);
        anyhow::ensure!(has == would_have, "the old one:\n{has:#}\nthe new one:\n{would_have:#}");
        let text = has.to_string();
        let missing: Vec<_> =
            wanted.values().filter(|version| !text.contains(&format!("v-{version}.example"))).collect();
        anyhow::ensure!(missing.is_empty(), "{missing:?} are not in\n{has:#}");
        Ok(())
    })
    .await
}

/// Changes some routes, makes some and deletes some. An API server that stood still a moment ago may refuse.
async fn change(lab: &Lab, wanted: &mut BTreeMap<u32, u32>, random: &mut StdRng) -> anyhow::Result<()> {
    let mut set = String::new();
    for _ in 0..6 {
        let (number, version) = (random.random_range(0..ROUTES), random.random::<u32>());
        set += &ROUTE.replace("NUMBER", &number.to_string()).replace("VERSION", &version.to_string());
        wanted.insert(number, version);
    }
    // A route may stand there twice, and the last one counts.
    poll::within(PATIENCE, "the routes are taken", || async {
        lab.kubectl_with(&["apply", "-f", "-"], &set).await?.success()
    })
    .await?;
    for _ in 0..2 {
        let number = random.random_range(0..ROUTES);
        if wanted.remove(&number).is_some() {
            let name = format!("route-{number}");
            let delete = ["-n", "chaos", "delete", "--ignore-not-found", "httproute", &name];
            poll::within(PATIENCE, "the route is deleted", || async { lab.kubectl(&delete).await?.success() }).await?;
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
