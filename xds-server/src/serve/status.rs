//! What people and probes are told. It is made anew from what is published and from what proxies have said. The statuses
//! of objects are made when somebody asks, because there may be many of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tollgate_core::ir::Workload;
use tollgate_core::objects::Key;
use tollgate_core::scope::Scope;
use tollgate_core::snapshot::{ResourceType, Snapshot};
use tollgate_core::status::{
    Address, AddressKind, Definitions, Heard, Horizon, ObjectStatus, Reason, Said, date_of, heard_as, pod_of,
};

use crate::identity::Identity;
use crate::pipeline::{Published, ServedGateway};
use crate::report::board::{Board, Keys, RefusedResource, Report};
use crate::report::{GatewayStatus, LastUsed, Listener, Nack, Objects, Proxy, SpentToday, Status};

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
    status: watch::Sender<Arc<Status>>,
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

/// Makes the statuses of objects when somebody asks.
#[derive(Debug, Clone)]
pub struct Statuses {
    pub published: watch::Receiver<Arc<Published>>,
    pub board: Board,
    pub last_used: LastUsed,
    pub spent_today: SpentToday,
    pub definitions: watch::Receiver<Definitions>,
    /// How long before its end a key is warned of.
    pub key_warning: Duration,
}

// === impl Statuses ===

impl Objects for Statuses {
    fn statuses(&self) -> Vec<ObjectStatus> {
        let published = Arc::clone(&self.published.borrow());
        let heard = heard(&published, &self.board.reports().borrow());
        let mut statuses = published.statuses();
        let definitions = self.definitions.borrow().clone();
        let now = Timestamp::now();
        let (horizon, today) = (Horizon::new(now, self.key_warning), date_of(now));
        for status in &mut statuses {
            status.hear(&heard);
            status.age(horizon);
            self.last_used.tell(status, None);
            self.spent_today.tell_exactly(status, today);
            status.judge_definitions(&definitions);
        }
        statuses
    }
}

/// What the Envoys of each Gateway say.
pub fn heard(published: &Published, reports: &BTreeMap<u64, Report>) -> Heard {
    let of_gateway = |(name, gateway): (&String, &ServedGateway)| {
        let envoys = envoys(published, name, reports);
        // An Envoy of several Gateways may refuse what only another one has.
        let has = |refused: &&RefusedResource| gateway.edition.snapshot.get(refused.kind, &refused.name).is_some();
        let refused =
            envoys.iter().flat_map(|report| report.refused.iter().filter(has).map(|refused| refused.by(&report.node)));
        let said = Said {
            taken: envoys.iter().any(|report| report.has_taken(name, &gateway.edition.snapshot)),
            refused: refused.collect(),
            addresses: addresses(&gateway.listeners),
            ..Said::default()
        };
        (name.clone(), said)
    };
    let mut heard: Heard = published.gateways.iter().map(of_gateway).collect();
    heard.extend(of_sidecars(published, reports));
    heard
}

/// What the sidecars of each Service say: those whose filters have their keys.
fn of_sidecars(published: &Published, reports: &BTreeMap<u64, Report>) -> BTreeMap<String, Said> {
    let nothing = |(service, workload): (&Key, &Workload)| {
        let policies = workload.catalog.limits().filter_map(policy_of).collect();
        (heard_as(service), Said { policies, ..Said::default() })
    };
    let mut heard: BTreeMap<String, Said> = published.workloads().map(nothing).collect();
    for report in reports.values().filter(|report| report.keys == Keys::Taken) {
        let Identity::Of(Scope::Workload { service, .. }) = &report.identity else { continue };
        if let Some((said, pod)) = heard.get_mut(&heard_as(service)).zip(pod_of(&report.node)) {
            said.carriers.insert(pod.to_owned());
        }
    }
    heard
}

/// The TokenPolicy of a limit, whose id is `namespace/policy/limit`.
fn policy_of(limit: &str) -> Option<Key> {
    let mut parts = limit.split('/');
    Some(Key::new(parts.next()?, parts.next()?))
}

/// The reports of the Envoys of a Gateway. The streams of filters are others.
fn envoys<'a>(published: &Published, gateway: &str, reports: &'a BTreeMap<u64, Report>) -> Vec<&'a Report> {
    reports
        .values()
        .filter(|report| report.keys == Keys::NotAsked)
        .filter(|report| published.gateways_of(&report.identity).any(|(other, _)| other == gateway))
        .collect()
}

/// The hosts on which listeners are, each once.
fn addresses(listeners: &[Listener]) -> Vec<Address> {
    let hosts = listeners.iter().filter_map(|listener| listener.address.rsplit_once(':'));
    let hosts: BTreeSet<&str> = hosts.map(|(host, _)| host.trim_matches(['[', ']'])).collect();
    let address = |host: &str| {
        let kind = if host.parse::<IpAddr>().is_ok() { AddressKind::IPAddress } else { AddressKind::Hostname };
        Address { kind, value: host.to_owned() }
    };
    hosts.into_iter().map(address).collect()
}

fn make(published: &Published, reports: &BTreeMap<u64, Report>, readiness: Readiness) -> Status {
    let with_keys: Vec<&Report> = reports.values().filter(|report| report.keys == Keys::Taken).collect();
    let mut gateways = Vec::new();
    let mut waiting_for = Vec::new();
    if published.generation == 0 {
        waiting_for.push("the configuration is not read yet".to_owned());
    } else if published.gateways.is_empty() && readiness == Readiness::Gateways {
        waiting_for.push("there is no Gateway that can be served".to_owned());
    }
    for (name, gateway) in &published.gateways {
        let envoys = envoys(published, name, reports);
        let present = &gateway.edition.snapshot;
        let programmed = envoys.iter().any(|report| report.has_taken(name, present));
        if readiness == Readiness::Gateways {
            waiting_for.extend(waits(name, gateway, &envoys, &with_keys));
        }
        gateways.push(GatewayStatus {
            name: name.clone(),
            programmed,
            listeners: gateway.listeners.to_vec(),
            proxies: envoys.into_iter().map(|report| proxy(name, present, report)).collect(),
        });
    }
    let refused = reports.values().flat_map(|report| report.refused.iter().map(move |refused| (report, refused)));
    let findings = refused.map(|(report, refused)| {
        let refusal = refused.by(&report.node);
        refusal.finding(refusal.origin.as_ref().and_then(|origin| published.spot(origin)))
    });
    Status {
        gateways,
        findings: published.findings.iter().cloned().chain(findings).collect(),
        generation: published.generation,
        ready: waiting_for.is_empty(),
        waiting_for,
    }
}

fn waits(name: &str, gateway: &ServedGateway, envoys: &[&Report], with_keys: &[&Report]) -> Option<String> {
    let Some(report) = envoys.iter().find(|report| report.has_taken(name, &gateway.edition.snapshot)) else {
        return Some(format!("gateway {name}: no Envoy has taken its configuration yet"));
    };
    let has_filter = gateway.edition.snapshot.of(ResourceType::ExtensionConfig).next().is_some();
    // A filter's stream that does not name its node speaks for every Envoy with its certificate.
    let has_keys = with_keys
        .iter()
        .any(|keys| keys.identity == report.identity && (keys.node == report.node || keys.node.is_empty()));
    (has_filter && !has_keys).then(|| format!("gateway {name}: the filter has no keys yet"))
}

fn proxy(gateway: &str, present: &Snapshot, report: &Report) -> Proxy {
    let nacks = report.refused.iter().map(|refused| {
        let refusal = refused.by(&report.node);
        Nack { resource: refusal.resource(), message: refusal.words().to_owned() }
    });
    Proxy {
        node: report.node.clone(),
        connected: true,
        acked: report.has_taken(gateway, present) && report.refused.is_empty(),
        nacks: nacks.collect(),
    }
}
