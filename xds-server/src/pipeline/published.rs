//! What is served now. It is one immutable value, and a change swaps all of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tollgate_core::fleet::{self, Asked, Egress};
use tollgate_core::ir;
use tollgate_core::objects::{Gateway, Key, Object, Store};
use tollgate_core::placement::Placement;
use tollgate_core::scope::Scope;
use tollgate_core::snapshot::{Resources, Snapshot};
use tollgate_core::status::{Finding, Horizon, ObjectStatus, Origin, Spot, StatusKind};
use tollgate_core::terms::Collector;
use tollgate_core::world::{Ends, World};

use super::edition::Edition;
use super::serves::Serves;
use crate::identity::Identity;
use crate::report::{Listener, Whose};

#[derive(Debug, Default)]
pub struct Published {
    /// How often something was published. 0: nothing yet.
    pub generation: u64,
    /// By `namespace/name`.
    pub gateways: BTreeMap<String, ServedGateway>,
    /// By Service.
    pub(super) workloads: BTreeMap<Key, ServedWorkload>,
    /// All Gateways together, for Envoys that serve all of them.
    pub(super) all: Arc<Edition>,
    pub(super) placement: Placement,
    /// All keys. Each snapshot has these and says which of them it serves.
    pub(super) keys: Resources,
    /// All findings about the input, from parsing and from translation.
    pub findings: Vec<Finding>,
    /// Those of parsing.
    pub(super) given: Vec<Finding>,
    /// Names of the models that clients can ask for.
    pub models: Arc<[String]>,
    /// What all of it was made from, or from newer objects.
    pub(super) world: Arc<Mutex<World>>,
}

#[derive(Debug, Clone)]
pub struct ServedGateway {
    pub edition: Arc<Edition>,
    pub listeners: Arc<[Listener]>,
    /// For the ledger.
    pub serves: Serves,
}

#[derive(Debug, Clone)]
pub(super) struct ServedWorkload {
    pub workload: Arc<ir::Workload>,
    /// It has keys alone.
    pub edition: Arc<Edition>,
    /// For the ledger.
    pub serves: Serves,
}

// === impl Published ===

impl Published {
    /// What a proxy may have.
    pub fn of(&self, identity: &Identity) -> Arc<Edition> {
        match identity.scope() {
            None => Arc::clone(&self.all),
            Some(scope) => self.of_scope(scope).map_or_else(Arc::default, Arc::clone),
        }
    }

    /// The same, Gateway by Gateway.
    pub fn snapshots_of(&self, identity: &Identity) -> Vec<(String, Arc<Snapshot>)> {
        let gateways = self.gateways_of(identity);
        gateways.map(|(name, gateway)| (name.clone(), Arc::clone(&gateway.edition.snapshot))).collect()
    }

    /// None: nothing is served for it.
    fn of_scope(&self, scope: &Scope) -> Option<&Arc<Edition>> {
        match scope {
            Scope::Gateway(key) => self.gateways.get(&key.to_string()).map(|gateway| &gateway.edition),
            Scope::Workload { service, .. } => self.workload(service, scope).map(|workload| &workload.edition),
        }
    }

    /// The one of this Service, if that is its scope.
    fn workload(&self, service: &Key, scope: &Scope) -> Option<&ServedWorkload> {
        self.workloads.get(service).filter(|workload| workload.scope() == scope)
    }

    /// Whether an account, by its SPIFFE ID, may speak for a workload: one of the workload's Pods runs as it. Of a
    /// Gateway it never may.
    pub fn may_speak(&self, account: &str, scope: &Scope) -> bool {
        match scope {
            Scope::Gateway(_) => false,
            Scope::Workload { service, .. } => {
                let workload = self.workload(service, scope);
                workload.is_some_and(|served| served.workload.identities.contains(account))
            }
        }
    }

    /// Whether what this identity is for is there, or all Gateways may be served together.
    pub fn knows(&self, identity: &Identity) -> bool {
        match identity.scope() {
            None => self.placement.shares_proxies(),
            Some(scope) => self.of_scope(scope).is_some(),
        }
    }

    /// The Gateway of ours whose proxies have this service account.
    pub fn gateway_of_account(&self, account: &Key) -> Option<Key> {
        let own = self.own_gateways();
        let mut own = own.iter().filter(|(gateway, _)| *gateway.meta.namespace() == *account.namespace);
        own.find(|(gateway, _)| fleet::name_of(gateway) == *account.name).map(|(gateway, _)| gateway.meta.key())
    }

    /// The Gateways that are ours, with what they ask of their proxies.
    pub fn own_gateways(&self) -> Vec<(Arc<Object<Gateway>>, Asked)> {
        let world = locked(&self.world);
        world.own_gateways().map(|(gateway, asked)| (Arc::clone(gateway), asked)).collect()
    }

    /// Where the proxies of a Gateway connect to.
    pub fn egress(&self, gateway: &Key, collector: Option<&Collector>) -> Egress {
        locked(&self.world).egress(gateway, collector)
    }

    /// The keys that end soon or have ended.
    pub fn ends(&self, horizon: Horizon) -> Ends {
        locked(&self.world).ends(horizon)
    }

    /// The statuses of all objects, before proxies are heard.
    pub fn statuses(&self) -> Vec<ObjectStatus> {
        locked(&self.world).statuses(&self.given)
    }

    /// Those of these objects, in their order. None: the object is gone, or it is not ours to answer for.
    pub fn statuses_of<'a>(&self, objects: impl IntoIterator<Item = &'a Whose>) -> Vec<Option<ObjectStatus>> {
        locked(&self.world).statuses_of(objects, &self.given)
    }

    /// The file and line of an object of which an Envoy may refuse a part, if it is of a file.
    pub fn spot(&self, origin: &Origin) -> Option<Spot> {
        fn of<T>(store: &Store<T>, origin: &Origin) -> Option<Spot> {
            store.get(&origin.namespace, &origin.name).and_then(|object| object.meta.provenance.spot(""))
        }
        let world = locked(&self.world);
        let objects = world.objects();
        match origin.kind.as_ref() {
            "Gateway" => of(&objects.gateways, origin),
            "ListenerSet" => of(&objects.listener_sets, origin),
            "HTTPRoute" => of(&objects.http_routes, origin),
            "GRPCRoute" => of(&objects.grpc_routes, origin),
            "TLSRoute" => of(&objects.tls_routes, origin),
            "BackendTLSPolicy" => of(&objects.backend_tls_policies, origin),
            "InferencePool" => of(&objects.inference_pools, origin),
            "Service" => of(&objects.services, origin),
            "Secret" => of(&objects.secrets, origin),
            "ConfigMap" => of(&objects.config_maps, origin),
            "RequestAuthentication" => of(&objects.request_authentications, origin),
            "ModelPool" => of(&objects.model_pools, origin),
            "ModelBackend" => of(&objects.model_backends, origin),
            _ => None,
        }
    }

    /// All of them, ours or not.
    pub fn gateway_classes(&self) -> Vec<Whose> {
        let world = locked(&self.world);
        let classes = world.objects().gateway_classes.iter();
        classes.map(|class| (StatusKind::GatewayClass, class.meta.key())).collect()
    }

    /// The ListenerSets for a Gateway.
    pub fn listener_sets(&self, gateway: &Key) -> Vec<Whose> {
        locked(&self.world).sets_of(gateway).collect()
    }

    /// By Service.
    pub fn workloads(&self) -> impl Iterator<Item = (&Key, &ir::Workload)> {
        self.workloads.iter().map(|(service, served)| (service, served.workload.as_ref()))
    }

    /// None of a workload, which is no Gateway.
    pub fn gateways_of(&self, identity: &Identity) -> impl Iterator<Item = (&String, &ServedGateway)> {
        let only = identity.scope().map(ToString::to_string);
        self.gateways.iter().filter(move |(name, _)| only.as_ref().is_none_or(|only| only == *name))
    }
}

// === impl ServedWorkload ===

impl ServedWorkload {
    pub fn scope(&self) -> &Scope {
        &self.workload.catalog.scope
    }
}

/// A step that panicked has not been published. What was published before still counts.
pub(super) fn locked(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}
