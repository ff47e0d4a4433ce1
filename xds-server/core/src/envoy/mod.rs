//! IR to Envoy resources: one Gateway becomes one complete snapshot.
//!
//! ```text
//! Gateway -> listeners (LDS) -> routes (RDS or SRDS) -> clusters (CDS) -> endpoints (EDS), secrets (SDS)
//!        \-> the filter's configuration (ECDS), keys (ApiKey)
//! ```
//! Every reference between resources goes over ADS, so that each resource can change alone.

mod access_log;
mod asked;
mod class;
mod cluster;
mod cors;
mod edge;
mod filter_config;
mod jwt;
mod listener;
mod module;
mod path;
mod picker;
mod pool_route;
mod print;
mod route;
mod route_table;
mod scope;
mod secret;
mod session;
mod setup;
mod signals;
mod tls;
mod tracing;
mod tunnel;
mod update;
mod upstream;
mod wasm;
mod wire;

pub use cluster::endpoints_of;
use filter_config::{
    MAX_BODY_BYTES, attempt_config, connection_config, frontend_config, request_config, workload_config,
};
pub use module::{ENVOY as MODULE_ENVOY, findings, other_envoy};
pub use print::{NotPrinted, Shown, to_json};
pub use route_table::RouteTables;
pub use setup::{
    CONTROL_CLUSTER, ControlCluster, FilterCode, FilterSetup, HostTooLong, IstioCluster, RequestFields, Runtime,
};
pub use signals::{Sampling, Signals, Tracing};
pub use update::update;
pub use wasm::{of_frontend, of_workload, stamped, without_stamps};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::FilterConfig;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use prost::Name as _;
use serde_json::{Value, json};
use tollgate_proto::v1::ApiKey;

use crate::ir::{self, AllowedModels, ConsumerNamespaces};
use crate::snapshot::{Changed, Resource, ResourceType, Snapshot};

/// What the surroundings add to the resources of a Gateway.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Address that Gateway listeners are bound to.
    pub bind: String,
    pub ports: Ports,
    pub route_tables: RouteTables,
    pub filter: FilterSetup,
    pub signals: Signals,
}

/// Who may listen on a Gateway's port besides its Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// Another Envoy of this user may (SO_REUSEPORT). Each worker has a socket of its own, which is fastest.
    Shared,
    /// Nobody else may. On a laptop a second gateway would otherwise silently get half of the first one's requests.
    Exclusive,
}

/// Envoy resources and filter configuration of one Gateway, with the keys that it serves.
pub fn snapshot(gateway: &ir::Gateway, ir: &ir::Ir, surroundings: &Surroundings) -> Snapshot {
    let mut snapshot = without_keys(gateway, ir, surroundings);
    let keys = api_keys(ir).into_iter().collect();
    snapshot.serve_keys(&keys, &BTreeSet::new(), consumers(&gateway.catalog), &mut Changed::default());
    snapshot
}

/// The same, without keys. All Gateways share these ([`api_keys`]).
pub fn without_keys(gateway: &ir::Gateway, ir: &ir::Ir, surroundings: &Surroundings) -> Snapshot {
    let mut snapshot = Snapshot::default();
    secret::add(&mut snapshot, gateway);
    cluster::add(&mut snapshot, gateway);
    if let Some(tracing) = &surroundings.signals.tracing {
        let collector = cluster::of_collector(gateway, &tracing.collector);
        snapshot.insert(ResourceType::Cluster, tracing::CLUSTER, collector);
    }
    wasm::add(&mut snapshot, &gateway.catalog, ir, &surroundings.filter);
    listener::add(&mut snapshot, gateway, surroundings);
    snapshot
}

/// The filter in the sidecars of a workload, by the name by which they find it, and the place in them that names it so.
/// Both are messages of Envoy (TypedExtensionConfig, HttpFilter) as JSON.
///
/// # Errors
/// When they cannot be printed.
pub fn workload_filter(
    workload: &ir::Workload,
    ir: &ir::Ir,
    setup: &FilterSetup,
    shown: Shown,
) -> Result<[Value; 2], NotPrinted> {
    let filter = of_workload(workload, ir, setup);
    let place = wasm::discovered_in_sidecar(wasm::request_name(&workload.catalog.scope));
    Ok([print::filter(&filter, shown)?, print::place(&place)?])
}

/// The filter in the sidecars of callers, as messages of Envoy in JSON.
#[derive(Debug)]
pub struct FrontendFilter {
    /// By which its place finds it.
    pub name: String,
    /// TypedExtensionConfig.
    pub filter: Value,
    /// HttpFilter. It is off.
    pub place: Value,
    /// The FilterConfig that turns it on.
    pub turned_on: Value,
}

/// # Errors
/// When it cannot be printed.
pub fn frontend_filter(
    frontend: &ir::Frontend,
    setup: &FilterSetup,
    shown: Shown,
) -> Result<FrontendFilter, NotPrinted> {
    let name = wasm::frontend_name(frontend);
    let place = HttpFilter { disabled: true, ..wasm::discovered_in_sidecar(name.clone()) };
    Ok(FrontendFilter {
        name,
        filter: print::filter(&of_frontend(frontend, setup), shown)?,
        place: print::place(&place)?,
        // A filter with a configuration at its route is on. Ours takes none, and Istio passes on none that is empty; one that is
        // optional and for no filter Envoy leaves out (route.v3.FilterConfig).
        turned_on: json!({
            "@type": FilterConfig::type_url(),
            "is_optional": true,
            "config": {"@type": FilterConfig::type_url()},
        }),
    })
}

/// All keys, by name. Which of them a scope has, [`consumers`] says.
pub fn api_keys(ir: &ir::Ir) -> BTreeMap<Arc<str>, Arc<Resource>> {
    ir.keys.values().map(|key| (key.proof.name().into(), Arc::new(api_key(key)))).collect()
}

/// The namespaces of the Consumers that some pool takes. Only their keys go to the proxies of this scope, because a proxy
/// gets no key that it has no use for.
pub fn consumers(catalog: &ir::Catalog) -> ConsumerNamespaces {
    let mut consumers = ConsumerNamespaces::default();
    for pool in catalog.pools.values().filter(|pool| pool.access == ir::Access::Required) {
        consumers.extend(&pool.consumers);
    }
    consumers
}

/// What a proxy is told of a key.
pub fn api_key(key: &ir::Key) -> Resource {
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
        namespace: key.origin.namespace.to_string(),
    };
    Resource::new(&message, vec![key.origin.clone()])
}
