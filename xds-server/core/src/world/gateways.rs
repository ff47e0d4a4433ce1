//! The Gateways of the IR, changed where routes, pools, backends or Services changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir::{self, Gateway, GatewayDelta, Host, PartsDelta};
use crate::objects::Key;
use crate::sets::{Counted, take_out};
use crate::translate::gateways::{needs_attempts_at, of_attempts, parts, without_parts};
use crate::translate::given::{RouteId, RouteKind};
use crate::translate::made::Made;
use crate::translate::routes::AttachedRoute;
use crate::translate::services::{of_calls, of_picker};
use crate::translate::tls_routes::AttachedTlsRoute;
use crate::translate::tunnels;

use super::Touched;
use super::memo::{Memo, Turn};
use super::place::Place;
use super::routes::{RouteTurn, Routes};

#[derive(Debug, Default)]
pub struct Gateways {
    places: BTreeMap<Key, Place>,
    /// The routes that are attached to each Gateway.
    attached: BTreeMap<Key, BTreeSet<Arc<RouteId>>>,
    /// The TLSRoutes that are.
    attached_tls: BTreeMap<Key, BTreeSet<Arc<Key>>>,
    /// Clusters of the backends at which some Gateways need attempts to be rewritten.
    attempts_at: Counted<String>,
}

// === impl Gateways ===

impl Gateways {
    pub(super) fn step(
        &mut self,
        made: &Made,
        (routes, turns): (&Routes, &[RouteTurn]),
        tls_routes: &Memo<AttachedTlsRoute>,
        touched: &Touched,
        gateways: &mut BTreeMap<Key, Gateway>,
    ) -> BTreeMap<Key, GatewayDelta> {
        let mut deltas: BTreeMap<Key, PartsDelta> = BTreeMap::new();
        // Gateways whose uses are others now.
        let mut other_uses: BTreeSet<Key> = BTreeSet::new();
        let mut hosts = self.attach(turns, &mut deltas);
        // Backends at which attempts are rewritten now and were not, or the other way round.
        let mut other_attempts = BTreeSet::new();
        for key in &touched.gateways {
            if let Some(place) = self.places.remove(key) {
                other_attempts.extend(self.release(&place));
            }
            gateways.remove(key);
            hosts.remove(key);
            if let Some(open) = made.listeners.get(key) {
                let mut gateway = without_parts(made, open);
                let attached = self.attached_tls.get(key).into_iter().flatten();
                let attached: Vec<_> = attached.filter_map(|route| Some((route, tls_routes.output(route)?))).collect();
                let attached: Vec<_> = attached.iter().map(|(key, route)| (&***key, route)).collect();
                tunnels::open(&mut gateway, open, &attached);
                let place = self.open(key, Place::new(open, &gateway), routes);
                hosts.insert(key.clone(), place.hosts());
                self.places.insert(key.clone(), place);
                gateways.insert(key.clone(), gateway);
                other_uses.insert(key.clone());
            }
        }
        for (key, hosts) in hosts {
            let (Some(place), Some(gateway)) = (self.places.get_mut(&key), gateways.get_mut(&key)) else { continue };
            let delta = deltas.entry(key.clone()).or_default();
            for host in hosts {
                let made = place.make(&host, &key, gateway, routes);
                if made.changed {
                    delta.hosts.insert(host);
                }
                if !made.uses.is_empty() {
                    other_uses.insert(key.clone());
                }
            }
        }
        let mut due = self.due(made, other_uses, touched, gateways, &mut other_attempts);
        let shares = |gateway: &Gateway| {
            made.setting.placement.shares_proxies()
                && other_attempts.iter().any(|cluster| has_backend(gateway, cluster))
        };
        due.extend(gateways.iter().filter(|(_, gateway)| shares(gateway)).map(|(key, _)| key.clone()));
        for key in due {
            if let (Some(place), Some(gateway)) = (self.places.get(&key), gateways.get_mut(&key)) {
                let attempts_at = |cluster: &str| {
                    if made.setting.placement.shares_proxies() {
                        self.attempts_at.contains(cluster)
                    } else {
                        place.needs_attempts_at.contains(cluster)
                    }
                };
                renew(place, gateway, made, attempts_at, deltas.entry(key).or_default());
            }
        }
        let parts = deltas.into_iter().filter(|(key, parts)| !parts.is_empty() && gateways.contains_key(key));
        let mut deltas: BTreeMap<Key, GatewayDelta> =
            parts.map(|(key, parts)| (key, GatewayDelta::Parts(parts))).collect();
        for key in &touched.gateways {
            let delta = if gateways.contains_key(key) { GatewayDelta::Whole } else { GatewayDelta::Gone };
            deltas.insert(key.clone(), delta);
        }
        deltas
    }

    /// Notes which Gateways have limits that changed.
    pub(super) fn note_limits(
        limits: &BTreeSet<String>,
        gateways: &BTreeMap<Key, Gateway>,
        deltas: &mut BTreeMap<Key, GatewayDelta>,
    ) {
        if limits.is_empty() {
            return;
        }
        let has = |gateway: &Gateway| gateway.catalog.limits().any(|limit| limits.contains(limit));
        for (key, _) in gateways.iter().filter(|(_, gateway)| has(gateway)) {
            let parts = || GatewayDelta::Parts(PartsDelta::default());
            if let GatewayDelta::Parts(parts) = deltas.entry(key.clone()).or_insert_with(parts) {
                parts.classes = true;
            }
        }
    }

    /// The routes that are attached to a Gateway.
    pub fn attached(&self, gateway: &Key) -> impl Iterator<Item = &RouteId> {
        self.attached.get(gateway).into_iter().flatten().map(AsRef::as_ref)
    }

    pub fn is_attached(&self, gateway: &Key, route: &RouteId) -> bool {
        self.attached.get(gateway).is_some_and(|routes| routes.contains(route))
    }

    /// The TLSRoutes that are attached to a Gateway.
    pub fn attached_tls(&self, gateway: &Key) -> impl Iterator<Item = &Key> {
        self.attached_tls.get(gateway).into_iter().flatten().map(AsRef::as_ref)
    }

    /// Moves TLSRoutes to where they are attached now. Returns the Gateways that this may change.
    pub(super) fn attach_tls(&mut self, turns: &[Turn<AttachedTlsRoute>]) -> BTreeSet<Key> {
        let mut touched = BTreeSet::new();
        for Turn { key, before, after } in turns {
            let at = |route: &Option<Arc<AttachedTlsRoute>>| -> BTreeSet<Key> {
                let places = route.iter().flat_map(|route| &route.attachments);
                places.map(|place| place.gateway.clone()).collect()
            };
            for gateway in at(before) {
                take_out(&mut self.attached_tls, &gateway, key);
                touched.insert(gateway);
            }
            for gateway in at(after) {
                self.attached_tls.entry(gateway.clone()).or_default().insert(key.clone());
                touched.insert(gateway);
            }
        }
        touched
    }

    /// Moves routes to where they are attached now. Returns the virtual hosts that this may change, by Gateway.
    fn attach(&mut self, turns: &[RouteTurn], deltas: &mut BTreeMap<Key, PartsDelta>) -> BTreeMap<Key, BTreeSet<Host>> {
        let mut touched: BTreeMap<Key, BTreeSet<Host>> = BTreeMap::new();
        for Turn { key, before, after } in turns {
            let at = |route: &Option<Arc<AttachedRoute>>| -> BTreeSet<Key> {
                of_gateways(route.as_deref()).map(|(gateway, _)| gateway.clone()).collect()
            };
            let is_told = |_: &&Key| key.kind == RouteKind::Http;
            for gateway in at(before).symmetric_difference(&at(after)).filter(is_told) {
                deltas.entry(gateway.clone()).or_default().attached.insert(key.key.clone());
            }
            for (gateway, route) in of_gateways(before.as_deref()) {
                if let Some(place) = self.places.get_mut(gateway) {
                    place.detach(gateway, key, route, touched.entry(gateway.clone()).or_default());
                }
                take_out(&mut self.attached, gateway, key);
            }
            for (gateway, route) in of_gateways(after.as_deref()) {
                if let Some(place) = self.places.get_mut(gateway) {
                    place.attach(gateway, key, route, touched.entry(gateway.clone()).or_default());
                }
                self.attached.entry(gateway.clone()).or_default().insert(key.clone());
            }
        }
        touched
    }

    /// A Gateway begins with the routes that are attached to it.
    fn open(&self, key: &Key, mut place: Place, routes: &Routes) -> Place {
        let mut all = BTreeSet::new();
        for route in self.attached.get(key).into_iter().flatten() {
            if let Some(attached) = routes.output(route) {
                place.attach(key, route, &attached, &mut all);
            }
        }
        place
    }

    fn release(&mut self, place: &Place) -> BTreeSet<String> {
        let needed = place.needs_attempts_at.iter();
        needed.filter(|cluster| self.attempts_at.remove(*cluster)).cloned().collect()
    }

    /// The Gateways whose pools, backends or Services may be others now. Counts anew where they need attempts to be
    /// rewritten.
    fn due(
        &mut self,
        made: &Made,
        other_uses: BTreeSet<Key>,
        touched: &Touched,
        gateways: &BTreeMap<Key, Gateway>,
        other_attempts: &mut BTreeSet<String>,
    ) -> BTreeSet<Key> {
        let mut due = other_uses;
        for (key, gateway) in gateways {
            if touched.pools.iter().any(|name| gateway.catalog.pools.contains_key(name))
                || touched.backends.iter().any(|cluster| has_backend(gateway, cluster))
                || touched.services.iter().any(|cluster| has_service(gateway, cluster))
            {
                due.insert(key.clone());
            }
        }
        for key in &due {
            let Some(mut place) = self.places.remove(key) else { continue };
            let needs = needs_attempts_at(made, place.classes());
            other_attempts.extend(self.release(&place));
            other_attempts.extend(needs.iter().filter(|cluster| self.attempts_at.add((*cluster).clone())).cloned());
            place.needs_attempts_at = needs;
            self.places.insert(key.clone(), place);
        }
        due
    }
}

/// Whether a Gateway has a backend, by the cluster name that it has where attempts are not rewritten
/// and no certificate is shown.
fn has_backend(gateway: &Gateway, cluster: &str) -> bool {
    let has = |cluster: &str| gateway.catalog.backends.contains_key(&gateway.own_cluster(cluster));
    has(cluster) || has(&of_attempts(cluster))
}

fn has_service(gateway: &Gateway, cluster: &str) -> bool {
    let has = |cluster: &str| gateway.services.contains_key(cluster);
    has(cluster) || has(&of_calls(cluster)) || has(&of_picker(cluster))
}

/// The Gateways that a route is attached to.
fn of_gateways(route: Option<&AttachedRoute>) -> impl Iterator<Item = (&Key, &AttachedRoute)> {
    route.into_iter().flat_map(|route| route.routes.gateways().map(move |gateway| (gateway, route)))
}

/// Makes pools, backends and Services of a Gateway anew, and notes which are others now.
fn renew(
    place: &Place,
    gateway: &mut Gateway,
    made: &Made,
    attempts_at: impl Fn(&str) -> bool,
    delta: &mut PartsDelta,
) {
    let parts = parts(made, gateway, place.uses(), attempts_at);
    let pools = replace(&mut gateway.catalog.pools, parts.pools);
    let backends = replace(&mut gateway.catalog.backends, parts.backends);
    delta.services.extend(replace(&mut gateway.services, parts.services));
    // A route to a pool says what it says by the pool and its backends.
    let leads_to = |pool: &ir::Pool| {
        pool.models.iter().flat_map(|model| &model.targets).any(|target| backends.contains(&target.backend))
    };
    let by_backend = gateway.catalog.pools.iter().filter(|(_, pool)| leads_to(pool)).map(|(name, _)| name);
    for name in pools.iter().chain(by_backend) {
        delta.hosts.extend(place.hosts_of_pool(name).cloned());
    }
    delta.pools.extend(pools);
    delta.backends.extend(backends);
    let classes = place.classes().cloned().collect();
    if gateway.catalog.classes != classes {
        gateway.catalog.classes = classes;
        delta.classes = true;
    }
}

/// Returns the names of what is another now.
fn replace<T: PartialEq>(before: &mut BTreeMap<String, T>, after: BTreeMap<String, T>) -> BTreeSet<String> {
    let names = before.keys().chain(after.keys());
    let others = names.filter(|name| before.get(*name) != after.get(*name)).cloned().collect();
    *before = after;
    others
}
