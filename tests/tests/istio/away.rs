//! Sidecars while the control plane is away. The other tests need it, so this comes last.

use std::sync::Arc;

use tollgate_tests::lab::Lab;
use tollgate_tests::lab::install::{CONTROL_PLANE, NAMESPACE};
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::poll;

use crate::members::{self, Caller};
use crate::sidecars::{host, policy};

e2e! {
    known_callers_are_served_without_the_control_plane,
}

async fn known_callers_are_served_without_the_control_plane(lab: Arc<Lab>) -> anyhow::Result<()> {
    let (ns, runner) = ("away", host("away"));
    members::namespace(&lab, ns).await?;
    members::runner(&lab, ns).await?;
    let web = Caller::start(&lab, ns, "web").await?;
    let stranger = Caller::start(&lab, ns, "stranger").await?;
    members::apply(&lab, ns, &policy(1_000_000)).await?;
    stranger.answered(&runner, 401, "the policy is in force").await?;
    // Leases are as large as what is asked for lately.
    for _ in 0..6 {
        web.limited(&runner, 1_000_000).await?;
    }
    members::rows(&lab, &format!("{ns}/web"), 6).await?;

    let scale = async |replicas: &str| {
        let replicas = format!("--replicas={replicas}");
        lab.kubectl(&["-n", NAMESPACE, "scale", "deployment/tollgate", &replicas]).await?.success()
    };
    scale("0").await?;
    poll::until("the control plane is gone", || async {
        let found = lab.kubectl(&["-n", NAMESPACE, "get", "pods", "-l", CONTROL_PLANE, "-o", "name"]).await?;
        anyhow::ensure!(found.out.is_empty(), "{found:?}");
        Ok(())
    })
    .await?;
    for _ in 0..2 {
        web.chat(&runner).await?.expect(200)?;
        stranger.chat(&runner).await?.expect(401)?;
    }
    scale("1").await?;
    lab.kubectl(&["-n", NAMESPACE, "rollout", "status", "deployment/tollgate", "--timeout=120s"]).await?.success()?;
    // What was used meanwhile is told now.
    members::rows(&lab, &format!("{ns}/web"), 8).await?;
    Ok(())
}
