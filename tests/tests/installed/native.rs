//! The filter as a dynamic module in the proxies' Pods: they fetch it from the control plane, and change to it and back
//! in place.

use std::sync::Arc;
use std::time::Instant;

use tollgate_tests::lab::suite::e2e;
use tollgate_tests::lab::{Lab, PATIENCE};
use tollgate_tests::poll;

use crate::chain::{Chain, chain, chat, used};
use crate::faults::envoy_of;

e2e! {
    proxies_in_pods_run_the_filter_as_a_module,
}

async fn proxies_in_pods_run_the_filter_as_a_module(lab: Arc<Lab>) -> anyhow::Result<()> {
    let namespace = "native";
    let Chain { url, research } = chain(&lab, namespace, "").await?;
    let of_gateway = ["-n", namespace, "pods", "-l", "gateway.networking.k8s.io/gateway-name=llm"];
    let pod = lab.field(&of_gateway, "{.items[0].metadata.name}").await?;
    anyhow::ensure!(!has_module(&pod)?, "nobody has chosen it yet");

    lab.upgrade(&["extraArgs={--filter,native}"]).await?;
    // Each Envoy fetches the module, and takes it when it is there.
    let early = on_the_way(&lab, &url, &research, || has_module(&pod)).await?;
    let before = used(&lab, namespace, "research").await?;
    let answer = chat(&lab, &url, "tg-nobody").await?;
    anyhow::ensure!(answer.status == 401 && answer.body.contains("invalid_api_key"), "{answer:?}");
    for number in 0..5 {
        let answer = chat(&lab, &url, &research).await?;
        anyhow::ensure!(answer.status == 200, "request {number}: {answer:?}");
    }
    poll::until("what was used is in the books", || async {
        let now = used(&lab, namespace, "research").await?;
        anyhow::ensure!(now > before, "{now} tokens, as before");
        Ok(())
    })
    .await?;

    lab.upgrade(&[]).await?;
    let back = on_the_way(&lab, &url, &research, || Ok(true)).await?;
    println!("    {early} requests on the way, and {back} on the way back, came before the keys");
    let same = lab.field(&of_gateway, "{.items[0].metadata.name}").await?;
    anyhow::ensure!(same == pod, "the Pod was replaced: {same}");
    Ok(())
}

/// Asks until ten answers in a row are good and this is so. Keys of one form are not the other's, so for a moment there are
/// none; no other answer than that is right. Says how many answers were so.
async fn on_the_way(
    lab: &Lab,
    url: &str,
    key: &str,
    is_so: impl Fn() -> anyhow::Result<bool>,
) -> anyhow::Result<usize> {
    let end = Instant::now() + PATIENCE;
    let (mut early, mut good) = (0, 0);
    while good < 10 || !is_so()? {
        anyhow::ensure!(Instant::now() < end, "it is not so after {PATIENCE:?}; {early} requests came before the keys");
        let answer = chat(lab, url, key).await?;
        if answer.status == 200 {
            good += 1;
            continue;
        }
        anyhow::ensure!(answer.status == 503 && answer.body.contains("has not loaded its API keys yet"), "{answer:?}");
        (early, good) = (early + 1, 0);
    }
    Ok(early)
}

/// Whether the Envoy of a proxy's Pod has the module in its memory.
fn has_module(pod: &str) -> anyhow::Result<bool> {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", envoy_of(pod)?))?;
    Ok(maps.lines().any(|line| line.contains("r-xp") && line.contains("envoy_dynamic_module")))
}
