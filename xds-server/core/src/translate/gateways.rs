//! Puts Gateways together. Each gets what its routes use, and nothing of others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir::{
    self, Action, Backend, Catalog, Class, Domain, Endpoint, Gateway, Listener, Pool, Route, Service, Site, SiteTls,
    Target, Tunnel,
};
use crate::objects::Key;
use crate::scope::Scope;

use super::given::RouteId;
use super::hosts::{self, Candidate};
use super::jwt_issuers;
use super::listener::{ListenerTls, OpenListener};
use super::listeners::OpenListeners;
use super::made::Made;
use super::routes::AttachedRoute;
use super::services;
use super::tls_routes::AttachedTlsRoute;
use super::tunnels;

/// What the routes of a Gateway lead to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    Class(Class),
    /// By cluster name.
    Service(String),
}

/// What a Gateway has besides its listeners.
#[derive(Debug, Default)]
pub struct Parts {
    pub pools: BTreeMap<String, Arc<Pool>>,
    pub backends: BTreeMap<String, Arc<Backend>>,
    pub services: BTreeMap<String, Arc<Service>>,
}

pub fn gateways(
    made: &Made,
    routes: &BTreeMap<RouteId, Arc<AttachedRoute>>,
    tls_routes: &BTreeMap<Key, Arc<AttachedTlsRoute>>,
) -> BTreeMap<Key, Gateway> {
    let attached = by_listener(routes);
    let listeners = made.listeners.iter();
    let mut gateways: BTreeMap<Key, Gateway> = listeners
        .map(|(key, open)| {
            let mut gateway = without_parts(made, open);
            tunnels::open(&mut gateway, open, &tls_routes.iter().collect::<Vec<_>>());
            for (site, listener) in sites(&mut gateway, open).filter(|(site, _)| site.tunnels.is_none()) {
                let elsewhere = hosts::more_specific(listener, open);
                let here = attached.get(&(key, &*site.name)).map(Vec::as_slice).unwrap_or_default();
                site.virtual_hosts = hosts::virtual_hosts(&listener.hostname, &elsewhere, &candidates(key, here));
            }
            gateway.catalog.classes = gateway.routes().filter_map(|route| Class::of(&route.action)).collect();
            (key.clone(), gateway)
        })
        .collect();
    let needs = |gateway: &Gateway| needs_attempts_at(made, gateway.catalog.classes.iter());
    let of_all: BTreeSet<String> = gateways.values().flat_map(needs).collect();
    for gateway in gateways.values_mut() {
        let own = if made.setting.placement.shares_proxies() { &of_all } else { &needs(gateway) };
        let of_tunnels = gateway.tunnels().flat_map(uses_of_tunnel);
        let uses: BTreeSet<Use> = gateway.routes().flat_map(uses).chain(of_tunnels).collect();
        let parts = parts(made, gateway, uses.iter(), |cluster| own.contains(cluster));
        (gateway.catalog.pools, gateway.catalog.backends) = (parts.pools, parts.backends);
        gateway.services = parts.services;
    }
    gateways
}

/// A Gateway with its sites, and nothing in them.
pub fn without_parts(made: &Made, open: &OpenListeners) -> Gateway {
    let mut ports: BTreeMap<u16, Vec<Site>> = BTreeMap::new();
    for listener in open.served() {
        ports.entry(listener.port).or_default().push(Site {
            origin: listener.origin.clone(),
            name: listener.name.clone(),
            hostname: listener.hostname.to_string(),
            tls: site_tls(made, listener),
            virtual_hosts: BTreeMap::new(),
            tunnels: listener.has_tunnels().then(BTreeMap::new),
        });
    }
    Gateway {
        origin: open.origin.clone(),
        client_certificate: open.client_certificate.clone(),
        jwt_issuers: open.jwt_issuers.clone(),
        mesh: made.setting.mesh.clone(),
        listeners: ports.into_iter().map(|(port, sites)| Listener { port, sites }).collect(),
        catalog: Catalog {
            claim_sets: jwt_issuers::claim_sets(&made.claim_sets, &open.jwt_issuers),
            has_members: open.served().any(|listener| listener.tls == ListenerTls::Mesh),
            ..Catalog::new(Scope::Gateway(open.origin.key()))
        },
        services: BTreeMap::new(),
    }
}

fn site_tls(made: &Made, listener: &OpenListener) -> SiteTls {
    match &listener.tls {
        ListenerTls::None | ListenerTls::Passthrough => SiteTls::None {},
        ListenerTls::Terminate(certificates) => {
            SiteTls::Certificates { certificates: certificates.clone(), clients: listener.clients.clone() }
        }
        ListenerTls::Mesh => {
            let domains = made.setting.mesh.iter().flat_map(|mesh| mesh.trust_domains());
            SiteTls::Mesh { trust_domains: domains.map(str::to_owned).collect() }
        }
    }
}

/// The sites, each with its listener.
pub fn sites<'a>(
    gateway: &'a mut Gateway,
    open: &'a OpenListeners,
) -> impl Iterator<Item = (&'a mut Site, &'a OpenListener)> {
    gateway.listeners.iter_mut().flat_map(|listener| &mut listener.sites).filter_map(|site| {
        let listener = open.open.iter().find(|listener| listener.name == site.name)?;
        Some((site, listener))
    })
}

/// What is attached to each listener: routes, with the hostnames that both are for.
type ByListener<'a> = BTreeMap<(&'a Key, &'a str), Vec<(&'a RouteId, &'a AttachedRoute, Vec<Domain>)>>;

fn by_listener(routes: &BTreeMap<RouteId, Arc<AttachedRoute>>) -> ByListener<'_> {
    let mut all = ByListener::new();
    for (key, route) in routes {
        for place in &route.attachments {
            let here = all.entry((&place.gateway, &*place.listener)).or_default();
            // A route may be attached to a listener by several of its parents.
            match here.last_mut() {
                Some((last, _, hostnames)) if *last == key => hostnames.extend_from_slice(&place.hostnames),
                _ => here.push((key, route, place.hostnames.to_vec())),
            }
        }
    }
    all
}

fn candidates<'a>(gateway: &Key, here: &'a [(&RouteId, &AttachedRoute, Vec<Domain>)]) -> Vec<Candidate<'a>> {
    here.iter()
        .flat_map(|(key, route, hostnames)| {
            let routes = hosts::with_precedence(key, route, gateway);
            routes.map(|(order, route)| Candidate { hostnames, order, route })
        })
        .collect()
}

/// What a route leads to.
pub fn uses(route: &Route) -> Vec<Use> {
    match &route.action {
        Action::Pool { .. } => Class::of(&route.action).map(Use::Class).into_iter().collect(),
        Action::Services { services, .. } => {
            let mirrors = route.mirrors.iter().map(|mirror| &mirror.service);
            let pickers = services.iter().filter_map(|service| Some(&service.picker.as_ref()?.service));
            let all = services.iter().map(|service| &service.service).chain(mirrors).chain(pickers);
            all.map(|cluster| Use::Service(cluster.clone())).collect()
        }
        Action::Redirect(_) | Action::Fail { .. } => Vec::new(),
    }
}

/// What a tunnel leads to.
pub fn uses_of_tunnel(tunnel: &Tunnel) -> impl Iterator<Item = Use> {
    tunnel.services.iter().map(|service| Use::Service(service.service.clone()))
}

/// What a Gateway has whose routes have these uses.
pub fn parts<'a>(
    made: &Made,
    gateway: &Gateway,
    uses: impl Iterator<Item = &'a Use>,
    attempts_at: impl Fn(&str) -> bool,
) -> Parts {
    let mut parts = Parts::default();
    let name = |cluster: &str| {
        let of_attempts = attempts_at(cluster).then(|| of_attempts(cluster));
        gateway.own_cluster(of_attempts.as_deref().unwrap_or(cluster))
    };
    for used in uses {
        match used {
            Use::Class(class) => {
                if let Some(name) = class.pool.as_ref().filter(|name| !parts.pools.contains_key(*name))
                    && let Some(pool) = made.pools.get(name)
                {
                    parts.pools.insert(name.clone(), Arc::clone(pool));
                }
            }
            Use::Service(cluster) => {
                parts
                    .services
                    .extend(services::named(&made.services, cluster).map(|service| (cluster.clone(), service)));
            }
        }
    }
    for pool in parts.pools.values_mut() {
        for target in pool.models.iter().flat_map(|model| &model.targets) {
            let Some(backend) = backend_of(&target.backend).and_then(|key| made.backends.get(&key)) else { continue };
            let mut backend = Arc::clone(backend);
            rename(&mut backend, &name, &attempts_at);
            // The Services and InferencePools that are the endpoints of backends belong to the Gateway too.
            if let Endpoint::Service { cluster } | Endpoint::InferencePool { cluster, .. } = &backend.endpoint {
                parts.services.extend(made.services.get(cluster).map(|service| (cluster.clone(), Arc::clone(service))));
            }
            parts.backends.insert(backend.cluster.clone(), backend);
        }
        let is_renamed = |target: &Target| name(&target.backend) != target.backend;
        if pool.models.iter().flat_map(|model| &model.targets).any(is_renamed) {
            let pool = Arc::make_mut(pool);
            for target in pool.models.iter_mut().flat_map(|model| &mut model.targets) {
                target.backend = name(&target.backend);
            }
        }
    }
    parts
}

/// The object of a backend, by its cluster name.
fn backend_of(cluster: &str) -> Option<Key> {
    let (namespace, name) = cluster.strip_prefix(ir::BACKEND_PREFIX)?.split_once('/')?;
    Some(Key::new(namespace, name))
}

/// The clusters of the backends at which this pool needs attempts to be rewritten one by one and counted: where attempts
/// may go to several backends, and where a model has more than one retry. Without retries there is one attempt. With one
/// target, one rewrite does for all attempts, and the one retry that is the default is made only if the attempt before was
/// free. If one Envoy may serve several Gateways, a backend is one cluster for all of them. So if one Gateway needs this at
/// a backend, all of them do it there.
fn needing_attempts(pool: &Pool) -> impl Iterator<Item = &str> {
    let models = pool.models.iter().filter(|model| match model.retries {
        0 => false,
        1 => model.targets.len() > 1,
        _ => true,
    });
    models.flat_map(|model| &model.targets).map(|target| target.backend.as_str())
}

/// The same for all pools that the routes of these classes lead to.
pub fn needs_attempts_at<'a>(made: &Made, classes: impl Iterator<Item = &'a Class>) -> BTreeSet<String> {
    let pools = classes.filter_map(|class| made.pools.get(class.pool.as_ref()?));
    pools.flat_map(|pool| needing_attempts(pool)).map(str::to_owned).collect()
}

fn rename(backend: &mut Arc<Backend>, name: &impl Fn(&str) -> String, attempts_at: &impl Fn(&str) -> bool) {
    let name = name(&backend.cluster);
    if name != backend.cluster {
        let backend = Arc::make_mut(backend);
        backend.per_attempt = attempts_at(&backend.cluster);
        backend.cluster = name;
    }
}

/// A cluster whose attempts are rewritten has a name of its own. So a request that is on its way while its pool is
/// edited never reaches, with the path and model of one backend, another backend that expects to find them rewritten.
pub fn of_attempts(cluster: &str) -> String {
    format!("{cluster}/attempts")
}
