//! The life of a release: a newer chart, the way back, and the end. The books are on a volume.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use tollgate_tests::lab::install::{LASTING, NAMESPACE, VALUES};
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::lab::{Lab, WAIT, books};
use tollgate_tests::poll;

use crate::chain::{BUDGET, chain, chat, used};
use crate::install::{noted, used as asked};
use crate::shop;

e2e! {
    one_namespace_needs_no_right_in_others,
    a_newer_chart_and_the_way_back_keep_books_budgets_and_addresses,
    uninstalling_leaves_what_is_to_stay_and_nothing_else,
}

const CONSUMER: &str = "released/research";
const NEWER: &str = "0.2.0";

async fn a_newer_chart_and_the_way_back_keep_books_budgets_and_addresses(lab: Arc<Lab>) -> anyhow::Result<()> {
    lab.install_books().await?;
    let further = [&LASTING[..], &["gateway.create=true", "gateway.port=9080"]].concat();
    lab.upgrade(&further).await?;
    let found = chain(&lab, "released", BUDGET).await?;
    shop::programmed(&lab, NAMESPACE, "llm").await?;
    lab.run_helm("test", &[WAIT]).await?;
    let address = shop::address(&lab, "released", "llm").await?;
    let books_of = async || -> anyhow::Result<_> {
        let tokens = used(&lab, "released", "research").await?;
        Ok((tokens, books::spent(&lab, CONSUMER).await?))
    };
    let before = poll::until("what was asked is in the books", || async {
        let before = books_of().await?;
        // All that was used counts against the one budget that its consumer has.
        let spent: u64 = before.1.iter().map(|(_, spent)| spent).sum();
        anyhow::ensure!(before.0 > 0 && spent == before.0, "{before:?}");
        Ok(before)
    })
    .await?;

    let revision = revision(&lab).await?;
    let values = [&VALUES[..], &further].concat();
    lab.helm_chart(&newer(&lab)?, "upgrade", &["--wait", WAIT], &values).await?;
    for version in [NEWER, env!("CARGO_PKG_VERSION")] {
        if version != NEWER {
            lab.run_helm("rollback", &[&revision, "--wait", WAIT]).await?;
        }
        let label = "{.spec.template.metadata.labels.app\\.kubernetes\\.io/version}";
        let runs = lab.field(&["-n", NAMESPACE, "deployment", "tollgate"], label).await?;
        anyhow::ensure!(runs == version, "{runs} runs, not {version}");
        poll::until("the books are what they were", || async {
            let now = books_of().await?;
            anyhow::ensure!(now == before, "{now:?}, and it was {before:?}");
            Ok(())
        })
        .await?;
        anyhow::ensure!(shop::address(&lab, "released", "llm").await? == address, "the Gateway has another address");
        lab.run_helm("test", &[WAIT]).await?;
    }
    let answer = chat(&lab, &found.url, &found.research).await?;
    anyhow::ensure!(answer.status == 200, "{answer:?}");
    Ok(())
}

/// With `namespaces` the rights are Roles, and they suffice.
async fn one_namespace_needs_no_right_in_others(lab: Arc<Lab>) -> anyhow::Result<()> {
    lab.kubectl(&["create", "namespace", "scoped"]).await?.success()?;
    lab.upgrade(&["namespaces={scoped}"]).await?;
    let noted = noted(&lab)?;
    for wide in ["tollgate", "tollgate-provisioner"] {
        let found = lab.kubectl(&["get", "clusterrole", wide]).await?;
        anyhow::ensure!(found.err.contains("NotFound"), "{found:?}");
    }
    shop::web(&lab, "scoped", "").await?;
    let (_, denied) = asked(&lab, noted)?;
    anyhow::ensure!(denied.is_empty(), "denied: {denied:?}");
    lab.upgrade(&[]).await
}

/// A copy of the chart with a higher version.
fn newer(lab: &Lab) -> anyhow::Result<PathBuf> {
    let copy = lab.home().join("newer");
    let copied = Command::new("cp").arg("-rL").arg(lab.chart()).arg(&copy).status()?;
    anyhow::ensure!(copied.success(), "the chart cannot be copied");
    let file = copy.join("Chart.yaml");
    let chart = std::fs::read_to_string(&file)?;
    std::fs::write(
        &file,
        chart.replace(&format!("ersion: {}", env!("CARGO_PKG_VERSION")), &format!("ersion: {NEWER}")),
    )?;
    Ok(copy)
}

/// Of the release that is installed.
async fn revision(lab: &Lab) -> anyhow::Result<String> {
    let secrets = ["-n", NAMESPACE, "secrets", "-l", "owner=helm,status=deployed"];
    lab.field(&secrets, "{.items[0].metadata.labels.version}").await
}

/// What a release leaves on purpose: the books, and the CA and the Lease, which the control plane made and not the chart.
const STAYS: [&str; 5] = [
    "persistentvolumeclaim/books",
    "secret/tollgate-authority",
    "lease.coordination.k8s.io/tollgate-controller",
    // Of Kubernetes itself.
    "configmap/kube-root-ca.crt",
    "serviceaccount/default",
];

/// What a person wrote.
const KEPT: &str = "
apiVersion: tollgate.dev/v1alpha1
kind: ModelPool
metadata: {name: kept, namespace: NAMESPACE}
spec: {models: [{name: m, targets: [{backendRef: {name: missing}}]}]}
";

async fn uninstalling_leaves_what_is_to_stay_and_nothing_else(lab: Arc<Lab>) -> anyhow::Result<()> {
    lab.install_books().await?;
    let address = shop::web(&lab, "stays", KEPT).await?;
    lab.uninstall().await?;
    poll::until("nothing of it is left", || async {
        let left: BTreeSet<String> =
            objects(&lab, &["--namespaced=true"], &["-n", NAMESPACE]).await?.into_iter().collect();
        let stays = STAYS.into_iter().map(str::to_owned).collect();
        anyhow::ensure!(left == stays, "{left:?}");
        let of_release = ["-A", "-l", "app.kubernetes.io/instance=tollgate"];
        let left = objects(&lab, &[], &of_release).await?;
        anyhow::ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await?;
    // What people wrote, its definitions and the proxies of their Gateways go on.
    lab.kubectl(&["get", "crd", "modelpools.tollgate.dev"]).await?.success()?;
    lab.kubectl(&["-n", "stays", "get", "modelpool", "kept"]).await?.success()?;
    let answer = shop::get(&lab, &format!("http://{address}/")).await?;
    anyhow::ensure!(answer.status == 200, "{answer:?}");
    lab.install_tollgate().await
}

/// Kinds and names of all objects that are listed, without events and what is derived from others.
async fn objects(lab: &Lab, of: &[&str], which: &[&str]) -> anyhow::Result<Vec<String>> {
    let kinds = [&["api-resources", "--verbs=list", "-o", "name"], of].concat();
    let kinds = lab.kubectl(&kinds).await?.success()?.out;
    let derived = |kind: &&str| {
        !["events", "pods.metrics", "endpointslices", "endpoints", "componentstatuses"]
            .iter()
            .any(|one| kind.starts_with(one))
    };
    let kinds = kinds.lines().filter(derived).collect::<Vec<_>>().join(",");
    let found =
        lab.kubectl(&[&["get", &kinds, "-o", "name", "--ignore-not-found"], which].concat()).await?.success()?;
    Ok(found.out.lines().map(str::to_owned).collect())
}
