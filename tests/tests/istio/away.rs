//! Sidecars while the control plane is away. The other tests need it, so this comes last.

use std::sync::Arc;

use tollgate_tests::lab::books;
use tollgate_tests::lab::install::{CONTROL_PLANE, NAMESPACE};
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::lab::{Lab, WAIT};
use tollgate_tests::poll;

use crate::members;
use crate::sidecars::{host, policy};

e2e! {
    known_callers_are_served_without_the_control_plane,
    a_sidecar_that_starts_without_the_control_plane_lets_nobody_pass_and_recovers,
}

async fn known_callers_are_served_without_the_control_plane(lab: Arc<Lab>) -> anyhow::Result<()> {
    let (ns, runner) = ("away", host("away"));
    members::namespace(&lab, ns).await?;
    members::runner(&lab, ns).await?;
    let web = members::caller(&lab, ns, "web").await?;
    let stranger = members::caller(&lab, ns, "stranger").await?;
    members::apply(&lab, ns, &policy(1_000_000)).await?;
    stranger.answered(&runner, 401, "the policy is in force").await?;
    members::drained(&lab, ns).await?;
    // Leases are as large as what is asked for lately.
    for _ in 0..6 {
        web.limited(&runner, 1_000_000).await?;
    }
    books::rows(&lab, &format!("{ns}/web"), 6).await?;

    take_away(&lab).await?;
    for _ in 0..2 {
        web.chat(&runner).await?.expect(200)?;
        stranger.chat(&runner).await?.expect(401)?;
    }
    bring_back(&lab).await?;
    // What was used meanwhile is told now. What was told before has ended with the old Pod, whose books are on no volume here.
    books::rows(&lab, &format!("{ns}/web"), 2).await?;
    Ok(())
}

/// Its agent cannot fetch the filter's code, and tries again only when istiod tells it of the filter again.
async fn a_sidecar_that_starts_without_the_control_plane_lets_nobody_pass_and_recovers(
    lab: Arc<Lab>,
) -> anyhow::Result<()> {
    let (ns, runner) = ("late", host("late"));
    // The test before this one may have failed.
    bring_back(&lab).await?;
    members::namespace(&lab, ns).await?;
    members::runner(&lab, ns).await?;
    let web = members::caller(&lab, ns, "web").await?;
    members::apply(&lab, ns, &policy(1_000_000)).await?;
    web.limited(&runner, 1_000_000).await?;

    take_away(&lab).await?;
    lab.kubectl(&["-n", ns, "delete", "pod", "-l", "app=runner"]).await?.success()?;
    lab.kubectl(&["-n", ns, "rollout", "status", "deployment/runner", WAIT]).await?.success()?;
    web.answered(&runner, 500, "nobody passes without the filter").await?;
    bring_back(&lab).await?;
    web.limited(&runner, 1_000_000).await?;
    Ok(())
}

async fn take_away(lab: &Lab) -> anyhow::Result<()> {
    scale(lab, "0").await?;
    poll::until("the control plane is gone", || async {
        let found = lab.kubectl(&["-n", NAMESPACE, "get", "pods", "-l", CONTROL_PLANE, "-o", "name"]).await?;
        anyhow::ensure!(found.out.is_empty(), "{found:?}");
        Ok(())
    })
    .await
}

async fn bring_back(lab: &Lab) -> anyhow::Result<()> {
    scale(lab, "1").await?;
    lab.kubectl(&["-n", NAMESPACE, "rollout", "status", "deployment/tollgate", WAIT]).await?.success()?;
    Ok(())
}

async fn scale(lab: &Lab, replicas: &str) -> anyhow::Result<()> {
    let replicas = format!("--replicas={replicas}");
    lab.kubectl(&["-n", NAMESPACE, "scale", "deployment/tollgate", &replicas]).await?.success()?;
    Ok(())
}
