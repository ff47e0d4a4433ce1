//! Alerts about a cluster, from a real API server and a real Prometheus. The others are in xds-server/tests/wire/alerts.rs.

use std::path::Path;
use std::sync::Arc;

use tollgate_tests::gateway::{RunningGateway, Setup};
use tollgate_tests::lab::Lab;
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::poll;
use tollgate_tests::prometheus::{self, Prometheus};
use tollgate_tests::tools::Tools;

use super::source::{account, objects};

e2e! {
    what_the_api_server_denies_is_told_by_an_alert,
}

/// All that a namespace has, and the same without our own kinds.
const ALL: &str = "{apiGroups: ['*'], resources: ['*'], verbs: [get, list, watch]}";
const NOT_OURS: &str =
    "{apiGroups: ['', gateway.networking.k8s.io, discovery.k8s.io], resources: ['*'], verbs: [get, list, watch]}";

async fn what_the_api_server_denies_is_told_by_an_alert(lab: Arc<Lab>) -> anyhow::Result<()> {
    if !prometheus::is_here() {
        return Ok(());
    }
    let gateway = run(&lab, "alerts-all", ALL).await?;
    let prometheus = Prometheus::start(&[&metrics(&gateway)]).await?;
    prometheus.silent(&[]).await?;
    finds_one(&prometheus, r#"tollgate_watch_synced{kind="TokenPolicy"} == 1"#).await?;
    let denied = prometheus.query("tollgate_api_requests_denied_total").await?;
    anyhow::ensure!(denied.is_empty(), "what is not needed is no alert: {denied:?}");

    let gateway = run(&lab, "alerts-denied", NOT_OURS).await?;
    let prometheus = Prometheus::start(&[&metrics(&gateway)]).await?;
    prometheus.fires("TollgateApiServerDenies", async || {}).await?;
    prometheus.fires("TollgateWatchNotSynced", async || {}).await?;
    let denied =
        r#"tollgate_api_requests_denied_total{verb="list",resource="tokenpolicies.tollgate.dev",code="403"} > 0"#;
    finds_one(&prometheus, denied).await
}

/// Waits until there is one such series.
async fn finds_one(prometheus: &Prometheus, query: &str) -> anyhow::Result<()> {
    poll::until("Prometheus finds one", || async {
        let found = prometheus.query(query).await?;
        anyhow::ensure!(found.len() == 1, "{query}: {found:?}");
        Ok(())
    })
    .await
}

fn metrics(gateway: &RunningGateway) -> String {
    format!("127.0.0.1:{}", gateway.admin_port())
}

async fn run(lab: &Lab, namespace: &str, rule: &str) -> anyhow::Result<RunningGateway> {
    let setup = Setup::new(&Tools::find()?, &format!("cluster-{namespace}"))?;
    objects(lab, namespace, setup.port(), "").await?;
    let kubeconfig = account(lab, namespace, rule).await?;
    let arguments = ["--namespace", namespace, "--concurrency", "1"];
    setup.cluster(Path::new(&kubeconfig)).arguments(&arguments).start().await
}
