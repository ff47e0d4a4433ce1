//! Provides the proxies of each Gateway: makes what `core/fleet` wants, puts right what others change, and takes away
//! what is of a Gateway that has another class now. What is of a Gateway that is gone, the cluster itself takes away.
//!
//! ```text
//! published (Gateways, ports) --+
//!                               +-> a Gateway is due -> core/fleet (what there is to be) -> apply.rs (server-side apply)
//! owned.rs (what there is) -----+
//! ```
//! Only the leader does it. The others watch, so they know what there is when they lead.

mod apply;
mod owned;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tollgate_core::fleet::{self, Asked, Egress, Policies, Settings, Wanted};
use tollgate_core::objects::{Gateway, Key, Object};

pub use self::apply::is_ours;
use self::apply::{Applier, Trouble};
#[cfg(test)]
pub use self::owned::plural;
use self::owned::{Owned, Watching};
use crate::leader::{Agenda, Leads};
use crate::pipeline::Published;
use crate::report::Metrics;
use crate::serve::pki::CurrentAuthority;
use crate::source::kubernetes::Reach;

const FAR: Duration = Duration::from_secs(3600);

/// What proxies are made of.
pub struct Inputs {
    pub published: watch::Receiver<Arc<Published>>,
    pub settings: Settings,
    /// The CA of the control plane.
    pub authority: CurrentAuthority,
    /// Empty: all of them.
    pub namespaces: Vec<String>,
}

/// The running provider.
#[derive(Debug)]
pub struct Fleet(JoinHandle<()>);

struct Providing {
    inputs: Inputs,
    applier: Applier,
    owned: Owned,
    /// What each Gateway was when it was looked at last.
    seen: BTreeMap<Key, Own>,
    /// Gateways to look at.
    agenda: Agenda<Key>,
}

#[derive(Clone)]
struct Own {
    gateway: Arc<Object<Gateway>>,
    asked: Asked,
    /// Empty where nobody asks for it.
    egress: Egress,
}

// === impl Fleet ===

impl Fleet {
    pub fn start(reach: Reach, leads: Leads, inputs: Inputs, metrics: &Metrics) -> Self {
        let watching = Watching::start(&reach.client, &inputs.namespaces);
        let providing = Providing {
            applier: Applier::new(reach.client, metrics),
            owned: Owned::new(&inputs.namespaces),
            seen: BTreeMap::new(),
            agenda: Agenda::default(),
            inputs,
        };
        Self(tokio::spawn(providing.run(leads, watching)))
    }

    pub async fn stop(self) {
        self.0.abort();
        // What has begun to be written ends with it.
        let _ = self.0.await;
    }
}

// === impl Providing ===

impl Providing {
    async fn run(mut self, mut leads: Leads, mut watching: Watching) {
        let mut published = self.inputs.published.clone();
        let mut authority = self.inputs.authority.clone();
        loop {
            let leading = leads.leads(Instant::now()) && self.owned.is_known();
            let next = self.agenda.next().filter(|_| leading);
            tokio::select! {
                changed = published.changed() => {
                    if changed.is_ok() {
                        let now = Arc::clone(&published.borrow_and_update());
                        self.look(&now);
                    }
                }
                event = watching.next() => {
                    if let Some((namespace, name)) = self.owned.take(event) {
                        self.changed(&namespace, &name);
                    }
                }
                // Each Gateway's ConfigMap has it.
                () = authority.changed() => {
                    for key in self.seen.keys() {
                        self.agenda.add(key.clone(), Instant::now());
                    }
                }
                () = leads.changed() => {}
                () = sleep_until(next.unwrap_or_else(|| Instant::now() + FAR)) => self.provide(&leads).await,
            }
        }
    }

    /// Finds the Gateways that are new or have changed.
    fn look(&mut self, published: &Published) {
        if published.generation == 0 {
            return;
        }
        let egress = |key: &Key| match &self.inputs.settings.policies {
            Policies::None => Egress::new(),
            Policies::PerGateway { collector, .. } => published.egress(key, collector.as_ref()),
        };
        let own = published.own_gateways().into_iter().map(|(gateway, asked)| {
            let key = gateway.meta.key();
            let egress = egress(&key);
            (key, Own { gateway, asked, egress })
        });
        let own: BTreeMap<Key, Own> = own.collect();
        for (key, now) in &own {
            let is_same = self.seen.get(key).is_some_and(|before| before.is(now));
            if !is_same {
                self.agenda.add(key.clone(), Instant::now());
            }
        }
        self.agenda.retain(|key| own.contains_key(key));
        self.seen = own;
    }

    /// Somebody changed an object of ours.
    fn changed(&mut self, namespace: &str, name: &str) {
        let own = self.seen.iter().filter(|(key, _)| *key.namespace == *namespace);
        // Those that have its name now, and those that had it when they had another class.
        let of =
            own.filter(|(_, own)| fleet::name_of(&own.gateway) == name || self.owned.is_of(namespace, name, own.uid()));
        for key in of.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.agenda.add(key, Instant::now());
        }
    }

    async fn provide(&mut self, leads: &Leads) {
        for key in self.agenda.due(Instant::now()) {
            if !leads.leads(Instant::now()) {
                return;
            }
            self.agenda.begin(&key);
            let Some(own) = self.seen.get(&key).cloned() else { continue };
            match self.provide_one(&own).await {
                Ok(()) => self.agenda.done(&key),
                Err(trouble) => {
                    self.applier.tell(&own.gateway, &trouble).await;
                    self.agenda.failed(key, Instant::now());
                }
            }
        }
    }

    async fn provide_one(&self, own: &Own) -> Result<(), Trouble> {
        let Inputs { settings, authority, .. } = &self.inputs;
        let trusted = authority.get();
        let trusted = trusted.trusted();
        let wanted = fleet::wanted(&own.gateway, &own.asked, &own.egress, settings, trusted).unwrap_or_default();
        for one in &wanted {
            self.applier.apply(one, &self.owned).await?;
        }
        let is_wanted =
            |kind, name: &str| wanted.iter().any(|one: &Wanted| one.kind == kind && *one.key().name == *name);
        for (kind, name) in self.owned.of(own.gateway.meta.namespace(), own.uid()) {
            if !is_wanted(kind, &name) {
                self.applier.delete(kind, own.gateway.meta.namespace(), &name).await?;
            }
        }
        Ok(())
    }
}

// === impl Own ===

impl Own {
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.gateway, &other.gateway) && self.asked == other.asked && self.egress == other.egress
    }

    fn uid(&self) -> &str {
        self.gateway.meta.provenance.cluster().map_or("", |version| &version.uid)
    }
}
