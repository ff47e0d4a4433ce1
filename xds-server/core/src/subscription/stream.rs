//! All types of one ADS stream in an order that never breaks what works: make before break.
//!
//! Additions start at what is referred to and go on to what refers to it. Each type is sent after the client has
//! answered the one before. Removals go the other way, after all additions were answered. Filter configurations go
//! before listeners and routes, so that a new route never meets a filter that does not know it. While the client
//! refuses a filter configuration of this snapshot, listeners and routes stay as they are, so the last good
//! configuration goes on as a whole.
//!
//! Scopes of routes go before listeners, because a new listener does not wait for them where another one has asked for
//! scopes before. After its ACK they go once more. Where all such listeners were gone, Envoy 1.40 has forgotten its
//! scopes, and the new listener waits for a response without asking for it.
//!
//! A cluster that is new or another one takes its endpoints from a response after it. If another cluster, or the one before,
//! has asked for them under the same name, Envoy 1.40 does not ask again in delta, and waits. So they are sent again.
//!
//! What the client asks for by name and has never had is sent at once, outside of this order. Envoy withholds the ACK
//! of a cluster until the cluster's secrets, endpoints and filters are there and it is warm. So the ACK is the signal
//! that routes may follow, but secrets, endpoints and filters cannot wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Output, Phase, Protocol, Request, Response, Subscription, SubscriptionEvent};
use crate::envoy;
use crate::snapshot::{Changed, ResourceType, Snapshot, Version};

/// Additions in this order, removals in the reverse.
const ORDER: [ResourceType; 7] = [
    ResourceType::Secret,
    ResourceType::Cluster,
    ResourceType::Endpoint,
    ResourceType::ExtensionConfig,
    ResourceType::ScopedRoute,
    ResourceType::Listener,
    ResourceType::Route,
];

/// What stays as it is while a filter configuration is refused.
const BEHIND_FILTERS: [ResourceType; 3] = [ResourceType::ScopedRoute, ResourceType::Listener, ResourceType::Route];

#[derive(Debug, Clone)]
pub enum StreamEvent {
    Request(ResourceType, Request),
    /// There is a new snapshot. What changed since the one before it is told, as far as it is known.
    Target(Arc<Snapshot>, Since),
    /// Filter configurations that were refused may be sent again: what was missing may be there now.
    RetryFilters,
}

/// What changed since a stream's last target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    /// Nothing but these names.
    Names(Changed),
    /// It is not known, so the two are compared.
    Unknown,
}

/// One client's stream. A reconnect is a new stream.
#[derive(Debug)]
pub struct Stream {
    protocol: Protocol,
    target: Arc<Snapshot>,
    subscriptions: BTreeMap<ResourceType, Subscription>,
    /// The listeners of a response under way, if the client had asked for scopes before it.
    listeners: BTreeSet<Arc<str>>,
}

// === impl Since ===

impl Since {
    /// Whether nothing changed, for sure.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Names(changed) if changed.is_empty())
    }
}

// === impl Stream ===

impl Stream {
    pub fn new(protocol: Protocol, target: Arc<Snapshot>) -> Self {
        Self { protocol, target, subscriptions: BTreeMap::new(), listeners: BTreeSet::new() }
    }

    /// Takes in the event and returns what follows from it. The [`Output::Send`]s are in the order of sending.
    pub fn step(&mut self, event: StreamEvent) -> Vec<Output> {
        let mut outputs = Vec::new();
        match event {
            StreamEvent::Request(kind, request) => {
                let protocol = self.protocol;
                let subscription = self.subscriptions.entry(kind).or_insert_with(|| Subscription::new(kind, protocol));
                let output = subscription.step(SubscriptionEvent::Request(request, &self.target));
                if kind == ResourceType::Listener && output == Some(Output::Accepted) {
                    self.listeners_came();
                }
                outputs.extend(output);
            }
            StreamEvent::Target(target, since) => self.aim(target, since),
            StreamEvent::RetryFilters => {
                if let Some(subscription) = self.subscriptions.get_mut(&ResourceType::ExtensionConfig) {
                    outputs.extend(subscription.step(SubscriptionEvent::Retry));
                }
            }
        }
        // Keys depend on nothing, and nothing depends on them.
        self.turn(ResourceType::ApiKey, Phase::Additions, &mut outputs);
        self.turn(ResourceType::ApiKey, Phase::Removals, &mut outputs);
        self.turns(&mut outputs);
        outputs
    }

    /// Whether the client has taken this version of this resource.
    pub fn holds(&self, kind: ResourceType, name: &str, version: Version) -> bool {
        self.subscriptions.get(&kind).is_some_and(|subscription| subscription.holds(name, version, &self.target))
    }

    /// Whether the client has taken everything of this snapshot that makes a Gateway work. Then it is `Programmed`. The
    /// snapshot is the target or a part of it.
    pub fn has_taken(&self, gateway: &Snapshot) -> bool {
        let whole = |kind| match self.subscriptions.get(&kind) {
            Some(subscription) => subscription.holds_all(gateway),
            None => gateway.of(kind).next().is_none(),
        };
        BEHIND_FILTERS.into_iter().all(whole) && self.has_taken_filters(gateway)
    }

    /// An Envoy asks only for the filter configurations that it uses. If it serves several Gateways with a backend in
    /// common, it uses the upstream filter of one of them at that backend.
    fn has_taken_filters(&self, gateway: &Snapshot) -> bool {
        let kind = ResourceType::ExtensionConfig;
        let asks = |name: &str| self.subscriptions.get(&kind).is_some_and(|subscription| subscription.asks_for(name));
        let mut used = gateway.of(kind).filter(|(name, _)| asks(name)).peekable();
        let unused = used.peek().is_none() && gateway.of(kind).next().is_some();
        !unused && used.all(|(name, resource)| self.holds(kind, name, resource.version))
    }

    /// Whether the client has asked for keys and has answered all that was sent. Then it may tell good keys from bad
    /// ones.
    pub fn has_keys(&self) -> bool {
        let subscription = self.subscriptions.get(&ResourceType::ApiKey);
        subscription.is_some_and(|subscription| !subscription.is_under_way())
    }

    /// Whether some response has not been answered yet.
    pub fn is_under_way(&self) -> bool {
        self.subscriptions.values().any(Subscription::is_under_way)
    }

    fn aim(&mut self, target: Arc<Snapshot>, since: Since) {
        let before = std::mem::replace(&mut self.target, target);
        let changed = match since {
            Since::Names(changed) => changed,
            Since::Unknown => Changed::between(&before, &self.target),
        };
        for subscription in self.subscriptions.values_mut() {
            let _nothing = subscription.step(SubscriptionEvent::Target { before: &before, changed: &changed });
        }
    }

    /// Gives each type its turn, as far as the types before it have been answered.
    fn turns(&mut self, outputs: &mut Vec<Output>) {
        for kind in ORDER {
            self.turn(kind, Phase::Awaited, outputs);
        }
        for kind in ORDER {
            if BEHIND_FILTERS.contains(&kind) && self.refuses_filter() {
                return;
            }
            if !self.turn(kind, Phase::Additions, outputs) {
                return;
            }
        }
        for kind in ORDER.into_iter().rev() {
            if !self.turn(kind, Phase::Removals, outputs) {
                return;
            }
        }
    }

    /// Gives one type its turn. Returns whether the type is through: nothing to send, nothing under way.
    fn turn(&mut self, kind: ResourceType, phase: Phase, outputs: &mut Vec<Output>) -> bool {
        let Some(subscription) = self.subscriptions.get_mut(&kind) else {
            return true;
        };
        let output = subscription.step(SubscriptionEvent::Turn(phase, &self.target));
        let through = !subscription.is_under_way();
        if let Some(Output::Send(response)) = &output
            && kind == ResourceType::Listener
        {
            let asked = self.subscriptions.contains_key(&ResourceType::ScopedRoute);
            self.listeners = response.resources.keys().filter(|_| asked).cloned().collect();
        }
        let warming = match &output {
            Some(Output::Send(response)) if kind == ResourceType::Cluster => self.endpoints_of(response),
            _ => BTreeSet::new(),
        };
        outputs.extend(output);
        if let Some(endpoints) = self.subscriptions.get_mut(&ResourceType::Endpoint)
            && !warming.is_empty()
        {
            endpoints.step(SubscriptionEvent::Warming(warming, &self.target));
            self.turn(ResourceType::Endpoint, Phase::Awaited, outputs);
        }
        through
    }

    /// The endpoints of these clusters that the client has asked for before.
    fn endpoints_of(&self, response: &Response) -> BTreeSet<Arc<str>> {
        let asked = self.subscriptions.get(&ResourceType::Endpoint);
        let names = response.resources.values().filter_map(|cluster| envoy::endpoints_of(cluster));
        let names = names.filter(|name| asked.is_some_and(|asked| asked.asks_for(name)));
        names.map(Arc::from).collect()
    }

    fn listeners_came(&mut self) {
        let names = std::mem::take(&mut self.listeners);
        if let Some(scopes) = self.subscriptions.get_mut(&ResourceType::ScopedRoute)
            && !names.is_empty()
        {
            scopes.step(SubscriptionEvent::Listeners(&names, &self.target));
        }
    }

    fn refuses_filter(&self) -> bool {
        let subscription = self.subscriptions.get(&ResourceType::ExtensionConfig);
        subscription.is_some_and(|subscription| subscription.refuses(&self.target))
    }
}
