//! Puts Gateways together. Each gets what its routes use, and nothing of others.

use std::collections::{BTreeMap, BTreeSet};

use crate::ir::{Action, Backend, Endpoint, Gateway, Listener, Pool, Service, Site};
use crate::objects::Key;

use super::backends::Backends;
use super::hosts::{Candidate, Precedence, virtual_hosts};
use super::listeners::{GatewayListenersOf, Listeners, OpenListener};
use super::policies::{Policies, Way};
use super::pools::Pools;
use super::routes::AttachedRoute;
use super::services::Services;

pub fn gateways(
    listeners: Listeners<'_>,
    routes: &[AttachedRoute<'_>],
    policies: &Policies<'_>,
    pools: &Pools,
    backends: &Backends,
    services: &Services,
) -> Vec<Gateway> {
    let attached = by_listener(routes);
    let mut gateways: Vec<Gateway> = listeners
        .into_iter()
        .map(|(key, listeners)| {
            let mut gateway = Gateway {
                origin: listeners.gateway.meta.origin.clone(),
                listeners: self::listeners(&key, listeners, &attached, policies),
                pools: BTreeMap::new(),
                backends: BTreeMap::new(),
                services: BTreeMap::new(),
            };
            gateway.pools = used_pools(&gateway, pools);
            gateway.backends = used_backends(&gateway.pools, backends);
            gateway.services = used_services(&gateway, services);
            gateway
        })
        .collect();
    agree_on_attempts(&mut gateways);
    gateways
}

/// Decides at which backends attempts are rewritten one by one and counted: where attempts may go to several backends,
/// and where a model has more than one retry. With one target, one rewrite does for all attempts, and the one retry
/// that is the default is made only if the attempt before was free. One Envoy may serve several Gateways, and a backend
/// is one cluster for all of them. So if one Gateway needs this at a backend, all of them do it there.
fn agree_on_attempts(gateways: &mut [Gateway]) {
    let needed: BTreeSet<String> = gateways
        .iter()
        .flat_map(|gateway| gateway.pools.values())
        .flat_map(|pool| &pool.models)
        .filter(|model| model.targets.len() > 1 || model.retries > 1)
        .flat_map(|model| &model.targets)
        .map(|target| target.backend.clone())
        .collect();
    for gateway in gateways {
        let targets = gateway.pools.values_mut().flat_map(|pool| &mut pool.models).flat_map(|model| &mut model.targets);
        for target in targets.filter(|target| needed.contains(&target.backend)) {
            target.backend = of_attempts(&target.backend);
        }
        let backends = std::mem::take(&mut gateway.backends).into_values().map(|mut backend| {
            if needed.contains(&backend.cluster) {
                backend.per_attempt = true;
                backend.cluster = of_attempts(&backend.cluster);
            }
            (backend.cluster.clone(), backend)
        });
        gateway.backends = backends.collect();
    }
}

/// A cluster whose attempts are rewritten has a name of its own. So a request that is on its way while its pool is
/// edited never reaches, with the path and model of one backend, another backend that expects to find them rewritten.
fn of_attempts(cluster: &str) -> String {
    format!("{cluster}/attempts")
}

/// What is attached to each listener: routes, with the hostnames that both are for.
type ByListener<'a> = BTreeMap<(&'a Key, &'a str), Vec<(&'a AttachedRoute<'a>, Vec<String>)>>;

fn by_listener<'a>(routes: &'a [AttachedRoute<'a>]) -> ByListener<'a> {
    let mut all = ByListener::new();
    for route in routes {
        for place in &route.attachments {
            let here = all.entry((&place.gateway, place.listener.as_str())).or_default();
            // A route may be attached to a listener by several of its parents.
            match here.last_mut() {
                Some((last, hostnames)) if std::ptr::eq(*last, route) => hostnames.extend_from_slice(&place.hostnames),
                _ => here.push((route, place.hostnames.clone())),
            }
        }
    }
    all
}

fn listeners(
    key: &Key,
    listeners: GatewayListenersOf<'_>,
    attached: &ByListener<'_>,
    policies: &Policies<'_>,
) -> Vec<Listener> {
    let origin = &listeners.gateway.meta.origin;
    let hostnames: Vec<(u16, &str)> = listeners.open.iter().map(|open| (open.port, open.hostname)).collect();
    let mut ports: BTreeMap<u16, Vec<Site>> = BTreeMap::new();
    for listener in listeners.open {
        let OpenListener { spec, port, hostname, certificate, .. } = listener;
        let others: Vec<&str> = hostnames
            .iter()
            .filter(|(other, name)| *other == port && *name != hostname)
            .map(|(_, hostname)| *hostname)
            .collect();
        let here = attached.get(&(key, spec.name.as_str())).map(Vec::as_slice).unwrap_or_default();
        let candidates = candidates(key, here, policies);
        ports.entry(port).or_default().push(Site {
            origin: origin.section(&spec.name),
            name: spec.name.clone(),
            hostname: hostname.to_owned(),
            certificate,
            virtual_hosts: virtual_hosts(hostname, &others, &candidates),
        });
    }
    ports.into_iter().map(|(port, sites)| Listener { port, sites }).collect()
}

/// The routes on one listener, with the limits that hold there.
fn candidates(gateway: &Key, here: &[(&AttachedRoute<'_>, Vec<String>)], policies: &Policies<'_>) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    for (attached, hostnames) in here {
        let meta = &attached.object.meta;
        for rule in &attached.routes {
            let mut route = rule.route.clone();
            if let Action::Pool { pool, limits, closed_by } = &mut route.action {
                let way = Way {
                    gateway: (&gateway.namespace, &gateway.name),
                    route: (meta.namespace(), meta.name()),
                    pool: pool.split_once('/').unwrap_or_default(),
                };
                *limits = policies.of(way);
                *closed_by = policies.closed_by(way);
            }
            candidates.push(Candidate {
                hostnames: hostnames.clone(),
                order: Precedence {
                    created: meta.created.unwrap_or(i64::MAX),
                    namespace: meta.namespace().to_owned(),
                    name: meta.name().to_owned(),
                    rule: rule.rule,
                    index: rule.index,
                },
                route,
            });
        }
    }
    candidates
}

fn used_pools(gateway: &Gateway, pools: &Pools) -> BTreeMap<String, Pool> {
    let used: BTreeSet<&str> = gateway
        .routes()
        .filter_map(|route| match &route.action {
            Action::Pool { pool, .. } => Some(pool.as_str()),
            _ => None,
        })
        .collect();
    used.into_iter().filter_map(|name| Some((name.to_owned(), pools.get(name)?.clone()))).collect()
}

fn used_backends(pools: &BTreeMap<String, Pool>, backends: &Backends) -> BTreeMap<String, Backend> {
    let models = || pools.values().flat_map(|pool| &pool.models);
    let used: BTreeSet<&str> =
        models().flat_map(|model| &model.targets).map(|target| target.backend.as_str()).collect();
    backends
        .values()
        .filter(|backend| used.contains(backend.cluster.as_str()))
        .map(|backend| (backend.cluster.clone(), backend.clone()))
        .collect()
}

/// The Services that routes lead to, and those that are the endpoints of backends.
fn used_services(gateway: &Gateway, services: &Services) -> BTreeMap<String, Service> {
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for route in gateway.routes() {
        if let Action::Services { services, .. } = &route.action {
            used.extend(services.iter().map(|service| service.service.as_str()));
        }
    }
    for backend in gateway.backends.values() {
        if let Endpoint::Service { cluster } = &backend.endpoint {
            used.insert(cluster);
        }
    }
    used.into_iter().filter_map(|name| Some((name.to_owned(), services.get(name)?.clone()))).collect()
}
