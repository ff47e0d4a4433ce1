//! Processes that end, and are there again.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal};
use tokio::time::sleep;
use tollgate_tests::lab::install::NAMESPACE;
use tollgate_tests::lab::{PATIENCE, WAIT};
use tollgate_tests::poll;
use tollgate_tests::process::is_alive;
use tollgate_tests::soak::backend::Port;

use super::{GATEWAY, PLACE, QUIET, Run};
use crate::authority;
use crate::faults::{envoy_of, kill_api_server, process_of, signal};
use crate::replicas::{another_leads, proxies, replicas};

/// A proxy that has just begun knows by then what its clients need while no control plane leads.
const LEARNT: Duration = Duration::from_secs(15);
/// After another CA each proxy that has a new certificate has called the ledger again by then.
const CERTIFIED: Duration = Duration::from_secs(15);
/// A backend is away for so long.
const AWAY: Duration = Duration::from_secs(2);
/// A request's usage is in the books 2 s after its end; ten times that, on a busy machine.
const REPORTED: Duration = Duration::from_secs(20);

impl Run {
    pub(super) async fn leader_is_killed(&mut self) -> anyhow::Result<()> {
        sleep(LEARNT).await;
        let leader = self.lab.leader().await?;
        // With its Pod. A process that its Pod starts again at once would lead again.
        self.lab
            .kubectl(&["-n", NAMESPACE, "delete", "pod", &leader, "--grace-period=0", "--force"])
            .await?
            .success()?;
        poll::within(PATIENCE, "another one leads", || another_leads(&self.lab, &leader)).await?;
        self.control_planes_are_back().await
    }

    pub(super) async fn other_is_killed(&mut self) -> anyhow::Result<()> {
        let leader = self.lab.leader().await?;
        let pods = replicas(&self.lab).await?;
        let other = pods.iter().find(|pod| **pod != leader).context("all of them lead")?;
        signal(process_of(other)?, Signal::KILL)?;
        self.control_planes_are_back().await
    }

    pub(super) async fn control_plane_is_rolled(&mut self) -> anyhow::Result<()> {
        let before = self.lab.leader().await?;
        self.lab.kubectl(&["-n", NAMESPACE, "rollout", "restart", "deployment/tollgate"]).await?.success()?;
        let rollout = ["-n", NAMESPACE, "rollout", "status", "deployment/tollgate", WAIT];
        self.lab.kubectl(&rollout).await?.success()?;
        poll::within(PATIENCE, "another one leads", || another_leads(&self.lab, &before)).await?;
        self.control_planes_are_back().await
    }

    /// Asked to end, as for an upgrade: it ends what runs, and gives back what it has leased.
    pub(super) async fn proxy_is_deleted(&mut self) -> anyhow::Result<()> {
        let other = self.other_proxy().await?;
        self.lab.kubectl(&["-n", PLACE, "delete", "pod", &other]).await?.success()?;
        self.other_proxy().await.map(drop)
    }

    /// In one step, without a bundle of both.
    pub(super) async fn ca_is_another(&mut self) -> anyhow::Result<()> {
        authority::replace(&self.lab, PLACE, "llm-tollgate").await?;
        self.control_planes_are_back().await?;
        // With a certificate of the new CA, which is good for the ledger as well.
        self.each_proxy_hears().await?;
        sleep(CERTIFIED).await;
        Ok(())
    }

    pub(super) async fn api_server_is_killed(&mut self) -> anyhow::Result<()> {
        kill_api_server(&self.lab).await
    }

    /// With all its connections. Those whose books are exact have nothing there when it ends, and ask while it is away.
    pub(super) async fn backend_is_killed(&mut self, port: Port) -> anyhow::Result<()> {
        self.load.hold().await?;
        let back = async {
            sleep(Duration::from_millis(100)).await;
            self.load.go_on();
            anyhow::Ok(())
        };
        tokio::try_join!(back, self.backend.restart(port, AWAY)).map(drop)
    }

    /// What it had leased is charged when that ends, and nothing else is: who looks at the books next sees to it.
    pub(super) async fn proxy_is_killed(&mut self) -> anyhow::Result<()> {
        self.settled("before a proxy is killed").await?;
        sleep(QUIET).await;
        self.load.hold().await?;
        let reported: BTreeSet<u64> = self.backend.count().into_keys().collect();
        sleep(REPORTED).await;
        let other = self.other_proxy().await?;
        let envoy = envoy_of(&other)?;
        self.leased().await?;
        signal(Pid::from_raw(i32::try_from(envoy)?).context("no process")?, Signal::KILL)?;
        poll::until("Envoy has ended", || async {
            anyhow::ensure!(!is_alive(envoy), "it lives");
            Ok(())
        })
        .await?;
        let known = self.backend.count();
        let young = known.iter().filter(|(number, work)| !work.consumer.is_exact() && !reported.contains(number));
        self.excused.extend(young.map(|(number, _)| *number));
        self.leased().await?;
        self.other_proxy().await?;
        self.load.go_on();
        Ok(())
    }

    /// Notes what is leased: of a proxy that ends, this may be charged.
    async fn leased(&mut self) -> anyhow::Result<()> {
        let leader = self.leader_when_there().await?;
        self.books.leased_before(&leader).await
    }

    /// A proxy that may end, once all of them are ready.
    async fn other_proxy(&self) -> anyhow::Result<String> {
        let all = ["-n", PLACE, "get", "pods", "-l", "gateway.networking.k8s.io/gateway-name=llm"];
        let rows = r#"jsonpath={range .items[*]}{.metadata.deletionTimestamp}{.status.conditions[?(@.type=="Ready")].status};{end}"#;
        poll::within(PATIENCE, "two proxies are ready", || async {
            let found = self.lab.kubectl(&[&all[..], &["-o", rows]].concat()).await?.success()?;
            anyhow::ensure!(found.out == "True;True;", "{}", found.out);
            Ok(())
        })
        .await?;
        let names = proxies(&self.lab, PLACE, GATEWAY).await?.into_iter().map(|(name, _)| name);
        names.into_iter().find(|name| *name != self.witness).context("there is no other proxy")
    }

    async fn control_planes_are_back(&self) -> anyhow::Result<()> {
        poll::within(PATIENCE, "there are two control planes", || replicas(&self.lab)).await?;
        self.leader_when_there().await.map(drop)
    }

    /// The Pod that leads, once one has the books.
    pub(super) async fn leader_when_there(&self) -> anyhow::Result<String> {
        poll::within(PATIENCE, "a control plane has the books", || async {
            let leader = self.lab.leader().await?;
            crate::replicas::told(&leader, "budgets").await?;
            Ok(leader)
        })
        .await
    }
}
