//! The statuses of objects, as their units left them: what is wrong are the units' own findings, and what is well are
//! their outputs. Nothing is looked at a second time, so a status cannot contradict what is served.
//!
//! Whether proxies work by it is added later (`status/proxies.rs`).

mod backend_tls;
mod gateways;
mod inference_pools;
mod listener_sets;
mod own;
mod routes;
mod tls_routes;
mod verdicts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir::{self, Gateway, Ir};
use crate::objects::{Key, Kind, Object, Objects, Service, Store, gateway_of, plain};
use crate::placement::Placement;
use crate::status::{BackendCount, Brief, Finding, ObjectStatus, Origin, Status, StatusKind};

use self::verdicts::Verdicts;

use super::attach::Attachment;
use super::backing::Backing;
use super::given::{GivenRoute, RouteId, RouteKind};
use super::listeners::OpenListeners;
use super::routes::AttachedRoute;
use super::tls_routes::AttachedTlsRoute;
use super::users::Users;

/// What the units have said. `translate` knows it of all objects at once, and `world` of each.
pub trait Known {
    fn objects(&self) -> &Objects;

    fn placement(&self) -> &Placement;

    /// None: the Gateway is not ours.
    fn listeners(&self, gateway: &Key) -> Option<&OpenListeners>;

    fn route(&self, route: &RouteId) -> Option<Arc<AttachedRoute>>;

    fn tls_route(&self, route: &Key) -> Option<Arc<AttachedTlsRoute>>;

    /// The Gateways that reach a Service.
    fn users(&self, service: &Key) -> Vec<Key>;

    /// None: no sidecars act on a policy for this Service.
    fn workload(&self, service: &Key) -> Option<Arc<ir::Workload>>;

    /// The Gateways whose routes name an InferencePool.
    fn gateways_of_pool(&self, pool: &Key) -> BTreeSet<Key>;

    /// How many routes are attached to each listener.
    fn attached(&self, gateway: &Key) -> BTreeMap<Arc<str>, usize>;

    /// None: there is no such pool.
    fn backends(&self, pool: &Key) -> Option<BackendCount>;

    /// Who uses which of our objects.
    fn used(&self) -> &Users;

    fn findings(&self, kind: StatusKind, key: &Key) -> Vec<&Finding>;
}

/// What the units of a translation say besides the IR.
#[derive(Debug, Default)]
pub struct Units {
    pub placement: Placement,
    pub listeners: BTreeMap<Key, Arc<OpenListeners>>,
    pub routes: BTreeMap<RouteId, Arc<AttachedRoute>>,
    pub tls_routes: BTreeMap<Key, Arc<AttachedTlsRoute>>,
    pub backing: BTreeMap<Key, Backing>,
    pub users: Users,
}

/// A whole translation, in order of its objects.
pub struct Whole<'a> {
    objects: &'a Objects,
    ir: &'a Ir,
    units: &'a Units,
    findings: ByObject<'a>,
    attached: BTreeMap<&'a Key, BTreeMap<Arc<str>, usize>>,
}

/// Findings by the object that they are about.
struct ByObject<'a>(BTreeMap<(&'a str, Key), Vec<&'a Finding>>);

/// What there is of an object.
enum Found {
    /// It is not ours to answer for.
    Foreign,
    /// It was refused when it was read, and no version of it is in force.
    Refused,
    Here(Brief, Box<Status>),
}

/// The statuses of all objects. `given` is what is wrong with them as they were read.
pub fn all(known: &impl Known, given: &[Finding]) -> Vec<ObjectStatus> {
    let given = ByObject::new(given);
    let names = StatusKind::ALL.into_iter().flat_map(|kind| names(known.objects(), kind));
    names.filter_map(|(kind, key)| one(known, (kind, &key), &given)).collect()
}

/// The statuses of these objects, in their order. None: the object is gone, or it is not ours to answer for.
pub fn of<'a>(
    known: &impl Known,
    names: impl IntoIterator<Item = &'a (StatusKind, Key)>,
    given: &[Finding],
) -> Vec<Option<ObjectStatus>> {
    let given = ByObject::new(given);
    let is_there = |kind: StatusKind, key: &Key| generation(known.objects(), kind, key).is_some();
    let names = names.into_iter();
    names.map(|(kind, key)| is_there(*kind, key).then(|| one(known, (*kind, key), &given)).flatten()).collect()
}

/// The objects of a kind, those that were refused included.
fn names(objects: &Objects, kind: StatusKind) -> BTreeSet<(StatusKind, Key)> {
    fn of<T>(store: &Store<T>) -> Vec<Key> {
        store.iter().map(|object| object.meta.key()).collect()
    }
    let stored = match kind {
        StatusKind::GatewayClass => of(&objects.gateway_classes),
        StatusKind::Gateway => of(&objects.gateways),
        StatusKind::ListenerSet => of(&objects.listener_sets),
        StatusKind::HttpRoute => of(&objects.http_routes),
        StatusKind::GrpcRoute => of(&objects.grpc_routes),
        StatusKind::TlsRoute => of(&objects.tls_routes),
        StatusKind::BackendTlsPolicy => of(&objects.backend_tls_policies),
        StatusKind::InferencePool => of(&objects.inference_pools),
        StatusKind::ModelPool => of(&objects.model_pools),
        StatusKind::ModelBackend => of(&objects.model_backends),
        StatusKind::Consumer => of(&objects.consumers),
        StatusKind::TokenPolicy => of(&objects.token_policies),
    };
    let refused = objects.refused.keys().filter(|origin| origin.kind == kind.name());
    // A name that was refused may be anything, and findings do not quote it either.
    let refused = refused.map(|origin| Key::new(plain(&origin.namespace), plain(&origin.name)));
    stored.into_iter().chain(refused).map(|key| (kind, key)).collect()
}

/// None: the object is not ours to answer for.
fn one(known: &impl Known, (kind, key): (StatusKind, &Key), given: &ByObject<'_>) -> Option<ObjectStatus> {
    let mut findings = known.findings(kind, key);
    findings.sort_by(|a, b| Finding::by_spot(a, b));
    findings.dedup();
    let verdicts = Verdicts::new(&findings, given.of(kind, key));
    let generation = generation(known.objects(), kind, key).flatten();
    let named = |brief, status: Status| {
        let (namespace, name) = (key.namespace.to_string(), key.name.to_string());
        let status = Status { generation, ..status }.observed();
        ObjectStatus { kind, namespace, name, brief, status }
    };
    match of_object(known, (kind, key), &verdicts) {
        Found::Foreign => None,
        Found::Refused => {
            let status = Status { conditions: verdicts.refused(), ..Status::default() };
            Some(named(Brief::Refused {}, status))
        }
        Found::Here(brief, mut status) => {
            if let Some(partial) = verdicts.partial() {
                status.each_own(|conditions| conditions.set(partial.clone()));
            }
            Some(named(brief, *status))
        }
    }
}

/// The newest generation that was looked at, of an object that has such a thing. None: there is no such object, not even a
/// refused one.
fn generation(objects: &Objects, kind: StatusKind, key: &Key) -> Option<Option<i64>> {
    fn of<T>(store: &Store<T>, key: &Key) -> Option<Option<i64>> {
        let object = store.get(&key.namespace, &key.name)?;
        Some(object.meta.provenance.observed_generation())
    }
    let stored = match kind {
        StatusKind::GatewayClass => of(&objects.gateway_classes, key),
        StatusKind::Gateway => of(&objects.gateways, key),
        StatusKind::ListenerSet => of(&objects.listener_sets, key),
        StatusKind::HttpRoute => of(&objects.http_routes, key),
        StatusKind::GrpcRoute => of(&objects.grpc_routes, key),
        StatusKind::TlsRoute => of(&objects.tls_routes, key),
        StatusKind::BackendTlsPolicy => of(&objects.backend_tls_policies, key),
        StatusKind::InferencePool => of(&objects.inference_pools, key),
        StatusKind::ModelPool => of(&objects.model_pools, key),
        StatusKind::ModelBackend => of(&objects.model_backends, key),
        StatusKind::Consumer => of(&objects.consumers, key),
        StatusKind::TokenPolicy => of(&objects.token_policies, key),
    };
    let refused = || objects.refused.get(&Origin::new(kind.name(), Arc::clone(&key.namespace), Arc::clone(&key.name)));
    stored.or_else(|| refused().copied())
}

fn of_object(known: &impl Known, (kind, key): (StatusKind, &Key), verdicts: &Verdicts<'_>) -> Found {
    fn get<'a, T: Kind>(known: &'a impl Known, key: &Key) -> Option<&'a Object<T>> {
        T::store(known.objects()).get(&key.namespace, &key.name)
    }
    let here = |(brief, status)| Found::Here(brief, Box::new(status));
    let ours = |found: Option<_>| found.map_or(Found::Foreign, here);
    let own =
        |brief, refused, used_by| here((brief, Status { used_by: Some(used_by), ..own::status(refused, verdicts) }));
    let route = |kind: RouteKind| {
        let id = RouteId { key: key.clone(), kind };
        let attached = || known.route(&id);
        let given = GivenRoute::of(known.objects(), &id)?;
        Some(ours(attached().map(|attached| routes::route(given, &attached, verdicts))))
    };
    let found = match kind {
        StatusKind::GatewayClass => {
            get(known, key).map(|object| ours(gateways::class(object, known.placement(), verdicts)))
        }
        StatusKind::Gateway => get(known, key)
            .map(|object| ours(gateways::gateway(object, known.listeners(key), &known.attached(key), verdicts))),
        StatusKind::ListenerSet => get(known, key).map(|object| {
            let gateway = gateway_of(object);
            let (open, attached) = (known.listeners(&gateway), known.attached(&gateway));
            ours(listener_sets::listener_set(object, open, &attached, verdicts))
        }),
        StatusKind::HttpRoute => route(RouteKind::Http),
        StatusKind::GrpcRoute => route(RouteKind::Grpc),
        StatusKind::TlsRoute => get(known, key)
            .map(|object| ours(known.tls_route(key).map(|attached| tls_routes::route(object, &attached, verdicts)))),
        StatusKind::BackendTlsPolicy => {
            get(known, key).map(|object| here(backend_tls::policy(object, |service| known.users(service), verdicts)))
        }
        StatusKind::InferencePool => {
            get(known, key).map(|object| here(inference_pools::pool(object, known.gateways_of_pool(key), verdicts)))
        }
        StatusKind::ModelPool => get(known, key).map(|object| {
            let status = own::status(&object.refused, verdicts);
            let used_by = Some(known.used().of_pool(key));
            here((own::pool(object), Status { backends: known.backends(key), used_by, ..status }))
        }),
        StatusKind::ModelBackend => {
            get(known, key).map(|object| own(own::backend(object), &object.refused, known.used().of_backend(key)))
        }
        StatusKind::Consumer => get(known, key).map(|object| {
            own(own::consumer(object, verdicts), &object.refused, known.used().of_consumer(&key.namespace))
        }),
        StatusKind::TokenPolicy => {
            get(known, key).map(|object| here(own::policy(object, verdicts, |service| known.workload(service))))
        }
    };
    found.unwrap_or(Found::Refused)
}

/// The Gateways that reach a Service.
pub fn users(gateways: &BTreeMap<Key, Gateway>, service: &Key) -> Vec<Key> {
    let is_of = |port: &ir::Service| port.origin.kind == Service::NAME && port.origin.key() == *service;
    let users = gateways.iter().filter(|(_, gateway)| gateway.services.values().any(|port| is_of(port)));
    users.map(|(key, _)| key.clone()).collect()
}

/// The Gateways that some routes are attached to.
pub fn gateways_of<'a>(routes: impl Iterator<Item = &'a AttachedRoute>) -> BTreeSet<Key> {
    routes.flat_map(|route| &route.attachments).map(|place| place.gateway.clone()).collect()
}

/// Counts the routes at each listener.
pub fn count<'a>(gateway: &Key, routes: impl Iterator<Item = &'a [Attachment]>) -> BTreeMap<Arc<str>, usize> {
    let mut counts = BTreeMap::new();
    for attachments in routes {
        // A route may be attached to a listener by several of its parents.
        let here = attachments.iter().filter(|attachment| attachment.gateway == *gateway);
        let listeners: BTreeSet<&Arc<str>> = here.map(|attachment| &attachment.listener).collect();
        for listener in listeners {
            *counts.entry(listener.clone()).or_default() += 1;
        }
    }
    counts
}

// === impl Whole ===

impl<'a> Whole<'a> {
    pub fn new(objects: &'a Objects, (ir, units): (&'a Ir, &'a Units), findings: &'a [Finding]) -> Self {
        let mut by_gateway: BTreeMap<&Key, Vec<&[Attachment]>> = BTreeMap::new();
        let http = units.routes.values().map(|route| &route.attachments);
        for attachments in http.chain(units.tls_routes.values().map(|route| &route.attachments)) {
            let gateways: BTreeSet<&Key> = attachments.iter().map(|place| &place.gateway).collect();
            for gateway in gateways {
                by_gateway.entry(gateway).or_default().push(attachments);
            }
        }
        let attached = by_gateway.into_iter().map(|(gateway, routes)| (gateway, count(gateway, routes.into_iter())));
        Self { objects, ir, units, findings: ByObject::new(findings), attached: attached.collect() }
    }
}

impl Known for Whole<'_> {
    fn objects(&self) -> &Objects {
        self.objects
    }

    fn placement(&self) -> &Placement {
        &self.units.placement
    }

    fn listeners(&self, gateway: &Key) -> Option<&OpenListeners> {
        self.units.listeners.get(gateway).map(AsRef::as_ref)
    }

    fn route(&self, route: &RouteId) -> Option<Arc<AttachedRoute>> {
        self.units.routes.get(route).map(Arc::clone)
    }

    fn tls_route(&self, route: &Key) -> Option<Arc<AttachedTlsRoute>> {
        self.units.tls_routes.get(route).map(Arc::clone)
    }

    fn users(&self, service: &Key) -> Vec<Key> {
        users(&self.ir.gateways, service)
    }

    fn workload(&self, service: &Key) -> Option<Arc<ir::Workload>> {
        self.ir.workloads.get(service).map(Arc::clone)
    }

    fn gateways_of_pool(&self, pool: &Key) -> BTreeSet<Key> {
        let routes = self.units.routes.values().filter(|route| route.pools.contains(pool));
        gateways_of(routes.map(AsRef::as_ref))
    }

    fn attached(&self, gateway: &Key) -> BTreeMap<Arc<str>, usize> {
        self.attached.get(gateway).cloned().unwrap_or_default()
    }

    fn backends(&self, pool: &Key) -> Option<BackendCount> {
        self.units.backing.get(pool).map(|backing| backing.count)
    }

    fn used(&self) -> &Users {
        &self.units.users
    }

    fn findings(&self, kind: StatusKind, key: &Key) -> Vec<&Finding> {
        self.findings.of(kind, key).to_vec()
    }
}

// === impl ByObject ===

impl<'a> ByObject<'a> {
    fn new(findings: &'a [Finding]) -> Self {
        let mut all: BTreeMap<_, Vec<&Finding>> = BTreeMap::new();
        for finding in findings {
            if let Some(origin) = &finding.origin {
                all.entry((origin.kind.as_ref(), origin.key())).or_default().push(finding);
            }
        }
        Self(all)
    }

    fn of(&self, kind: StatusKind, key: &Key) -> &[&'a Finding] {
        self.0.get(&(kind.name(), key.clone())).map(Vec::as_slice).unwrap_or_default()
    }
}
