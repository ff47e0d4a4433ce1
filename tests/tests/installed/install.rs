//! The installation itself: its rights, its chart.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context;
use serde_json::Value;
use tollgate_tests::lab::Lab;
use tollgate_tests::lab::install::NAMESPACE;
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::poll;

use crate::shop::{self, Load};

e2e! {
    its_rights_suffice_and_all_are_used,
    an_upgrade_and_a_new_start_lose_nothing,
}

pub const ACCOUNT: &str = "system:serviceaccount:tollgate-system:tollgate";

/// What may be done: verb, group, and resource, or resource and name where it is for one object alone.
pub type Right = (String, String, String);

/// The other tests have used the product in all its ways by now. The API server has noted what was asked for.
async fn its_rights_suffice_and_all_are_used(lab: Arc<Lab>) -> anyhow::Result<()> {
    shop::web(&lab, "rights", "").await?;
    exercise(&lab).await?;
    let granted = granted(&lab).await?;
    poll::until("each right was used", || async {
        let (used, denied) = used(&lab, 0)?;
        anyhow::ensure!(denied.is_empty(), "denied: {denied:?}");
        let unused: Vec<_> = granted.difference(&used).collect();
        anyhow::ensure!(unused.is_empty(), "granted and not used: {unused:?}");
        Ok(())
    })
    .await?;
    println!("    {} rights, all used, no request denied", granted.len());
    Ok(())
}

/// One of each kind that has a status, and what has to be taken away again.
const EXERCISE: &str = include_str!("rights.yaml");

/// What the product does on occasion only.
async fn exercise(lab: &Lab) -> anyhow::Result<()> {
    lab.apply(EXERCISE).await?;
    shop::programmed(lab, "rights", "all").await?;
    let patch = async |object: &[&str], patch: &str| {
        lab.kubectl(&[&["-n", "rights", "patch"], object, &["--type", "merge", "-p", patch]].concat()).await?.success()
    };
    // The autoscaler goes, and with another class everything has another name.
    poll::until("there is an autoscaler", || lab.field(&["-n", "rights", "hpa", "all-tollgate"], "{.metadata.uid}"))
        .await?;
    patch(&["proxyparameters", "scaled"], r#"{"spec": {"autoscaling": null}}"#).await?;
    patch(&["gateway", "all"], r#"{"spec": {"gatewayClassName": "other"}}"#).await?;
    poll::until("the old Deployment is gone", || async {
        let found = lab.kubectl(&["-n", "rights", "get", "deployment", "all-tollgate"]).await?;
        anyhow::ensure!(found.err.contains("NotFound"), "{found:?}");
        Ok(())
    })
    .await?;
    // The same alarm twice is one event that counts.
    for target in ["pool", "missing"] {
        let reason = if target == "pool" { "Accepted" } else { "TargetNotFound" };
        let targets = format!(
            r#"{{"spec": {{"targetRefs": [{{"group": "tollgate.dev", "kind": "ModelPool", "name": "{target}"}}]}}}}"#
        );
        patch(&["tokenpolicy", "policy"], &targets).await?;
        poll::until("the policy says so", || async {
            let said = "{.status.conditions[?(@.type=='Accepted')].reason}{.status.ancestors[0].conditions[?(@.type=='Accepted')].reason}";
            let found = lab.field(&["-n", "rights", "tokenpolicy", "policy"], said).await?;
            anyhow::ensure!(found.contains(reason), "{found}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

pub async fn granted(lab: &Lab) -> anyhow::Result<BTreeSet<Right>> {
    let get = ["get", "clusterroles,roles", "-A", "-l", "app.kubernetes.io/instance=tollgate", "-o", "json"];
    let roles: Value = serde_json::from_str(&lab.kubectl(&get).await?.success()?.out)?;
    let items = roles.get("items").and_then(Value::as_array).context("there are no roles")?;
    let mut rights = BTreeSet::new();
    for rule in items.iter().filter_map(|role| role.get("rules")?.as_array()).flatten() {
        let texts = |name: &str| -> Vec<String> {
            let list = rule.get(name).and_then(Value::as_array).into_iter().flatten();
            list.filter_map(|text| Some(text.as_str()?.to_owned())).collect()
        };
        for (group, resource) in texts("apiGroups")
            .into_iter()
            .flat_map(|group| texts("resources").into_iter().map(move |resource| (group.clone(), resource)))
        {
            let names = texts("resourceNames");
            let named = names.iter().map(|name| format!("{resource} {name}"));
            let what: Vec<String> = if names.is_empty() { vec![resource.clone()] } else { named.collect() };
            for verb in texts("verbs") {
                rights.extend(what.iter().map(|what| (verb.clone(), group.clone(), what.clone())));
            }
        }
    }
    Ok(rights)
}

/// How many lines the API server has noted.
pub fn noted(lab: &Lab) -> anyhow::Result<usize> {
    Ok(std::fs::read_to_string(lab.home().join("audit.log"))?.lines().count())
}

/// What was asked for after so many lines, and what of it was denied.
pub fn used(lab: &Lab, after: usize) -> anyhow::Result<(BTreeSet<Right>, BTreeSet<Right>)> {
    let log = std::fs::read_to_string(lab.home().join("audit.log"))?;
    let (mut used, mut denied) = (BTreeSet::new(), BTreeSet::new());
    for event in log.lines().skip(after).filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        if text("/user/username") != ACCOUNT || text("/objectRef/resource").is_empty() {
            continue;
        }
        let mut resource = text("/objectRef/resource");
        if !text("/objectRef/subresource").is_empty() {
            resource = format!("{resource}/{}", text("/objectRef/subresource"));
        }
        let right = (text("/verb"), text("/objectRef/apiGroup"), resource);
        // A patch that makes the object takes both rights.
        if right.0 == "patch" && event.pointer("/responseStatus/code") == Some(&201.into()) {
            used.insert(("create".to_owned(), right.1.clone(), right.2.clone()));
        }
        if event.pointer("/responseStatus/code") == Some(&403.into()) {
            denied.insert(right.clone());
        }
        // A right to one object is used by whoever asks for that very object. Of a list its field selector says the name.
        let name = text("/objectRef/name");
        if !name.is_empty() {
            used.insert((right.0.clone(), right.1.clone(), format!("{} {name}", right.2)));
        }
        used.insert(right);
    }
    Ok((used, denied))
}

async fn an_upgrade_and_a_new_start_lose_nothing(lab: Arc<Lab>) -> anyhow::Result<()> {
    let address = shop::web(&lab, "upgrades", "").await?;
    let load = Load::start(&lab, &format!("http://{address}/"), 200, &[])?;
    lab.upgrade(&["podLabels.upgraded=yes"]).await?;
    let found =
        lab.field(&["-n", NAMESPACE, "deployment", "tollgate"], "{.spec.template.metadata.labels.upgraded}").await?;
    anyhow::ensure!(!found.is_empty(), "{found}");
    // Uninstalled and installed again: proxies, definitions and what people wrote stay.
    lab.uninstall().await?;
    lab.kubectl(&["get", "crd", "modelpools.tollgate.dev"]).await?.success()?;
    let answer = shop::get(&lab, &format!("http://{address}/")).await?;
    anyhow::ensure!(answer.status == 200, "{answer:?}");
    lab.install_tollgate().await?;
    shop::programmed(&lab, "upgrades", "shop").await?;
    load.stop()?.all_right()
}
