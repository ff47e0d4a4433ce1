//! What the units have said, object by object, and which objects may be said something else of after a step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::objects::{GatewayClass, Key, Objects, Refused, plain};
use crate::status::{Finding, ObjectStatus, Origin, StatusKind};
use crate::translate::listeners::OpenListeners;
use crate::translate::routes::AttachedRoute;
use crate::translate::statuses::{self, Known};

use super::World;
use super::memo::{Dirty, Turn};

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

    /// The objects that were looked at in this step.
    pub(super) fn affected(&self, dirty: &Dirty, routes: &[Turn<AttachedRoute>], affected: &mut Affected) {
        let mut add = |kind, key: &Key| {
            affected.insert((kind, key.clone()));
        };
        dirty.of::<GatewayClass>().for_each(|key| add(StatusKind::GatewayClass, key));
        self.consumers.asked().for_each(|key| add(StatusKind::Consumer, key));
        self.policies.asked().for_each(|key| add(StatusKind::TokenPolicy, key));
        self.backends.asked().for_each(|key| add(StatusKind::ModelBackend, key));
        self.pools.asked().for_each(|key| add(StatusKind::ModelPool, key));
        self.listeners.asked().for_each(|key| add(StatusKind::Gateway, key));
        self.routes.asked().for_each(|key| add(StatusKind::HttpRoute, key));
        // A Gateway counts its routes.
        for Turn { before, after, .. } in routes {
            let at = |route: &Option<Arc<AttachedRoute>>| -> BTreeSet<(Key, Arc<str>)> {
                let places = route.iter().flat_map(|route| &route.attachments);
                places.map(|place| (place.gateway.clone(), place.listener.clone())).collect()
            };
            for (gateway, _) in at(before).symmetric_difference(&at(after)) {
                add(StatusKind::Gateway, gateway);
            }
        }
    }
}

fn named(origin: &Origin) -> Option<(StatusKind, Key)> {
    Some((StatusKind::parse(&origin.kind)?, Key::new(plain(&origin.namespace), plain(&origin.name))))
}

impl Known for World {
    fn objects(&self) -> &Objects {
        &self.objects
    }

    fn listeners(&self, gateway: &Key) -> Option<&OpenListeners> {
        self.made.listeners.get(gateway).map(AsRef::as_ref)
    }

    fn route(&self, route: &Key) -> Option<Arc<AttachedRoute>> {
        self.routes.output(route)
    }

    fn attached(&self, gateway: &Key) -> BTreeMap<Arc<str>, usize> {
        let routes: Vec<_> = self.gateways.attached(gateway).filter_map(|route| self.routes.output(route)).collect();
        statuses::count(gateway, routes.iter().map(AsRef::as_ref))
    }

    fn findings(&self, kind: StatusKind, key: &Key) -> Vec<&Finding> {
        let is_own =
            |finding: &&Finding| finding.origin.as_ref().and_then(named).is_some_and(|own| own == (kind, key.clone()));
        match kind {
            StatusKind::GatewayClass => Vec::new(),
            StatusKind::Gateway => {
                let ports = self.of_ports.get(key).into_iter().flatten();
                self.listeners.findings_of(key).iter().chain(ports).collect()
            }
            StatusKind::HttpRoute => self.routes.findings_of(key).iter().collect(),
            StatusKind::ModelPool => self.pools.findings_of(key).iter().collect(),
            StatusKind::ModelBackend => self.backends.findings_of(key).iter().collect(),
            StatusKind::Consumer => {
                let claims = self.consumers.output(key);
                let hashes = claims.iter().flat_map(|claims| claims.iter()).map(|claim| &claim.key.sha256);
                let hashes: BTreeSet<&String> = hashes.collect();
                let of_keys = hashes.into_iter().filter_map(|hash| self.of_keys.get(hash)).flatten().filter(is_own);
                self.consumers.findings_of(key).iter().chain(of_keys).collect()
            }
            StatusKind::TokenPolicy => {
                self.policies.findings_of(key).iter().chain(self.of_refused.iter().filter(is_own)).collect()
            }
        }
    }
}
