//! Frontends to objects: how callers' sidecars choose a backend by the model. istiod programs them.
//!
//! ```text
//! Frontend -> HTTPRoute    of the Service: a rule for each backend, by the header that the filter sets
//!         \-> EnvoyFilter  in each namespace of callers
//!               EXTENSION_CONFIG  the filter with its configuration, found by name (ECDS over ADS)
//!               HTTP_FILTER       its place before the router, where it is off
//!               VIRTUAL_HOST      the Service, where it is on
//! ```
//! Other Services on the same port have the same listener, so the filter is off there unless the virtual host turns it on. Envoy
//! looks for that by the request's route, and a request without the header has none. So there is a last rule that takes all,
//! and leads nowhere (500): where the filter is not, nobody is led to a backend at random.

use serde_json::{Value, json};

use crate::envoy::{self, FilterSetup, NotPrinted, Shown};
use crate::fleet::MANAGED_BY;
use crate::ir::{ConsumerNamespaces, Frontend, Runner};
use crate::terms::Key;

use super::ROOT;
use super::kept::{Kept, KeptKind, KeptName};
use super::sidecars::{self, PRIORITY};

/// The most rules that an HTTPRoute may have.
const MAX_RULES: usize = 16;
/// The most parents.
const MAX_PARENTS: usize = 32;
/// By which the filter says where a request goes.
const BACKEND: &str = "x-tollgate-backend";

/// All that makes a frontend.
///
/// # Errors
/// When it cannot be printed.
pub fn frontend(frontend: &Frontend, setup: &FilterSetup, shown: Shown) -> Result<Vec<Kept>, NotPrinted> {
    let patches = patches(frontend, setup, shown)?;
    let mut kept: Vec<Kept> =
        namespaces(&frontend.callers).map(|namespace| filter(namespace, frontend, &patches)).collect();
    kept.extend(routes(frontend));
    Ok(kept)
}

/// Where EnvoyFilters are for all callers. Those in istiod's own namespace are for the whole mesh.
fn namespaces(callers: &ConsumerNamespaces) -> impl Iterator<Item = &str> {
    let (all, only) = match callers {
        ConsumerNamespaces::All => (Some(ROOT), None),
        ConsumerNamespaces::Only(namespaces) => (None, Some(namespaces)),
    };
    all.into_iter().chain(only.into_iter().flatten().map(String::as_str))
}

fn patches(frontend: &Frontend, setup: &FilterSetup, shown: Shown) -> Result<Value, NotPrinted> {
    const CONTEXT: &str = "SIDECAR_OUTBOUND";
    let envoy::FrontendFilter { name, filter, place, turned_on } = envoy::frontend_filter(frontend, setup, shown)?;
    let code = json!({
        "applyTo": "EXTENSION_CONFIG",
        "match": {"context": CONTEXT},
        "patch": {"operation": "ADD", "value": filter},
    });
    let places = frontend.ports.iter().map(|port| sidecars::place(CONTEXT, *port, &place));
    let hosts = frontend.ports.iter().map(|port| {
        json!({
            "applyTo": "VIRTUAL_HOST",
            "match": {"context": CONTEXT, "routeConfiguration": {
                "vhost": {"name": format!("{}:{port}", frontend.host)},
            }},
            "patch": {"operation": "MERGE", "value": {"typed_per_filter_config": {&name: turned_on}}},
        })
    });
    Ok(std::iter::once(code).chain(places).chain(hosts).collect())
}

fn filter(namespace: &str, frontend: &Frontend, patches: &Value) -> Kept {
    let key = sidecars::outbound_name(namespace, &frontend.service);
    let document = json!({
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": metadata(&key),
        "spec": {"priority": PRIORITY, "configPatches": patches},
    });
    Kept { name: KeptName { kind: KeptKind::EnvoyFilter, key }, service: frontend.service.clone(), document }
}

/// As many as the rules need.
fn routes(frontend: &Frontend) -> Vec<Kept> {
    let rules: Vec<Value> = frontend.runners.values().map(rule).chain([nowhere()]).collect();
    let parents = frontend.ports.iter().take(MAX_PARENTS);
    let parents: Value = parents
        .map(|port| json!({"group": "", "kind": "Service", "name": *frontend.service.name, "port": port}))
        .collect();
    let routes = rules.chunks(MAX_RULES).enumerate().map(|(index, rules)| {
        let mut key = sidecars::outbound_name(&frontend.service.namespace, &frontend.service);
        if index > 0 {
            key = Key::new(&*key.namespace, format!("{}.{index}", key.name));
        }
        let document = json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": metadata(&key),
            "spec": {"parentRefs": parents, "rules": rules},
        });
        Kept { name: KeptName { kind: KeptKind::HttpRoute, key }, service: frontend.service.clone(), document }
    });
    routes.collect()
}

fn rule(runner: &Runner) -> Value {
    json!({
        "matches": [{"headers": [{"type": "Exact", "name": BACKEND, "value": runner.backend.to_string()}]}],
        "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": [BACKEND]}}],
        "backendRefs": [{
            "group": "",
            "kind": "Service",
            "name": *runner.service.name,
            "namespace": *runner.service.namespace,
            "port": runner.port,
        }],
    })
}

fn nowhere() -> Value {
    json!({"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]})
}

fn metadata(key: &Key) -> Value {
    json!({"name": *key.name, "namespace": *key.namespace, "labels": {MANAGED_BY.0: MANAGED_BY.1}})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ir::{Access, Pool};
    use crate::status::Origin;

    fn frontend(runners: usize, callers: ConsumerNamespaces) -> Frontend {
        let origin = Origin::new("ModelPool", "models", "chat");
        let runner = |index: usize| {
            let key = Key::new("models", format!("r{index}"));
            let runner = Runner { backend: key.clone(), service: key.clone(), port: 80, path_prefix: "/v1".to_owned() };
            (format!("backend/{key}"), runner)
        };
        Frontend {
            service: Key::new("models", "llm"),
            host: "llm.models.svc.cluster.local".to_owned(),
            ports: [80].into(),
            pool: Pool {
                origin: origin.clone(),
                name: "models/chat".to_owned(),
                access: Access::Anonymous,
                consumers: callers.clone(),
                models: Vec::new(),
            },
            origin,
            callers,
            runners: (0..runners).map(runner).collect::<BTreeMap<_, _>>(),
        }
    }

    #[test]
    fn a_route_has_no_more_rules_than_it_may() {
        let only = || ConsumerNamespaces::Only(["models".to_owned()].into());
        let rules = |runners| -> Vec<(String, usize)> {
            let kept = routes(&frontend(runners, only()));
            let count = |kept: &Kept| kept.document["spec"]["rules"].as_array().unwrap().len();
            kept.iter().map(|kept| (kept.name.key.name.to_string(), count(kept))).collect()
        };
        let named = |name: &str, count| (format!("tollgate-outbound-models.llm{name}"), count);
        assert_eq!(rules(0), [named("", 1)]);
        assert_eq!(rules(15), [named("", 16)]);
        assert_eq!(rules(32), [named("", 16), named(".1", 16), named(".2", 1)]);
    }

    #[test]
    fn callers_are_those_of_namespaces_or_of_the_whole_mesh() {
        let of = |callers: ConsumerNamespaces| namespaces(&callers).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(of(ConsumerNamespaces::All), ["istio-system"]);
        assert_eq!(of(ConsumerNamespaces::Only(["b".to_owned(), "a".to_owned()].into())), ["a", "b"]);
        let kept = filter("shop", &frontend(1, ConsumerNamespaces::All), &json!([]));
        assert_eq!(kept.name.key, Key::new("shop", "tollgate-outbound-models.llm"));
        assert!(sidecars::is_name(&kept.name.key.name));
    }
}
