//! IR to Envoy resources: one Gateway becomes one complete snapshot.
//!
//! ```text
//! Gateway -> listeners (LDS) -> routes (RDS or SRDS) -> clusters (CDS) -> endpoints (EDS), secrets (SDS)
//!        \-> the filter's configuration (ECDS), keys (ApiKey)
//! ```
//! Every reference between resources goes over ADS, so that each resource can change alone.

mod cluster;
mod edge;
mod filter_config;
mod listener;
mod path;
mod pool_route;
mod print;
mod route;
mod route_table;
mod scope;
mod secret;
mod tls;
mod upstream;
mod wasm;
mod wire;

use filter_config::{MAX_BODY_BYTES, attempt_config, connection_config, request_config};
pub use print::to_json;
pub use route::EntryPoint;
pub use route_table::{Form, RouteTables, host_scope, is_wildcard, wildcard_scope};
pub use wasm::{stamped, without_stamps};

use tollgate_proto::v1::ApiKey;

use crate::ir::{self, AllowedModels};
use crate::snapshot::{Resource, ResourceType, Snapshot};

/// What the surroundings add to the resources of a Gateway.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Address that Gateway listeners are bound to.
    pub bind: String,
    pub ports: Ports,
    pub code: FilterCode,
    pub route_tables: RouteTables,
}

/// Who may listen on a Gateway's port besides its Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// Another Envoy of this user may (SO_REUSEPORT). Each worker has a socket of its own, which is fastest.
    Shared,
    /// Nobody else may. On a laptop a second gateway would otherwise silently get half of the first one's requests.
    Exclusive,
}

/// How Envoy gets the filter's code.
#[derive(Debug, Clone)]
pub enum FilterCode {
    /// A file on Envoy's machine.
    File(String),
    /// Fetched from the control plane by HTTP, through the cluster of that name.
    Remote { sha256: String, path: String },
}

/// The Envoy cluster of the control plane: static, in the bootstrap.
pub const CONTROL_CLUSTER: &str = "tollgate_control";

/// Envoy resources and filter configuration of one Gateway, with the keys that it serves.
pub fn snapshot(gateway: &ir::Gateway, ir: &ir::Ir, surroundings: &Surroundings) -> Snapshot {
    let mut snapshot = Snapshot::default();
    secret::add(&mut snapshot, gateway);
    cluster::add(&mut snapshot, gateway);
    wasm::add(&mut snapshot, gateway, ir, surroundings);
    listener::add(&mut snapshot, gateway, surroundings);
    add_keys(&mut snapshot, gateway, ir);
    snapshot
}

/// The keys that go to the proxies of this Gateway: those that some pool of the Gateway takes. A proxy gets no key that
/// it has no use for.
pub fn keys<'a>(gateway: &'a ir::Gateway, ir: &'a ir::Ir) -> impl Iterator<Item = &'a ir::Key> {
    ir.keys.iter().filter(|key| {
        let mut pools = gateway.pools.values().filter(|pool| pool.access == ir::Access::Required);
        pools.any(|pool| pool.consumers.include(&key.origin.namespace))
    })
}

fn add_keys(snapshot: &mut Snapshot, gateway: &ir::Gateway, ir: &ir::Ir) {
    for key in keys(gateway, ir) {
        let (models, all_models) = match &key.models {
            AllowedModels::All => (Vec::new(), true),
            AllowedModels::Only(models) => (models.clone(), false),
        };
        let message = ApiKey {
            consumer: key.consumer.clone(),
            labels: key.labels.clone(),
            // 0 means that the key never ends. A key that ended in second 0 is long gone, so it gets 1.
            not_after: key.not_after.map_or(0, |second| second.max(1)),
            models,
            all_models,
            namespace: key.origin.namespace.clone(),
        };
        snapshot.insert(ResourceType::ApiKey, &key.sha256, Resource::new(&message, vec![key.origin.clone()]));
    }
}
