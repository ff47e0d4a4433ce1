//! A change of the configuration changes the resources it must and no others: above all, no policy, key,
//! weight or credential touches a listener, because that would drain connections.
#![allow(clippy::unwrap_used, reason = "a test: what is wrong ends it")]

use std::collections::BTreeSet;

use tollgate_core::envoy::{FilterCode, FilterSetup, Ports, RouteTables, Signals, Surroundings, snapshot};
use tollgate_core::objects::{NoSecretSource, Objects};
use tollgate_core::placement::Placement;
use tollgate_core::snapshot::{ResourceType, Snapshot};
use tollgate_core::translate::translate;

const EXAMPLE: &str = include_str!("../../../tests/cases/pools/example.yaml");

fn made(text: &str, route_tables: RouteTables) -> Snapshot {
    let mut objects = Objects::default();
    objects.add_yaml("example", text, &NoSecretSource);
    let ir = translate(&objects, Placement::OneHost).ir;
    snapshot(ir.gateways.values().next().unwrap(), &ir, &surroundings(route_tables))
}

fn surroundings(route_tables: RouteTables) -> Surroundings {
    Surroundings {
        route_tables,
        bind: "127.0.0.1".to_owned(),
        ports: Ports::Shared,
        filter: FilterSetup::of_gateways(FilterCode::File("filter.wasm".to_owned())),
        signals: Signals::default(),
    }
}

/// What a client that has the resources of the example is sent, and what is taken from it.
fn changed(from: &str, to: &str) -> Vec<String> {
    assert!(EXAMPLE.contains(from), "{from}");
    let made = |text: &str| made(text, RouteTables::default());
    differences(&made(EXAMPLE), &made(&EXAMPLE.replacen(from, to, 1)))
}

/// What such a client is sent for more documents, beside those of `before`.
fn added(before: &str, documents: &str) -> Vec<String> {
    let made = |text: &str| made(text, RouteTables::default());
    differences(&made(before), &made(&format!("{before}{documents}")))
}

fn differences(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let mut changes = BTreeSet::new();
    for kind in ResourceType::ALL {
        let names = before.of(kind).chain(after.of(kind)).map(|(name, _)| name);
        for name in names {
            let version = |snapshot: &Snapshot| snapshot.get(kind, name).map(|resource| resource.version);
            if version(before) != version(after) {
                changes.insert(format!("{kind:?} {name}"));
            }
        }
    }
    changes.into_iter().collect()
}

const REQUEST: &str = "ExtensionConfig tollgate/default/llm/request";
const ATTEMPT: &str = "ExtensionConfig tollgate/default/llm/attempt";
const ROUTE: &str = "Route default/llm/8080";

#[test]
fn policies_and_pools_change_the_filter_alone() {
    assert_eq!(changed("weight: 1\n", "weight: 5\n"), [REQUEST]);
    assert_eq!(changed("model: smollm2-135m", "model: other"), [REQUEST]);
    assert_eq!(changed("scope: [Consumer, Model]", "scope: [Consumer]"), [REQUEST]);
    assert_eq!(changed("mode: Enforce", "mode: Shadow"), [REQUEST]);
    assert_eq!(changed("name: smol\n", "name: other\n"), [REQUEST]);
}

#[test]
fn the_size_of_a_budget_is_the_ledgers_business() {
    assert_eq!(changed("tokens: 100000", "tokens: 5"), [""; 0]);
    assert_eq!(changed("window: 1d", "window: month"), [""; 0]);
}

#[test]
fn keys_travel_alone() {
    let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let key = format!("ApiKey {hash}");
    assert_eq!(changed("2027-01-01", "2028-01-01"), [key.as_str()]);
    let other = hash.replace("2bb8", "3bb8");
    assert_eq!(changed(hash, &other), [key.clone(), format!("ApiKey {other}")]);
}

#[test]
fn a_credential_is_one_secret() {
    let changes = changed("PLANTED-provider", "another");
    assert_eq!(changes, ["Secret credential/default/runner-a"]);
}

#[test]
fn a_backend_that_moves_is_one_cluster_and_its_authority() {
    let cluster = "Cluster backend/default/runner-a/attempts";
    assert_eq!(changed("port: 8081", "port: 9999"), [cluster, ATTEMPT, REQUEST]);
    assert_eq!(changed("connect: 2s", "connect: 1s"), [cluster]);
}

#[test]
fn matches_and_cors_change_the_route_alone() {
    assert_eq!(changed("value: /v1", "value: /v2"), [ROUTE]);
    let cors = "  rules:\n  - filters: [{type: CORS, cors: {allowOrigins: ['*']}}]\n    matches:";
    assert_eq!(changed("  rules:\n  - matches:", cors), [ROUTE]);
}

/// An HTTPRoute of the example's Gateway.
fn route(name: &str, rule: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}}}\n\
         spec: {{hostnames: [{name}.example], parentRefs: [{{name: llm}}], rules: [{rule}]}}\n"
    )
}

#[test]
fn a_route_changes_the_filter_only_where_it_brings_a_new_class() {
    let documents = &EXAMPLE[..EXAMPLE.find("--- # findings").unwrap()];
    let to_pool = "{backendRefs: [{group: tollgate.dev, kind: ModelPool, name: chat}]}";
    let redirect = "{filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]}";
    // The example's own route is under a limit, and this one is not.
    let with_pool = format!("{documents}{}", route("other", to_pool));
    assert_eq!(added(documents, &route("other", to_pool)), [REQUEST, ROUTE]);
    assert_eq!(added(&with_pool, &route("another", to_pool)), [ROUTE]);
    assert_eq!(added(documents, &route("app", redirect)), [ROUTE]);
    let and_plain = format!("{with_pool}{}", route("app", redirect));
    assert_eq!(added(&and_plain, &route("another", to_pool)), [ROUTE]);
    // A policy for a route gives it another class, and the route says so.
    let policy = "---\napiVersion: tollgate.dev/v1alpha1\nkind: TokenPolicy\nmetadata: {name: p}\nspec: {targetRefs: \
                  [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: other}], limits: [{name: l, tokens: 5, \
                  window: 1d}]}\n";
    assert_eq!(added(&with_pool, policy), [REQUEST, ROUTE]);
}

#[test]
fn what_stays_the_same_is_not_sent_again() {
    assert_eq!(changed("kind: Gateway\n", "kind: Gateway # the same\n"), [""; 0]);
}

/// Each Gateway of the case has the keys that some pool of it takes, and no other.
#[test]
fn keys_go_only_where_they_count() {
    let mut objects = Objects::default();
    objects.add_yaml("case", include_str!("../../../tests/cases/consumers/scoped.yaml"), &NoSecretSource);
    let ir = translate(&objects, Placement::OneHost).ir;
    let keys = |gateway: &str| -> String {
        let gateway = ir.gateways.values().find(|known| *known.origin.name == *gateway).unwrap();
        let snapshot = snapshot(gateway, &ir, &surroundings(RouteTables::default()));
        snapshot.of(ResourceType::ApiKey).map(|(hash, _)| hash.get(..1).unwrap()).collect()
    };
    assert_eq!(["own", "labelled", "all", "anonymous"].map(keys), ["1", "23", "1234", ""]);
}

/// A Gateway with one route for each of these hostnames; the route of the marked one is another.
fn hosts(names: &[&str], marked: &str) -> String {
    let route = |(number, host): (usize, &&str)| {
        let target = if *host == marked { "other" } else { "same" };
        format!(
            "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r{number}}}
spec:
  parentRefs: [{{name: llm}}]
  hostnames: [\"{host}\"]
  rules: [{{filters: [{{type: RequestRedirect, requestRedirect: {{hostname: {target}.org}}}}]}}]
"
        )
    };
    let gateway = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: llm}
spec: {gatewayClassName: tollgate, listeners: [{name: http, port: 8080, protocol: HTTP}]}
";
    gateway.to_owned() + &names.iter().enumerate().map(route).collect::<String>()
}

const LISTENER: &str = "Listener default/llm/8080";
const WILDCARDS: &str = "ScopedRoute default/llm/8080";

#[test]
fn in_scopes_a_hostname_changes_alone() {
    let made = |names: &[&str], marked: &str| made(&hosts(names, marked), RouteTables { scoped_above: 0 });
    let all = ["a.org", "b.org", "*.b.org", "*.d.org"];
    let before = made(&all, "");
    assert_eq!(before.of(ResourceType::Route).count(), 0);
    let changed = |names: &[&str], marked: &str| differences(&before, &made(names, marked));
    assert_eq!(changed(&all, "a.org"), ["ScopedRoute default/llm/8080|a.org"]);
    assert_eq!(changed(&all, "*.b.org"), [WILDCARDS]);
    assert_eq!(changed(&["a.org", "b.org", "*.b.org", "*.d.org", "c.org"], ""), ["ScopedRoute default/llm/8080|c.org"]);
    assert_eq!(changed(&["a.org", "b.org", "*.b.org"], ""), [WILDCARDS]);
    assert_eq!(changed(&["a.org"], ""), [WILDCARDS, "ScopedRoute default/llm/8080|b.org"]);
}

#[test]
fn a_listener_changes_where_its_table_crosses_the_limit_and_nowhere_else() {
    // The listener's own hostname counts as well.
    let made = |names: &[&str]| made(&hosts(names, ""), RouteTables { scoped_above: 3 });
    let one = made(&["a.org"]);
    let two = made(&["a.org", "b.org"]);
    let three = made(&["a.org", "b.org", "c.org"]);
    let four = made(&["a.org", "b.org", "c.org", "*.net"]);
    assert_eq!(differences(&one, &two), [ROUTE]);
    let scopes = ["a", "b", "c"].map(|name| format!("ScopedRoute default/llm/8080|{name}.org"));
    assert_eq!(differences(&two, &three), [&[LISTENER, ROUTE, WILDCARDS].map(str::to_owned)[..], &scopes].concat());
    assert_eq!(differences(&three, &four), [WILDCARDS]);
}

/// A refusal is reported on the first origin.
#[test]
fn a_scope_is_about_the_rules_in_it() {
    let snapshot = made(&hosts(&["a.org", "b.org"], ""), RouteTables { scoped_above: 0 });
    let first = |name: &str| {
        let scope = snapshot.get(ResourceType::ScopedRoute, name).unwrap();
        scope.origins.first().unwrap().to_string()
    };
    assert_eq!(first("default/llm/8080|b.org"), "HTTPRoute default/r1 (rule 0)");
}
