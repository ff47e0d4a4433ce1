//! What people and probes are told. It is made anew from what is published and from what proxies have said.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tollgate_core::snapshot::ResourceType;
use tollgate_core::status::{Finding, Reason, Severity};

use super::board::{Board, Keys, RefusedResource, Report};
use super::published::{Published, ServedGateway};
use crate::admin;

/// What `ready` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Every Gateway works on an Envoy. `tollgate run` waits for that.
    Gateways,
    /// There is a configuration to serve. `tollgate serve` waits for that.
    Published,
}

/// Keeps the status up to date for as long as somebody reads it.
pub async fn keep(
    mut published: watch::Receiver<Arc<Published>>,
    board: Board,
    readiness: Readiness,
    status: watch::Sender<Arc<admin::Status>>,
) {
    let mut reports = board.reports();
    loop {
        let next = make(&published.borrow_and_update(), &reports.borrow_and_update(), readiness);
        status.send_if_modified(|status| {
            let changed = **status != next;
            let new = next.findings.iter().filter(|finding| finding.reason == Reason::Refused);
            for finding in new.filter(|finding| !status.findings.contains(finding)) {
                tracing::error!("{finding}");
            }
            if changed {
                *status = Arc::new(next);
            }
            changed
        });
        let more = tokio::select! {
            changed = published.changed() => changed,
            changed = reports.changed() => changed,
        };
        if more.is_err() {
            return;
        }
    }
}

fn make(published: &Published, reports: &BTreeMap<u64, Report>, readiness: Readiness) -> admin::Status {
    let with_keys: Vec<&Report> = reports.values().filter(|report| report.keys == Keys::Taken).collect();
    let mut gateways = Vec::new();
    let mut waiting_for = Vec::new();
    if published.generation == 0 {
        waiting_for.push("the configuration is not read yet".to_owned());
    } else if published.gateways.is_empty() && readiness == Readiness::Gateways {
        waiting_for.push("there is no Gateway that can be served".to_owned());
    }
    for (name, gateway) in &published.gateways {
        let envoys: Vec<&Report> = reports
            .values()
            .filter(|report| report.keys == Keys::NotAsked)
            .filter(|report| published.gateways_of(&report.identity).any(|(other, _)| other == name))
            .collect();
        let programmed = envoys.iter().any(|report| report.taken.contains(name));
        if readiness == Readiness::Gateways {
            waiting_for.extend(waits(name, gateway, &envoys, &with_keys));
        }
        gateways.push(admin::GatewayStatus {
            name: name.clone(),
            programmed,
            listeners: gateway.listeners.to_vec(),
            proxies: envoys.into_iter().map(|report| proxy(name, report)).collect(),
        });
    }
    let refused = reports.values().flat_map(|report| report.refused.iter().map(move |refused| (report, refused)));
    let findings = refused.map(|(report, refused)| finding(published, &report.node, refused));
    admin::Status {
        gateways,
        findings: published.findings.iter().cloned().chain(findings).collect(),
        generation: published.generation,
        ready: waiting_for.is_empty(),
        waiting_for,
    }
}

fn waits(name: &str, gateway: &ServedGateway, envoys: &[&Report], with_keys: &[&Report]) -> Option<String> {
    let Some(report) = envoys.iter().find(|report| report.taken.contains(name)) else {
        return Some(format!("gateway {name}: no Envoy has taken its configuration yet"));
    };
    let has_filter = gateway.edition.snapshot.of(ResourceType::ExtensionConfig).next().is_some();
    // A filter's stream that does not name its node speaks for every Envoy with its certificate.
    let has_keys = with_keys
        .iter()
        .any(|keys| keys.identity == report.identity && (keys.node == report.node || keys.node.is_empty()));
    (has_filter && !has_keys).then(|| format!("gateway {name}: the filter has no keys yet"))
}

fn proxy(gateway: &str, report: &Report) -> admin::Proxy {
    let nacks = report.refused.iter().map(|refused| admin::Nack {
        resource: format!("{} {}", refused.kind.name(), refused.name),
        message: words(refused).to_owned(),
    });
    admin::Proxy {
        node: report.node.clone(),
        connected: true,
        acked: report.taken.contains(gateway) && report.refused.is_empty(),
        nacks: nacks.collect(),
    }
}

fn finding(published: &Published, node: &str, refused: &RefusedResource) -> Finding {
    Finding {
        severity: Severity::Error,
        reason: Reason::Refused,
        origin: refused.origin.clone(),
        spot: refused.origin.as_ref().and_then(|origin| published.spot(origin)),
        field: String::new(),
        message: format!("Envoy {node} refuses {} {}: {}", refused.kind.name(), refused.name, words(refused)),
        hint: "it goes on with what it took before".to_owned(),
    }
}

/// Envoy's own message, except about a secret, because the message might quote it.
fn words(refused: &RefusedResource) -> &str {
    match refused.kind {
        ResourceType::Secret => "the secret is not usable",
        _ => &refused.message,
    }
}
