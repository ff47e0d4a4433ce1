//! What `istioctl` and `tollgate mesh check` say of such a mesh, and of what is wrong in it.

use std::sync::Arc;

use anyhow::Context;
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::lab::{Lab, PATIENCE, WAIT};
use tollgate_tests::poll;

use crate::members;
use crate::sidecars::policy;

e2e! {
    istioctl_finds_nothing_wrong,
    mesh_check_finds_a_pod_that_has_no_sidecar,
}

/// Any EnvoyFilter is warned of.
const GENERAL: &str = "[IST0133]";

async fn istioctl_finds_nothing_wrong(lab: Arc<Lab>) -> anyhow::Result<()> {
    let ns = "looked-at";
    members::namespace(&lab, ns).await?;
    members::runner(&lab, ns).await?;
    members::apply(&lab, ns, &policy(1_000_000)).await?;
    let pod = lab.pod(ns, "app=runner").await?;
    // The sidecar asks istiod for the filter, and istiod has sent what it asked for.
    poll::within(PATIENCE, "istiod tells of the filter", || async {
        let proxies = lab.istioctl(&["proxy-status"]).await?.success()?;
        let own = proxies.out.lines().find(|line| line.starts_with(&pod)).with_context(|| proxies.out.clone())?;
        anyhow::ensure!(own.contains("ECDS"), "{own}");
        Ok(())
    })
    .await?;
    poll::within(PATIENCE, "the sidecar has the filter", || async {
        let carried = lab.istioctl(&["proxy-config", "ecds", &pod, "-n", ns]).await?.success()?;
        anyhow::ensure!(carried.out.contains("tollgate/workload/looked-at/runner/inbound/request"), "{carried:?}");
        Ok(())
    })
    .await?;

    let analyzed = lab.istioctl(&["analyze", "-A"]).await?;
    let wrong: Vec<_> = analyzed
        .out
        .lines()
        .filter(|line| !line.starts_with("Info") && !line.contains(GENERAL) && !line.trim().is_empty())
        .collect();
    anyhow::ensure!(wrong.is_empty(), "{wrong:#?}");
    anyhow::ensure!(analyzed.out.contains(GENERAL), "it has looked at our EnvoyFilter: {analyzed:?}");
    Ok(())
}

async fn mesh_check_finds_a_pod_that_has_no_sidecar(lab: Arc<Lab>) -> anyhow::Result<()> {
    let ns = "checked";
    members::namespace(&lab, ns).await?;
    members::runner(&lab, ns).await?;
    members::apply(&lab, ns, &policy(1_000_000)).await?;
    let well = poll::within(PATIENCE, "all is well", || async { lab.tollgate(&["mesh", "check"])?.success() }).await?;
    anyhow::ensure!(well.out.contains("errors: 0; warnings: 0"), "{well:?}");

    let outside = r#"{"spec": {"template": {"metadata": {"labels": {"sidecar.istio.io/inject": "false"}}}}}"#;
    lab.kubectl(&["-n", ns, "patch", "deployment/runner", "-p", outside]).await?.success()?;
    lab.kubectl(&["-n", ns, "rollout", "status", "deployment/runner", WAIT]).await?.success()?;
    let pod = lab.pod(ns, "sidecar.istio.io/inject=false").await?;
    // The Pod from before may end yet.
    poll::within(PATIENCE, "the Pod is told of", || async {
        let wrong = lab.tollgate(&["mesh", "check"])?;
        let line = "error: EnvoyFilter checked/tollgate-inbound-runner: 1 of 1 Pods have no sidecar";
        anyhow::ensure!(wrong.code == Some(1) && wrong.out.contains(line) && wrong.out.contains(&pod), "{wrong:?}");
        Ok(())
    })
    .await
}
