//! What the units have said, object by object, and which objects may be said something else of after a step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir::{Delta, GatewayDelta, Workload};
use crate::objects::{
    GatewayClass, Key, ListenerSet, Meta, Object, Objects, Refused, TargetKind, TokenPolicy, gateway_of, plain,
};
use crate::placement::Placement;
use crate::sets::take_out;
use crate::status::{BackendCount, Finding, ObjectStatus, Origin, StatusKind};
use crate::translate::attach::Attachment;
use crate::translate::given::{RouteId, RouteKind};
use crate::translate::listeners::OpenListeners;
use crate::translate::routes::AttachedRoute;
use crate::translate::statuses::{self, Known};
use crate::translate::tls_routes::AttachedTlsRoute;
use crate::translate::users::{Admitted, Users};

use super::World;
use super::memo::{Dirty, Turn};
use super::routes::RouteTurn;

/// Objects whose statuses may be others than before.
pub type Affected = BTreeSet<(StatusKind, Key)>;

// === impl World ===

impl World {
    /// The statuses of all objects, before proxies are heard. `given` is what is wrong with them as they were read.
    pub fn statuses(&self, given: &[Finding]) -> Vec<ObjectStatus> {
        statuses::all(self, given)
    }

    /// Those of these objects, in their order. None: the object is gone, or it is not ours to answer for.
    pub fn statuses_of<'a>(
        &self,
        names: impl IntoIterator<Item = &'a (StatusKind, Key)>,
        given: &[Finding],
    ) -> Vec<Option<ObjectStatus>> {
        statuses::of(self, names, given)
    }

    /// The objects of a refused set that have a status.
    pub(super) fn affected_by_refused(&self, refused: &Refused) -> Affected {
        let policies = refused.policies.iter().chain(&self.objects.refused_policies);
        let policies = policies.map(|policy| (StatusKind::TokenPolicy, policy.meta.key()));
        let others = refused.others(&self.objects.refused).filter_map(named);
        policies.chain(others).collect()
    }

    /// The Consumers that count in other pools now.
    pub(super) fn affected_consumers(&self, admitted: &Admitted, affected: &mut Affected) {
        let consumers = &self.objects.consumers;
        let mut add = |meta: &Meta| {
            affected.insert((StatusKind::Consumer, meta.key()));
        };
        match admitted {
            Admitted::OfAll => consumers.iter().for_each(|consumer| add(&consumer.meta)),
            Admitted::Of(namespaces) => {
                let theirs = namespaces.iter().flat_map(|namespace| consumers.of_namespace(namespace));
                theirs.for_each(|consumer| add(&consumer.meta));
            }
        }
    }

    /// The ListenerSets for a Gateway.
    pub fn sets_of(&self, gateway: &Key) -> impl Iterator<Item = (StatusKind, Key)> {
        let sets = self.made.listener_sets.get(gateway).into_iter().flatten();
        sets.map(|key| (StatusKind::ListenerSet, key.clone()))
    }

    /// A BackendTLSPolicy has its status at the Gateways that reach its targets, and these may be others now.
    pub(super) fn affected_backend_tls(&self, delta: &mut Delta) {
        let reach_others = |gateway: &GatewayDelta| match gateway {
            GatewayDelta::Whole | GatewayDelta::Gone => true,
            GatewayDelta::Parts(parts) => !parts.services.is_empty(),
        };
        if delta.gateways.values().any(reach_others) {
            let policies = self.objects.backend_tls_policies.iter().map(|policy| policy.meta.key());
            delta.statuses.extend(policies.map(|key| (StatusKind::BackendTlsPolicy, key)));
        }
    }

    /// A policy says which Pods of a Service carry the filter, and these may be others now.
    pub(super) fn affected_policies(&self, delta: &mut Delta) {
        for service in &delta.workloads {
            let names_it = |policy: &Object<TokenPolicy>| {
                let mut targets = policy.spec.targets.iter();
                targets.any(|target| target.kind == TargetKind::Service && *target.name == *service.name)
            };
            let policies =
                self.objects.token_policies.of_namespace(&service.namespace).filter(|policy| names_it(policy));
            delta.statuses.extend(policies.map(|policy| (StatusKind::TokenPolicy, policy.meta.key())));
        }
    }

    /// Notes which routes name which InferencePools. A pool has its status at the Gateways of its routes, and these may be
    /// others now.
    pub(super) fn name_pools(&mut self, turns: &[RouteTurn], affected: &mut Affected) {
        for Turn { key, before, after } in turns {
            for pool in before.iter().flat_map(|route| &route.pools) {
                take_out(&mut self.routes_of_pools, pool, key);
                affected.insert((StatusKind::InferencePool, pool.clone()));
            }
            for pool in after.iter().flat_map(|route| &route.pools) {
                self.routes_of_pools.entry(pool.clone()).or_default().insert(Arc::clone(key));
                affected.insert((StatusKind::InferencePool, pool.clone()));
            }
        }
    }

    /// The objects that were looked at in this step.
    pub(super) fn affected(
        &self,
        dirty: &Dirty,
        (routes, tls_routes): (&[RouteTurn], &[Turn<AttachedTlsRoute>]),
        affected: &mut Affected,
    ) {
        let mut add = |kind, key: &Key| {
            affected.insert((kind, key.clone()));
        };
        dirty.of::<GatewayClass>().for_each(|key| add(StatusKind::GatewayClass, key));
        self.consumers.asked().for_each(|key| add(StatusKind::Consumer, key));
        self.policies.asked().for_each(|key| add(StatusKind::TokenPolicy, key));
        self.inference_pools.asked().for_each(|key| add(StatusKind::InferencePool, key));
        self.backends.asked().for_each(|key| add(StatusKind::ModelBackend, key));
        self.pools.asked().chain(self.frontends.asked()).for_each(|key| add(StatusKind::ModelPool, key));
        let sets = self.listeners.asked().flat_map(|key| self.sets_of(key)).collect::<Vec<_>>();
        sets.iter().for_each(|(kind, key)| add(*kind, key));
        dirty.of::<ListenerSet>().for_each(|key| add(StatusKind::ListenerSet, key));
        self.listeners.asked().for_each(|key| add(StatusKind::Gateway, key));
        self.routes.asked().for_each(|(kind, key)| add(kind.status_kind(), key));
        self.backend_tls.asked().for_each(|key| add(StatusKind::BackendTlsPolicy, key));
        self.tls_routes.asked().for_each(|key| add(StatusKind::TlsRoute, key));
        let mut moved = |before: Option<&[Attachment]>, after: Option<&[Attachment]>| {
            for (gateway, _) in at(before).symmetric_difference(&at(after)) {
                add(StatusKind::Gateway, gateway);
                self.sets_of(gateway).for_each(|(kind, key)| add(kind, &key));
            }
        };
        for Turn { before, after, .. } in routes {
            moved(before.as_ref().map(|route| &*route.attachments), after.as_ref().map(|route| &*route.attachments));
        }
        for Turn { before, after, .. } in tls_routes {
            moved(before.as_ref().map(|route| &*route.attachments), after.as_ref().map(|route| &*route.attachments));
        }
    }
}

/// The listeners where a route is counted.
fn at(places: Option<&[Attachment]>) -> BTreeSet<(&Key, &Arc<str>)> {
    places.into_iter().flatten().map(|place| (&place.gateway, &place.listener)).collect()
}

impl World {
    /// What is wrong with the listeners of a Gateway, whoever brings them.
    fn of_listeners(&self, gateway: &Key) -> impl Iterator<Item = &Finding> {
        self.listeners.findings_of(gateway).iter().chain(self.of_ports.get(gateway).into_iter().flatten())
    }
}

fn named(origin: &Origin) -> Option<(StatusKind, Key)> {
    Some((StatusKind::parse(&origin.kind)?, Key::new(plain(&origin.namespace), plain(&origin.name))))
}

impl Known for World {
    fn objects(&self) -> &Objects {
        &self.objects
    }

    fn placement(&self) -> &Placement {
        &self.made.setting.placement
    }

    fn listeners(&self, gateway: &Key) -> Option<&OpenListeners> {
        self.made.listeners.get(gateway).map(AsRef::as_ref)
    }

    fn route(&self, route: &RouteId) -> Option<Arc<AttachedRoute>> {
        self.routes.output(route)
    }

    fn tls_route(&self, route: &Key) -> Option<Arc<AttachedTlsRoute>> {
        self.tls_routes.output(route)
    }

    fn users(&self, service: &Key) -> Vec<Key> {
        statuses::users(&self.ir.gateways, service)
    }

    fn workload(&self, service: &Key) -> Option<Arc<Workload>> {
        self.ir.workloads.get(service).map(Arc::clone)
    }

    fn gateways_of_pool(&self, pool: &Key) -> BTreeSet<Key> {
        let routes = self.routes_of_pools.get(pool).into_iter().flatten();
        let routes: Vec<_> = routes.filter_map(|route| self.routes.output(route)).collect();
        statuses::gateways_of(routes.iter().map(AsRef::as_ref))
    }

    fn attached(&self, gateway: &Key) -> BTreeMap<Arc<str>, usize> {
        let routes: Vec<_> = self.gateways.attached(gateway).filter_map(|route| self.routes.output(route)).collect();
        let tls_routes: Vec<_> =
            self.gateways.attached_tls(gateway).filter_map(|route| self.tls_routes.output(route)).collect();
        let attachments = routes.iter().map(|route| &*route.attachments);
        statuses::count(gateway, attachments.chain(tls_routes.iter().map(|route| &*route.attachments)))
    }

    fn backends(&self, pool: &Key) -> Option<BackendCount> {
        self.backing.output(pool).map(|backing| backing.count)
    }

    fn used(&self) -> &Users {
        &self.users
    }

    fn findings(&self, kind: StatusKind, key: &Key) -> Vec<&Finding> {
        let is_own =
            |finding: &&Finding| finding.origin.as_ref().and_then(named).is_some_and(|own| own == (kind, key.clone()));
        match kind {
            StatusKind::GatewayClass => Vec::new(),
            StatusKind::Gateway => self.of_listeners(key).filter(is_own).collect(),
            StatusKind::ListenerSet => {
                let gateway = self.objects.listener_sets.get(&key.namespace, &key.name).map(gateway_of);
                gateway.iter().flat_map(|gateway| self.of_listeners(gateway)).filter(is_own).collect()
            }
            StatusKind::HttpRoute => self.routes.findings_of(RouteKind::Http, key),
            StatusKind::GrpcRoute => self.routes.findings_of(RouteKind::Grpc, key),
            StatusKind::TlsRoute => self.tls_routes.findings_of(key).iter().collect(),
            StatusKind::BackendTlsPolicy => self.backend_tls.findings_of(key).iter().collect(),
            StatusKind::InferencePool => self.inference_pools.findings_of(key).iter().collect(),
            StatusKind::ModelPool => {
                self.pools.findings_of(key).iter().chain(self.frontends.findings_of(key)).collect()
            }
            StatusKind::ModelBackend => self.backends.findings_of(key).iter().collect(),
            StatusKind::Consumer => {
                let claims = self.consumers.output(key);
                let names = claims.iter().flat_map(|claims| claims.iter()).map(|claim| claim.key.proof.name());
                let names: BTreeSet<&str> = names.collect();
                let of_keys = names.into_iter().filter_map(|name| self.of_keys.get(name)).flatten().filter(is_own);
                let of_claims = self.of_claims.get(&*key.namespace).into_iter().flatten().filter(is_own);
                self.consumers.findings_of(key).iter().chain(of_keys).chain(of_claims).collect()
            }
            StatusKind::TokenPolicy => {
                self.policies.findings_of(key).iter().chain(self.of_refused.iter().filter(is_own)).collect()
            }
        }
    }
}
