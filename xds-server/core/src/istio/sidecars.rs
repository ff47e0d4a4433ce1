//! Workloads to EnvoyFilters: how the filter gets into sidecars, which istiod programs.
//!
//! ```text
//! Workload -> EXTENSION_CONFIG  the filter with its configuration, found by name (ECDS over ADS)
//!          \-> HTTP_FILTER, one for each port: its place before the router, which names it
//! ```
//! A change of policy changes the first part alone. Envoy takes that in place: no listener is another, and no connection is
//! drained. The second part is another only when the ports of the workload are.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::envoy::{self, FilterSetup, NotPrinted, Shown};
use crate::fleet::MANAGED_BY;
use crate::ir::{Ir, Workload};
use crate::placement::Direction;
use crate::scope::Scope;
use crate::terms::Key;

use super::kept::{Kept, KeptKind, KeptName};

/// Filters of others have 0. The filter's place is before the router, behind what they put there by then.
pub(super) const PRIORITY: i32 = 10;
const CONNECTIONS: &str = "envoy.filters.network.http_connection_manager";
const ROUTER: &str = "envoy.filters.http.router";
/// The ports of the control plane's Service for the filters in sidecars: keys and the ledger.
pub const SIDECARS_PORT: u16 = 18002;
/// The filter's code, for Istio's agents.
pub const SIDECAR_CODE_PORT: u16 = 18003;
/// What the names of EnvoyFilters of this kind begin with.
const NAMED: &str = "tollgate-";

/// What the EnvoyFilter of a workload is called. The longest name of a Service leaves room for it.
pub(super) fn inbound_name(service: &Key) -> Key {
    Key::new(&*service.namespace, format!("{NAMED}{}-{}", Direction::Inbound, service.name))
}

/// What the objects for callers are called. Callers may be in other namespaces than the Service.
pub(super) fn outbound_name(namespace: &str, service: &Key) -> Key {
    Key::new(namespace, format!("{NAMED}{}-{}.{}", Direction::Outbound, service.namespace, service.name))
}

/// Whether an object of this name may be one that is kept.
pub fn is_name(name: &str) -> bool {
    let rest = name.strip_prefix(NAMED).and_then(|rest| rest.split_once('-'));
    let directions = [Direction::Inbound, Direction::Outbound].map(|direction| direction.to_string());
    rest.is_some_and(|(direction, service)| directions.iter().any(|known| known == direction) && !service.is_empty())
}

/// The Gateways whose proxies tell sidecars what a request is charged to, by the Service of the workload.
pub fn leading(ir: &Ir) -> BTreeMap<Key, BTreeSet<&Key>> {
    let mut leading: BTreeMap<Key, BTreeSet<&Key>> = BTreeMap::new();
    for (key, gateway) in &ir.gateways {
        for service in gateway.catalog.backends.values().filter_map(|backend| backend.hands_over.as_ref()) {
            leading.entry(service.clone()).or_default().insert(key);
        }
    }
    leading
}

/// The EnvoyFilter of a workload, for server-side apply. None: none of its ports is known yet.
///
/// # Errors
/// When it cannot be printed.
pub fn envoy_filter(
    workload: &Workload,
    ir: &Ir,
    setup: &FilterSetup,
    shown: Shown,
) -> Result<Option<Kept>, NotPrinted> {
    let Scope::Workload { service, direction: Direction::Inbound } = &workload.catalog.scope else { return Ok(None) };
    if workload.ports.is_empty() {
        return Ok(None);
    }
    let [filter, place] = envoy::workload_filter(workload, ir, setup, shown)?;
    let context = "SIDECAR_INBOUND";
    let code = json!({
        "applyTo": "EXTENSION_CONFIG",
        "match": {"context": context},
        "patch": {"operation": "ADD", "value": filter},
    });
    let places = workload.ports.iter().map(|port| self::place(context, *port, &place));
    let patches: Vec<Value> = std::iter::once(code).chain(places).collect();
    let key = inbound_name(service);
    let document = json!({
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": *key.name, "namespace": *key.namespace, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
        "spec": {"workloadSelector": {"labels": workload.selector}, "priority": PRIORITY, "configPatches": patches},
    });
    Ok(Some(Kept { name: KeptName { kind: KeptKind::EnvoyFilter, key }, service: service.clone(), document }))
}

/// The patch that puts a filter before the router at a port.
pub(super) fn place(context: &str, port: u16, filter: &Value) -> Value {
    json!({
        "applyTo": "HTTP_FILTER",
        "match": {"context": context, "listener": {
            "portNumber": port,
            "filterChain": {"filter": {"name": CONNECTIONS, "subFilter": {"name": ROUTER}}},
        }},
        "patch": {"operation": "INSERT_BEFORE", "value": filter},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_that_it_is_a_workloads() {
        let service = Key::new("team", "a");
        assert_eq!(inbound_name(&service), Key::new("team", "tollgate-inbound-a"));
        assert_eq!(outbound_name("shop", &service), Key::new("shop", "tollgate-outbound-team.a"));
        for name in [inbound_name(&service), outbound_name("shop", &service)] {
            assert!(is_name(&name.name));
        }
        for other in ["tollgate-inbound-", "tollgate-inbound", "tollgate-gateways", "tollgate-other-a", "inbound-a", ""]
        {
            assert!(!is_name(other), "{other}");
        }
    }
}
