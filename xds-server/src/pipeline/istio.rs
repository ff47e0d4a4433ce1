//! The objects by which istiod programs sidecars, as they are published now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use tollgate_core::envoy::{FilterSetup, Shown};
use tollgate_core::fleet;
use tollgate_core::istio::{self, Kept, KeptName};
use tollgate_core::objects::{Gateway, Key, Object};
use tollgate_core::placement::Placement;
use tollgate_core::scope::Scope;
use tollgate_core::world::World;

use super::published::{Published, locked};

// === impl Published ===

impl Published {
    /// The cluster takes those away that are in the namespace of their Service, when that goes.
    pub fn kept(&self, setup: &FilterSetup) -> BTreeMap<KeptName, Arc<Value>> {
        let world = locked(&self.world);
        let believed = believed(&world, &self.placement);
        let mut all = BTreeMap::new();
        for workload in world.ir().workloads.values() {
            let Scope::Workload { service, .. } = &workload.catalog.scope else { continue };
            let mut setup = setup.clone();
            setup.gateways.extend(believed.get(service).into_iter().flatten().cloned());
            match istio::envoy_filter(workload, world.ir(), &setup, Shown::AsBytes) {
                // None: it waits for EndpointSlices, which say what the names of its ports mean.
                Ok(filter) => all.extend(filter.map(|kept| owned(kept, &world))),
                Err(error) => tracing::error!("Service {service} gets no EnvoyFilter: {error}"),
            }
        }
        for frontend in world.ir().frontends.values() {
            match istio::frontend(frontend, setup, Shown::AsBytes) {
                Ok(kept) => all.extend(kept.into_iter().map(|kept| owned(kept, &world))),
                Err(error) => tracing::error!("callers of Service {} get no filter: {error}", frontend.service),
            }
        }
        all
    }
}

/// Whom the sidecars of each Service believe about what a request is charged to: the SPIFFE IDs of the proxies of those
/// Gateways that lead to it. A ReferenceGrant says that they may, where the Service is in another namespace.
pub(super) fn believed(world: &World, placement: &Placement) -> BTreeMap<Key, BTreeSet<String>> {
    let Some(mesh) = world.mesh() else { return BTreeMap::new() };
    let accounts: BTreeMap<Key, Key> = match placement {
        Placement::ProxyPerGateway => {
            let account = |gateway: &Object<Gateway>| Key::new(gateway.meta.namespace(), fleet::name_of(gateway));
            world.own_gateways().map(|(gateway, _)| (gateway.meta.key(), account(gateway))).collect()
        }
        Placement::OneFleet(account) => {
            world.ir().gateways.keys().map(|gateway| (gateway.clone(), account.clone())).collect()
        }
        // Who runs the proxies, the operator says (--gateway-account).
        Placement::OneHost | Placement::Sidecar(_) => return BTreeMap::new(),
    };
    let leading = istio::leading(world.ir()).into_iter();
    let identities = |gateways: BTreeSet<&Key>| -> BTreeSet<String> {
        let accounts = gateways.into_iter().filter_map(|gateway| accounts.get(gateway));
        accounts.flat_map(|account| mesh.identities_of(account)).collect()
    };
    leading.map(|(service, gateways)| (service, identities(gateways))).collect()
}

/// The Service owns what is in its namespace.
fn owned(Kept { name, service, mut document }: Kept, world: &World) -> (KeptName, Arc<Value>) {
    let object = world.objects().services.get(&service.namespace, &service.name);
    let version = object.and_then(|object| object.meta.provenance.cluster());
    let version = version.filter(|_| name.key.namespace == service.namespace);
    let metadata = document.get_mut("metadata").and_then(Value::as_object_mut);
    if let Some((version, metadata)) = version.zip(metadata) {
        let owner = json!([{"apiVersion": "v1", "kind": "Service", "name": *service.name, "uid": *version.uid}]);
        metadata.insert("ownerReferences".to_owned(), owner);
    }
    (name, Arc::new(document))
}
