//! What a cluster's watches tell, one object at a time, and what is in force then.

use std::collections::BTreeSet;

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::{Cluster, Key, NotAnObject};
use crate::placement::Placement;
use crate::status::{Finding, ObjectStatus, Reason, StatusKind};
use crate::translate::{Translation, translate};

/// An object as a cluster gives it.
#[derive(Debug, Clone)]
pub struct Given(Value);

impl Given {
    /// The first version of an object. Of files there is nothing but what the user wrote.
    pub fn new(document: Value) -> Self {
        Self(document).version("u", 1)
    }

    pub fn yaml(text: &str) -> Self {
        Self::new(crate::files::parse(text).unwrap().remove(0).value)
    }

    /// Another version. Each generation has a resource version of its own.
    pub fn version(self, uid: &str, generation: i64) -> Self {
        let kind = self.0["kind"].as_str().unwrap().to_owned();
        let Self(mut document) = self.resource_version(uid, &generation.to_string());
        // The kinds of the core group have none.
        if !["Secret", "ConfigMap", "Service", "Namespace"].contains(&kind.as_str()) {
            document["metadata"]["generation"] = generation.into();
        }
        Self(document)
    }

    pub fn resource_version(mut self, uid: &str, resource_version: &str) -> Self {
        self.0["metadata"]["uid"] = uid.into();
        self.0["metadata"]["resourceVersion"] = resource_version.into();
        self
    }

    /// What it says of itself.
    pub fn named(&self) -> (String, Key) {
        let metadata = |name: &str| self.0["metadata"][name].as_str().unwrap_or_default();
        (self.0["kind"].as_str().unwrap().to_owned(), key(metadata("namespace"), metadata("name")))
    }

    pub fn with(mut self, pointer: &str, value: Value) -> Self {
        let (parent, last) = pointer.rsplit_once('/').unwrap();
        match self.0.pointer_mut(parent).expect(pointer) {
            Value::Array(elements) => elements[last.parse::<usize>().unwrap()] = value,
            fields => fields[last] = value,
        }
        self
    }

    pub fn uid(&self) -> &str {
        self.0["metadata"]["uid"].as_str().unwrap()
    }

    /// A Secret of a cluster has its values in base64.
    pub fn with_data(mut self) -> Self {
        if let Some(Value::Object(texts)) = self.0.as_object_mut().unwrap().shift_remove("stringData") {
            let encode = |text: Value| json!(ByteString(text.as_str().unwrap().as_bytes().to_vec()));
            self.0["data"] = texts.into_iter().map(|(key, text)| (key, encode(text))).collect();
        }
        self
    }

    pub fn into_document(self) -> Value {
        self.0
    }
}

pub fn cluster_of(given: impl IntoIterator<Item = Given>) -> Cluster {
    let mut cluster = Cluster::default();
    given.into_iter().for_each(|given| cluster.upsert(given.0).unwrap());
    cluster
}

fn key(namespace: &str, name: &str) -> Key {
    Key::new(namespace, name)
}

const GATEWAY: &str = "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: g, namespace: a}, spec: {gatewayClassName: tollgate, allowedListeners: {namespaces: {from: Same}}, listeners: [{name: http, port: 80, protocol: HTTP}, {name: other, port: 81, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}, {name: tls, port: 82, protocol: TLS, tls: {mode: Passthrough}}]}}";
const SET: &str = "{apiVersion: gateway.networking.k8s.io/v1, kind: ListenerSet, metadata: {name: l, namespace: a}, spec: {parentRef: {name: g}, listeners: [{name: set, port: 83, protocol: HTTP}]}}";
const ROUTE: &str = "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: a}, spec: {parentRefs: [{name: g}], rules: [{matches: [{path: {value: /a, type: Exact}}, {path: {value: /b, type: Exact}}], filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [x]}}], backendRefs: [{name: s, port: 80, weight: 3}, {name: s, port: 80, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [z]}}]}]}, {backendRefs: [{group: tollgate.dev, kind: ModelPool, name: p}]}]}}";
const CALLS: &str = "{apiVersion: gateway.networking.k8s.io/v1, kind: GRPCRoute, metadata: {name: r, namespace: a}, spec: {parentRefs: [{name: g, sectionName: other}], rules: [{backendRefs: [{name: s, port: 80}]}]}}";
const INFERENCE: &str = "{apiVersion: inference.networking.k8s.io/v1, kind: InferencePool, metadata: {name: i, namespace: a}, spec: {selector: {matchLabels: {app: i}}, targetPorts: [{number: 8000}]}}";
const TO_INFERENCE: &str = "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: z, namespace: a}, spec: {parentRefs: [{name: g}], rules: [{backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: i}]}]}}";
const TLS_ROUTE: &str = "{apiVersion: gateway.networking.k8s.io/v1, kind: TLSRoute, metadata: {name: t, namespace: a}, spec: {parentRefs: [{name: g}], hostnames: [a.org], rules: [{backendRefs: [{name: s, port: 80}]}]}}";
const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: s, namespace: a}, spec: {ports: [{port: 80}]}}";
const TLS_POLICY: &str = "{apiVersion: gateway.networking.k8s.io/v1, kind: BackendTLSPolicy, metadata: {name: v, namespace: a}, spec: {targetRefs: [{group: '', kind: Service, name: s}], validation: {hostname: s.org, wellKnownCACertificates: System}}}";
const POOL: &str = "{apiVersion: tollgate.dev/v1alpha1, kind: ModelPool, metadata: {name: p, namespace: a}, spec: {models: [{name: x, affinity: None, targets: [{backendRef: {name: m, kind: ModelBackend}}, {backendRef: {name: m}, priority: 1}]}, {name: z, targets: [{backendRef: {name: m}}]}]}}";
const BACKEND: &str = "{apiVersion: tollgate.dev/v1alpha1, kind: ModelBackend, metadata: {name: m, namespace: a}, spec: {schema: OpenAI, endpoint: {hostname: 127.0.0.1, port: 80}}}";
const CONSUMER: &str = "{apiVersion: tollgate.dev/v1alpha1, kind: Consumer, metadata: {name: c, namespace: a}, spec: {keys: [{sha256: 1bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b, notAfter: '2027-01-01T00:00:00Z'}, {sha256: 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b}]}}";
const POLICY: &str = "{apiVersion: tollgate.dev/v1alpha1, kind: TokenPolicy, metadata: {name: t, namespace: a}, spec: {mode: Enforce, targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}], limits: [{name: day, tokens: 5, window: 1d}]}}";
const SLICE: &str = "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: e, namespace: a, labels: {kubernetes.io/service-name: s}}, addressType: IPv4, endpoints: [{addresses: [10.0.0.1]}, {addresses: [10.0.0.2]}], ports: [{port: 8000}]}";

const ALL: [&str; 11] = [GATEWAY, SET, ROUTE, TLS_ROUTE, SERVICE, TLS_POLICY, POOL, BACKEND, CONSUMER, POLICY, SLICE];

/// What is served if one object says something else at one place: `path action` of each route, and more.
fn served(changed: &str, pointer: &str, value: Value) -> (Vec<String>, Vec<String>) {
    let given = |text: &&str| {
        let given = Given::yaml(text);
        if *text == changed { given.with(pointer, value.clone()) } else { given }
    };
    let cluster = cluster_of(ALL.iter().map(given));
    let whole = translate(cluster.objects(), Placement::OneHost);
    (shown(&whole), cluster.findings().iter().chain(&whole.findings).map(Finding::to_string).collect())
}

fn shown(whole: &Translation) -> Vec<String> {
    use crate::ir::{Action, PathMatch};
    let mut shown = Vec::new();
    for gateway in whole.ir.gateways.values() {
        let sites = gateway.listeners.iter().flat_map(|listener| &listener.sites);
        shown.extend(sites.map(|site| format!("listener {}", site.name)));
        let routes: BTreeSet<String> = gateway
            .routes()
            .map(|route| {
                let (PathMatch::Exact(path) | PathMatch::Prefix(path) | PathMatch::Regex(path)) = &route.matches.path
                else {
                    panic!("a call: {route:?}")
                };
                let action = match &route.action {
                    Action::Pool { closed_by: Some(policy), .. } => format!("closed by {policy}"),
                    Action::Pool { limits, .. } => format!("pool under {}", limits.join(" ")),
                    Action::Services { services, invalid } => {
                        let weights: u32 = services.iter().map(|service| service.weight).sum();
                        format!("services {weights}, 500 {invalid}")
                    }
                    Action::Redirect(_) => "redirect".to_owned(),
                    Action::Fail { status } => status.to_string(),
                };
                format!("{path} {action}")
            })
            .collect();
        shown.extend(routes);
        for model in gateway.catalog.pools.values().flat_map(|pool| &pool.models) {
            shown.push(format!("model {} {}", model.name, model.targets.len()));
        }
        let endpoints = gateway.services.values().flat_map(|service| &service.endpoints);
        shown.extend(endpoints.map(|endpoint| format!("endpoint {}", endpoint.ip)));
    }
    shown.extend(whole.ir.keys.values().map(|key| format!("key {}", key.proof.name().get(..1).unwrap())));
    shown
}

const TO_POOL: &str = "/ pool under a/t/day";
const TO_SERVICES: [&str; 2] = ["/a services 4, 500 0", "/b services 4, 500 0"];

/// An object, a place in it, the value there, what is served no more, and what is served instead.
type Case<'a> = (&'a str, &'a str, Value, &'a [&'a str], &'a [&'a str]);

#[test]
fn what_nobody_knows_is_refused_in_its_own_place_and_the_rest_is_served() {
    let (clean, findings) = served("", "", json!(0));
    assert_eq!(findings, [""; 0]);
    let from = "/spec/listeners/1/allowedRoutes/namespaces/from";
    let cases: Vec<Case<'_>> = vec![
        (GATEWAY, from, json!("Friends"), &["listener other"], &[]),
        (GATEWAY, "/spec/listeners/1/protocol", json!("QUIC"), &["listener other"], &[]),
        (GATEWAY, "/spec/listeners/1/port", json!(0), &["listener other"], &[]),
        // A match that nobody knows is left out. It never becomes one of everything.
        (ROUTE, "/spec/rules/0/matches/0/path/type", json!("Suffix"), &TO_SERVICES[..1], &[]),
        (ROUTE, "/spec/rules/0/matches/0/path", json!({"type": "Suffix", "value": ".html"}), &TO_SERVICES[..1], &[]),
        (ROUTE, "/spec/rules/0/matches", json!([{"method": "BREW"}]), &TO_SERVICES, &[]),
        // What stands in for the unknown match has no part in the rule's rewrite.
        (
            ROUTE,
            "/spec/rules/0",
            json!({
                "matches": [{"path": {"value": "/p"}}, {"path": {"type": "Suffix", "value": "/b"}}],
                "filters": [{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}}],
                "backendRefs": [{"name": "s", "port": 80}],
            }),
            &TO_SERVICES,
            &["/p services 1, 500 0"],
        ),
        (ROUTE, "/spec/rules/0/filters/0/type", json!("Sign"), &TO_SERVICES, &["/a 500", "/b 500"]),
        (ROUTE, "/spec/rules/0/filters", json!([{"type": "Sign", "sign": {}}]), &TO_SERVICES, &["/a 500", "/b 500"]),
        (
            ROUTE,
            "/spec/rules/0/backendRefs/1/filters/0/type",
            json!("Sign"),
            &TO_SERVICES,
            &["/a services 3, 500 1", "/b services 3, 500 1"],
        ),
        (
            ROUTE,
            "/spec/rules/1/backendRefs/0",
            json!({"group": "tollgate.dev", "kind": "ModelPool", "name": "p", "filters": [{"type": "Sign"}]}),
            &[TO_POOL],
            &["/ 500"],
        ),
        (POOL, "/spec/models/0/affinity", json!("Moon"), &["model x 2"], &["model x 0"]),
        (POOL, "/spec/models/0/targets/0/backendRef/kind", json!("Agent"), &["model x 2"], &["model x 1"]),
        (POOL, "/spec/access", json!("Friends"), &[TO_POOL], &["/ 500"]),
        (CONSUMER, "/spec/keys/0/notAfter", json!("soon"), &["key 1"], &[]),
        (CONSUMER, "/spec/keys/0", json!({"secretRef": {"name": "s", "kind": "Vault"}}), &["key 1"], &[]),
        (SLICE, "/endpoints/0/addresses/0", json!("moon"), &["endpoint 10.0.0.1"], &[]),
        (BACKEND, "/spec/schema", json!("Moon"), &["model x 2", "model z 1"], &["model x 0", "model z 0"]),
        (POLICY, "/spec/mode", json!("Suggest"), &[TO_POOL], &["/ closed by a/t"]),
        (POLICY, "/spec/limits/0/window", json!("moon"), &[TO_POOL], &["/ closed by a/t"]),
    ];
    for (text, pointer, value, less, more) in cases {
        let (now, findings) = served(text, pointer, value.clone());
        let mut expected: BTreeSet<&str> = clean.iter().map(String::as_str).collect();
        for gone in less {
            assert!(expected.remove(gone), "{gone}: {clean:?}");
        }
        expected.extend(more);
        // What no route leads to is not served either.
        let told: BTreeSet<&str> = now.iter().map(String::as_str).collect();
        let lost = expected.difference(&told).filter(|line| match less {
            [TO_POOL] => !line.starts_with("model"),
            [_, _] => !line.starts_with("endpoint"),
            _ => true,
        });
        assert_eq!(lost.collect::<Vec<_>>(), [""; 0].iter().collect::<Vec<_>>(), "{pointer} {value}: {now:?}");
        assert_eq!(told.difference(&expected).count(), 0, "{pointer} {value}: {now:?}");
        assert!(findings.iter().any(|finding| finding.starts_with("error: ")), "{pointer} {value}: {findings:?}");
    }
}

fn status(cluster: &Cluster, kind: StatusKind) -> Value {
    let statuses = translate(cluster.objects(), Placement::OneHost).statuses(cluster.objects(), &cluster.findings());
    let is_one = |status: &ObjectStatus| status.kind == kind;
    serde_json::to_value(statuses.into_iter().find(is_one).unwrap()).unwrap()
}

/// All conditions in a status, as `Type=status reason@generation`.
fn conditions(value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) if fields.contains_key("reason") => {
            let text = |name: &str| fields[name].as_str().unwrap();
            let generation = fields.get("observedGeneration").map_or("-".to_owned(), Value::to_string);
            vec![format!("{}={} {}@{generation}", text("type"), text("status"), text("reason"))]
        }
        Value::Object(fields) => fields.values().flat_map(conditions).collect(),
        Value::Array(values) => values.iter().flat_map(conditions).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn conditions_say_which_generation_they_are_about() {
    let mut cluster =
        cluster_of(ALL.iter().chain([&CALLS, &INFERENCE, &TO_INFERENCE]).map(|text| Given::yaml(text).version("u", 7)));
    assert_eq!(
        conditions(&status(&cluster, StatusKind::HttpRoute)),
        ["Accepted=True Accepted@7", "ResolvedRefs=True ResolvedRefs@7"]
    );
    let all = StatusKind::ALL.into_iter().filter(|kind| *kind != StatusKind::GatewayClass);
    for kind in all {
        let conditions = conditions(&status(&cluster, kind));
        assert!(!conditions.is_empty() && conditions.iter().all(|line| line.ends_with("@7")), "{conditions:?}");
    }
    // A part of it is refused.
    let route = Given::yaml(ROUTE).version("u", 8).with("/spec/rules/0/filters/0/type", json!("Sign"));
    cluster.upsert(route.into_document()).unwrap();
    assert_eq!(
        conditions(&status(&cluster, StatusKind::HttpRoute)),
        ["Accepted=True Accepted@8", "ResolvedRefs=True ResolvedRefs@8", "PartiallyInvalid=True UnsupportedValue@8"]
    );
    let pool = Given::yaml(POOL).version("u", 8).with("/spec/models/0/affinity", json!("Moon"));
    cluster.upsert(pool.into_document()).unwrap();
    assert_eq!(
        conditions(&status(&cluster, StatusKind::ModelPool)),
        ["Accepted=True Accepted@8", "ResolvedRefs=False NoTarget@8", "PartiallyInvalid=True UnsupportedValue@8"]
    );
    // The newest version is refused, and an older one stays in force.
    let policy = Given::yaml(POLICY).version("u", 8).with("/spec/mode", json!("Suggest"));
    cluster.upsert(policy.into_document()).unwrap();
    assert_eq!(
        conditions(&status(&cluster, StatusKind::TokenPolicy)),
        ["Accepted=True Accepted@8", "PartiallyInvalid=True UnsupportedValue@8"]
    );
    // There never was a good one.
    let backend = Given::yaml(BACKEND).version("other", 3).with("/spec/schema", json!("Moon"));
    cluster.upsert(backend.into_document()).unwrap();
    assert_eq!(conditions(&status(&cluster, StatusKind::ModelBackend)), ["Accepted=False UnsupportedValue@3"]);
}

/// What changes say: `+kind name` and `-kind name`, and how many objects are refused now.
fn told(cluster: &mut Cluster) -> String {
    let changes = cluster.changes();
    let pools = changes.set.model_pools.iter().map(|object| format!("+{}", object.meta.origin));
    let policies = changes.set.token_policies.iter().map(|object| format!("+{}", object.meta.origin));
    let gone = changes.gone.iter().map(|(kind, key)| format!("-{kind} {key}"));
    let refused = changes.refused.map(|refused| format!("{} refused", refused.objects.len()));
    pools.chain(policies).chain(gone).chain(refused).collect::<Vec<_>>().join(", ")
}

#[test]
fn each_event_is_told_as_a_change() {
    let mut cluster = Cluster::default();
    let mut after = |given: Given| {
        cluster.upsert(given.0).unwrap();
        told(&mut cluster)
    };
    let broken = |given: Given| given.with("/spec/models/1/name", json!("a*b"));
    assert_eq!(after(Given::yaml(POOL)), "+ModelPool a/p");
    assert_eq!(after(Given::yaml(POOL)), "");
    // Its status or somebody's annotation is another one.
    assert_eq!(after(Given::yaml(POOL).resource_version("u", "1b")), "");
    assert_eq!(after(Given::yaml(POOL).version("u", 2)), "+ModelPool a/p");
    // A version that is refused leaves the last one in force, and its status says so.
    assert_eq!(after(broken(Given::yaml(POOL)).version("u", 3)), "+ModelPool a/p");
    assert_eq!(after(broken(Given::yaml(POOL)).version("u", 3).resource_version("u", "3b")), "");
    assert_eq!(after(broken(Given::yaml(POOL)).version("u", 4)), "+ModelPool a/p");
    let finding = cluster.findings().into_iter().find(|finding| finding.reason == Reason::LastGood).unwrap();
    assert_eq!(
        finding.to_string(),
        "warning: ModelPool a/p: its version of generation 2 stays in force (until it is mended or removed)"
    );
    let mut after = |given: Given| {
        cluster.upsert(given.0).unwrap();
        told(&mut cluster)
    };
    // It was removed and made again. Nothing of the new one was ever good.
    assert_eq!(after(broken(Given::yaml(POOL)).version("v", 1)), "-ModelPool a/p, 1 refused");
    assert_eq!(after(broken(Given::yaml(POOL)).version("v", 1)), "");
    assert_eq!(after(Given::yaml(POOL).version("v", 2)), "+ModelPool a/p, 0 refused");
    assert_eq!(cluster.findings(), []);
    cluster.remove("ModelPool", &key("a", "p"));
    cluster.remove("ModelPool", &key("a", "q"));
    assert_eq!(told(&mut cluster), "-ModelPool a/p");
    // Several events at once are one change.
    cluster.upsert(Given::yaml(POOL).0).unwrap();
    cluster.remove("ModelPool", &key("a", "p"));
    cluster.upsert(Given::yaml(POLICY).0).unwrap();
    assert_eq!(told(&mut cluster), "+TokenPolicy a/t, -ModelPool a/p");
    cluster.remove("TokenPolicy", &key("a", "t"));
    cluster.upsert(Given::yaml(POLICY).0).unwrap();
    assert_eq!(told(&mut cluster), "+TokenPolicy a/t");
}

#[test]
fn labels_change_without_a_generation() {
    let mut cluster = cluster_of([Given::yaml(CONSUMER)]);
    let mut labelled = Given::yaml(CONSUMER).resource_version("u", "1b");
    labelled.0["metadata"]["labels"] = json!({"team": "red"});
    cluster.upsert(labelled.0).unwrap();
    assert_eq!(cluster.objects().consumers.get("a", "c").unwrap().meta.labels.len(), 1);
}

#[test]
fn a_watch_that_began_anew_says_what_is_gone() {
    let second = Given::yaml(POOL).with("/metadata/name", json!("q")).with("/spec/models/0/name", json!("a*b"));
    let mut cluster = cluster_of([Given::yaml(POOL), second, Given::yaml(POLICY)]);
    assert_eq!(told(&mut cluster), "+ModelPool a/p, +TokenPolicy a/t, 1 refused");
    cluster.keep_only("ModelPool", None, &BTreeSet::from([key("a", "p"), key("a", "new")]));
    assert_eq!(told(&mut cluster), "0 refused");
    assert_eq!(cluster.findings(), []);
    // Another watch is of another namespace.
    cluster.keep_only("ModelPool", Some("b"), &BTreeSet::new());
    assert_eq!(told(&mut cluster), "");
    cluster.keep_only("ModelPool", Some("a"), &BTreeSet::new());
    assert_eq!(told(&mut cluster), "-ModelPool a/p");
}

#[test]
fn a_policy_that_was_never_good_closes_until_it_is_mended_or_removed() {
    let refused = || Given::yaml(POLICY).with("/spec/mode", json!("Suggest"));
    let closed = |cluster: &Cluster| {
        shown(&translate(cluster.objects(), Placement::OneHost)).contains(&"/ closed by a/t".to_owned())
    };
    let others = || ALL.iter().filter(|text| **text != POLICY).map(|text| Given::yaml(text));
    let mut cluster = cluster_of(others().chain([refused()]));
    assert!(closed(&cluster));
    cluster.upsert(Given::yaml(POLICY).version("u", 2).0).unwrap();
    assert!(!closed(&cluster));
    // The good version stays in force, so nothing needs closing.
    cluster.upsert(refused().version("u", 3).0).unwrap();
    assert!(!closed(&cluster));
    cluster.remove("TokenPolicy", &key("a", "t"));
    cluster.upsert(refused().version("u", 4).0).unwrap();
    assert!(closed(&cluster));
    cluster.remove("TokenPolicy", &key("a", "t"));
    assert!(!closed(&cluster));
}

#[test]
fn policies_that_may_not_be_read_close_what_they_may_be_for() {
    let mut cluster = cluster_of(ALL.iter().map(|text| Given::yaml(text)));
    cluster.changes();
    assert!(cluster.changes().is_empty());
    let is_closed = |cluster: &Cluster| {
        let shown = shown(&translate(cluster.objects(), Placement::OneHost));
        shown.iter().any(|line| line.contains("closed by"))
    };
    for (namespace, closes) in [(None, true), (Some("a"), true), (Some("b"), false)] {
        cluster.has_unknown_policies(namespace, true);
        assert!(!cluster.changes().is_empty());
        assert_eq!(is_closed(&cluster), closes, "{namespace:?}");
        cluster.has_unknown_policies(namespace, true);
        assert!(cluster.changes().is_empty());
        cluster.has_unknown_policies(namespace, false);
        assert!(!is_closed(&cluster) && !cluster.changes().is_empty());
    }
}

#[test]
fn what_is_not_for_us_touches_nothing() {
    let mut cluster = cluster_of([Given::yaml(GATEWAY), Given::yaml(POLICY)]);
    let foreign = Given::yaml(GATEWAY).with("/apiVersion", json!("networking.istio.io/v1")).version("v", 1);
    let error = cluster.upsert(foreign.0).unwrap_err();
    assert_eq!(error.to_string(), "Gateway of networking.istio.io/v1 is not read here (watch only what is)");
    for untyped in [json!(5), json!({"metadata": {"name": "t", "namespace": "a"}, "spec": {"targetRefs": []}})] {
        assert_eq!(cluster.upsert(untyped), Err(NotAnObject::Untyped));
    }
    assert!(
        cluster.objects().gateways.get("a", "g").is_some() && cluster.objects().token_policies.get("a", "t").is_some()
    );
}

/// What changed of the Secrets that are referred to: `+` or `-`, and the name.
fn secrets(cluster: &mut Cluster) -> Vec<String> {
    let others = cluster.other_needed();
    let sign = |needed: &crate::objects::Needed| if cluster.needs(needed) { '+' } else { '-' };
    others.iter().map(|needed| format!("{}{}", sign(needed), needed.key)).collect()
}

const CLASS: &str = "{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: theirs}, spec: {controllerName: example.com/other}}";
const HTTPS: &str = "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: s, namespace: a}, spec: {gatewayClassName: theirs, listeners: [{name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}, {name: cert, namespace: b}, {name: map, kind: ConfigMap}]}}]}}";

#[test]
fn the_secrets_are_known_that_objects_refer_to() {
    let mut cluster = cluster_of(ALL.iter().map(|text| Given::yaml(text)));
    assert_eq!(secrets(&mut cluster), [""; 0]);
    let keys = json!([{"secretRef": {"name": "k"}}, {"secretRef": {"name": "k"}}, {"secretRef": {"name": "k", "namespace": "b"}}]);
    cluster.upsert(Given::yaml(CONSUMER).with("/spec/keys", keys).version("u", 2).0).unwrap();
    assert_eq!(secrets(&mut cluster), ["+a/k", "+b/k"]);
    let spec = json!({
        "schema": "OpenAI", "endpoint": {"hostname": "example.com", "port": 443},
        "tls": {"mode": "Simple", "caRef": {"name": "ca"}}, "credential": {"secretRef": {"name": "k"}},
    });
    cluster.upsert(Given::yaml(BACKEND).with("/spec", spec).version("u", 2).0).unwrap();
    assert_eq!(secrets(&mut cluster), ["+a/ca"]);
    cluster.remove("Consumer", &key("a", "c"));
    assert_eq!(secrets(&mut cluster), ["-b/k"]);
    // A version that is refused leaves the last one in force, with what it refers to.
    cluster.upsert(Given::yaml(BACKEND).with("/spec/schema", json!("Moon")).version("u", 3).0).unwrap();
    assert_eq!(secrets(&mut cluster), [""; 0]);
    cluster.remove("ModelBackend", &key("a", "m"));
    assert_eq!(secrets(&mut cluster), ["-a/ca", "-a/k"]);
}

#[test]
fn certificates_are_read_for_gateways_of_our_class_only() {
    let mut cluster = cluster_of([Given::yaml(CLASS), Given::yaml(HTTPS)]);
    assert_eq!(secrets(&mut cluster), [""; 0]);
    let ours = Given::yaml(CLASS).with("/spec/controllerName", json!("tollgate.dev/gateway-controller"));
    cluster.upsert(ours.version("u", 2).0).unwrap();
    assert_eq!(secrets(&mut cluster), ["+a/cert", "+b/cert"]);
    cluster.remove("GatewayClass", &key("", "theirs"));
    assert_eq!(secrets(&mut cluster), ["-a/cert", "-b/cert"]);
}

/// The names of all that has a status.
fn answered_for(cluster: &Cluster) -> Vec<String> {
    let whole = translate(cluster.objects(), Placement::OneHost);
    let statuses = whole.statuses(cluster.objects(), &cluster.findings());
    statuses.iter().map(|status| format!("{} {}", status.kind.name(), status.name)).collect()
}

#[test]
fn what_another_controller_answers_for_is_left_alone() {
    let gateway = |text| Given::yaml(text).with("/spec/listeners", json!([]));
    let theirs = || gateway(HTTPS).with("/metadata/name", json!("theirs"));
    let route = |name: &str, parents: Value| {
        let route = Given::yaml(ROUTE).with("/metadata/name", json!(name)).with("/spec/parentRefs", parents);
        route.with("/spec/rules", json!(5))
    };
    let mut cluster = cluster_of([
        theirs(),
        route("theirs", json!([{"name": "theirs"}])),
        route("both", json!([{"name": "theirs"}, {"name": "g"}])),
        route("nobodys", json!([{"name": "other"}])),
        Given::yaml(CLASS),
        gateway(GATEWAY),
    ]);
    assert_eq!(answered_for(&cluster), ["Gateway g", "HTTPRoute both"]);
    assert_eq!(cluster.findings().len(), 2);
    assert_eq!(cluster.changes().refused.unwrap().objects.len(), 2);
    // Whose a class is may change.
    let ours = Given::yaml(CLASS).with("/spec/controllerName", json!("tollgate.dev/gateway-controller"));
    cluster.upsert(ours.version("u", 2).0).unwrap();
    assert_eq!(
        answered_for(&cluster),
        ["GatewayClass theirs", "Gateway g", "Gateway theirs", "HTTPRoute both", "HTTPRoute theirs"]
    );
    assert_eq!(cluster.changes().refused.unwrap().objects.len(), 4);
    cluster.remove("GatewayClass", &key("", "theirs"));
    assert_eq!(answered_for(&cluster), ["Gateway g", "HTTPRoute both"]);
    assert_eq!(cluster.changes().refused.unwrap().objects.len(), 2);
}

#[test]
fn what_no_gateway_of_ours_has_is_left_alone() {
    let orphan = Given::yaml(ROUTE).with("/spec/parentRefs", json!([{"name": "nowhere"}]));
    let waiting = Given::yaml(GATEWAY).with("/spec/gatewayClassName", json!("unknown"));
    assert_eq!(answered_for(&cluster_of([orphan, waiting])), [""; 0]);
}
