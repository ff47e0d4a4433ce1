//! The task that asks for the Lease and says who leads.

use std::net::SocketAddr;

use k8s_openapi::api::coordination::v1::{Lease as Document, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, PostParams};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::lease::{GIVEN, Held, LOOK, Lease, Move, RENEW};
use crate::report::Metrics;
use crate::source::kubernetes::Reach;

const NAME: &str = "tollgate-controller";
/// Where the other replicas reach the holder.
const ADDRESS: &str = "tollgate.dev/address";

/// Which of several control planes leads.
#[derive(Debug, Clone)]
pub enum Election {
    /// There is no other.
    Always,
    ByLease(LeasePlace),
}

/// Where the Lease is, and who we are.
#[derive(Debug, Clone)]
pub struct LeasePlace {
    /// None: that of the pod or of the kubeconfig.
    pub namespace: Option<String>,
    pub identity: String,
    /// Where the other replicas reach this one.
    pub address: Option<SocketAddr>,
}

/// Whether we lead, and who does.
#[derive(Debug, Clone)]
pub struct Leads(watch::Receiver<Known>);

/// Who holds the Lease, as it said last. Whoever held it and cannot renew it does not lead any more, but nobody else
/// holds it for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    Unknown,
    Us,
    /// None: it does not say where it is.
    Other(Option<SocketAddr>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    until: Until,
    holder: Holder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    Never,
    Then(Instant),
    Always,
}

/// Without a task there is nothing to elect.
#[derive(Debug)]
pub struct Elector(Option<(JoinHandle<()>, oneshot::Sender<()>)>);

struct Asking {
    api: Api<Document>,
    identity: String,
    address: Option<SocketAddr>,
    lease: Lease,
    holder: Holder,
    known: watch::Sender<Known>,
    gauge: Gauge,
    failing: bool,
}

// === impl Leads ===

impl Leads {
    pub fn leads(&self, now: Instant) -> bool {
        match self.0.borrow().until {
            Until::Never => false,
            Until::Then(until) => now < until,
            Until::Always => true,
        }
    }

    pub fn holder(&self) -> Holder {
        self.0.borrow().holder
    }

    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // Nobody says anything any more.
            std::future::pending().await
        }
    }
}

/// 1 while this one leads.
pub fn gauge(metrics: &Metrics) -> Gauge {
    let gauge = Gauge::default();
    let shared = gauge.clone();
    metrics.add(move |registry, _| {
        let help = "1 while this control plane writes statuses and provides proxies";
        registry.register("leader", help, shared.clone());
    });
    gauge
}

// === impl Elector ===

impl Elector {
    pub fn start(reach: &Reach, election: Election, metrics: &Metrics) -> (Self, Leads) {
        let gauge = gauge(metrics);
        match election {
            Election::Always => {
                gauge.set(1);
                let (_never_another, leads) = watch::channel(Known { until: Until::Always, holder: Holder::Us });
                (Self(None), Leads(leads))
            }
            Election::ByLease(place) => {
                let (known, leads) = watch::channel(Known { until: Until::Never, holder: Holder::Unknown });
                let namespace = place.namespace.as_deref().unwrap_or(&reach.namespace);
                let asking = Asking {
                    api: Api::namespaced(reach.client.clone(), namespace),
                    lease: Lease::new(place.identity.clone()),
                    identity: place.identity,
                    address: place.address,
                    holder: Holder::Unknown,
                    known,
                    gauge,
                    failing: false,
                };
                let (stop, stopped) = oneshot::channel();
                (Self(Some((tokio::spawn(asking.run(stopped)), stop))), Leads(leads))
            }
        }
    }

    /// Gives the Lease back, so that another one leads at once.
    pub async fn stop(self) {
        if let Some((task, stop)) = self.0 {
            let _ = stop.send(());
            let _ = timeout(RENEW, task).await;
        }
    }
}

// === impl Asking ===

impl Asking {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        loop {
            let asked = Instant::now();
            let step = timeout(RENEW, self.step(asked));
            let result = tokio::select! {
                _ = &mut stopped => break,
                result = step => result.unwrap_or_else(|_| Err("the API server does not answer".to_owned())),
            };
            let failed = result.is_err();
            self.tell(result);
            let leads = self.publish();
            let at = asked + if leads && !failed { RENEW } else { LOOK };
            // What was not renewed ends by itself.
            let ends = self.lease.leads_until().filter(|until| *until < at);
            tokio::select! {
                _ = &mut stopped => break,
                () = sleep_until(ends.unwrap_or(at)) => {}
            }
            self.publish();
        }
        if self.publish() {
            self.give_back().await;
        }
    }

    /// Looks at the Lease once, and makes or keeps it ours if that is due.
    async fn step(&mut self, asked: Instant) -> Result<(), String> {
        let current = self.api.get_opt(NAME).await.map_err(|error| error.to_string())?;
        let held = current.as_ref().map(held);
        if let Some((held, lease)) = held.as_ref().zip(current.as_ref())
            && !held.holder.is_empty()
            && held.holder != self.identity
        {
            self.holder = Holder::Other(address(lease));
        }
        let result = match (self.lease.look(held.as_ref(), asked), current) {
            (Move::Wait, _) => return Ok(()),
            (Move::Renew | Move::Take, Some(current)) => {
                let next = self.ours(current);
                self.api.replace(NAME, &PostParams::default(), &next).await
            }
            (Move::Create | Move::Renew | Move::Take, _) => {
                let mut new = Document::default();
                new.metadata.name = Some(NAME.to_owned());
                let next = self.ours(new);
                self.api.create(&PostParams::default(), &next).await
            }
        };
        match result {
            Ok(_) => {
                self.lease.won(asked);
                self.holder = Holder::Us;
                Ok(())
            }
            // Somebody else was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn ours(&self, mut lease: Document) -> Document {
        let now = MicroTime(jiff::Timestamp::now());
        if let Some(address) = self.address {
            let annotations = lease.metadata.annotations.get_or_insert_default();
            annotations.insert(ADDRESS.to_owned(), address.to_string());
        }
        let before = lease.spec.unwrap_or_default();
        let is_ours = before.holder_identity.as_ref() == Some(&self.identity);
        let transitions = before.lease_transitions.unwrap_or_default();
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(GIVEN.as_secs()).ok(),
            acquire_time: if is_ours { before.acquire_time } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(if is_ours { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        });
        lease
    }

    async fn give_back(&mut self) {
        let Ok(Some(mut current)) = self.api.get_opt(NAME).await else { return };
        let Some(spec) = current.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity))
        else {
            return;
        };
        spec.holder_identity = Some(String::new());
        // If it fails, the others wait for as long as if we had been killed.
        if let Err(error) = self.api.replace(NAME, &PostParams::default(), &current).await {
            tracing::debug!(%error, "the lease is not given back");
        }
    }

    /// Says whether we lead.
    fn publish(&self) -> bool {
        let until = self.lease.leads_until().filter(|until| *until > Instant::now());
        let next = until.map_or(Until::Never, Until::Then);
        let before = self.known.send_replace(Known { until: next, holder: self.holder });
        if (before.until == Until::Never) != (next == Until::Never) {
            let does = if until.is_some() {
                "leads: it has the ledger, writes statuses and provides proxies"
            } else {
                "does not lead any more"
            };
            tracing::info!("this control plane {does}");
        }
        self.gauge.set(i64::from(until.is_some()));
        until.is_some()
    }

    fn tell(&mut self, result: Result<(), String>) {
        match result {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::warn!(
                    "the lease {NAME} cannot be had: {error} (a role with get, create and update of \
                     leases.coordination.k8s.io in its namespace; without it no status is written and no proxy provided)"
                );
            }
            Err(_) => {}
        }
    }
}

fn address(lease: &Document) -> Option<SocketAddr> {
    lease.metadata.annotations.as_ref()?.get(ADDRESS)?.parse().ok()
}

fn held(lease: &Document) -> Held {
    let spec = lease.spec.clone().unwrap_or_default();
    let given = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Held {
        holder: spec.holder_identity.unwrap_or_default(),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        given: given.map_or(GIVEN, std::time::Duration::from_secs),
    }
}
