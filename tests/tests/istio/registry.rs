//! The filter's code as an image in a registry, or as a file, from where Istio's agents fetch it in place of the control plane.

use std::process::Stdio;
use std::sync::Arc;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tollgate_tests::lab::caller::Caller;
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::lab::{Lab, PATIENCE, WAIT};
use tollgate_tests::poll;

use crate::members;
use crate::sidecars::{host, policy};

e2e! {
    agents_fetch_the_filter_from_another_place,
}

/// Where the registry is: on the node of the lab.
const REGISTRY: &str = "10.98.0.1:5000";
/// Where an EnvoyFilter says that the code is.
const URI: &str = "{.spec.configPatches[0].patch.value.typed_config.config.vm_config.code.remote.http_uri.uri}";

/// It ends when its standard input does: with this value.
struct Registry {
    _process: Child,
    /// Of its image.
    digest: String,
}

async fn agents_fetch_the_filter_from_another_place(lab: Arc<Lab>) -> anyhow::Result<()> {
    let ns = "registry";
    members::namespace(&lab, ns).await?;
    members::runner(&lab, ns).await?;
    let web = members::caller(&lab, ns, "web").await?;
    members::apply(&lab, ns, &policy(1_000_000)).await?;
    web.limited(&host(ns), 1_000_000).await?;
    // The code as the control plane itself serves it.
    let code = lab.home().join("filter.wasm");
    let code = code.to_str().context("a path in UTF-8")?;
    let uri = poll::until("there is an EnvoyFilter", || uri(&lab, ns)).await?;
    lab.exec(&["curl", "-sf", "-o", code, &uri]).await?.success()?;

    let registry = Registry::start(&lab, code).await?;
    let image = format!("oci://{REGISTRY}/tollgate/filter@{}", registry.digest);
    // To whoever asks by its digest, the registry gives the code as a file.
    let (_, hash) = uri.rsplit_once('/').context("the code has a path")?;
    let file = format!("http://{REGISTRY}/v2/tollgate/filter/blobs/sha256:{}", hash.trim_end_matches(".wasm"));
    let mut result = Ok(());
    for url in [image, file] {
        lab.upgrade_tollgate_in_mesh(&[&format!("serviceMesh.sidecarCodeUrl={url}")]).await?;
        result = result.and(fetched(&lab, ns, &url, &web).await);
    }
    lab.upgrade_tollgate_in_mesh(&[]).await?;
    result
}

async fn fetched(lab: &Lab, ns: &str, url: &str, web: &Caller<'_>) -> anyhow::Result<()> {
    poll::within(PATIENCE, "the EnvoyFilter names the place", || async {
        let found = uri(lab, ns).await?;
        anyhow::ensure!(found == url, "{found}");
        Ok(())
    })
    .await?;
    // An agent that has fetched nothing yet. Without the code nobody passes its sidecar.
    lab.kubectl(&["-n", ns, "delete", "pod", "-l", "app=runner"]).await?.success()?;
    lab.kubectl(&["-n", ns, "rollout", "status", "deployment/runner", WAIT]).await?.success()?;
    web.limited(&host(ns), 1_000_000).await
}

async fn uri(lab: &Lab, namespace: &str) -> anyhow::Result<String> {
    lab.field(&["-n", namespace, "envoyfilter", "tollgate-inbound-runner"], URI).await
}

// === impl Registry ===

impl Registry {
    /// Starts one with this code as its only image.
    async fn start(lab: &Lab, code: &str) -> anyhow::Result<Self> {
        let program = env!("CARGO_BIN_EXE_oci-registry");
        let mut command = Command::from(lab.inside(&[program, "0.0.0.0:5000", code]));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let said = BufReader::new(process.stdout.take().context("it has no output")?).lines().next_line().await?;
        Ok(Self { _process: process, digest: said.context("it has said nothing")? })
    }
}
