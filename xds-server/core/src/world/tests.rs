//! A step comes to what a whole translation comes to, and says what it changed.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::envoy::{self, FilterCode, FilterSetup, Ports, RouteTables, Sampling, Signals, Surroundings, Tracing};
use crate::ir::{GatewayDelta, Host, PartsDelta};
use crate::mesh::Mesh;
use crate::objects::cluster_test::Given;
use crate::objects::{Cluster, NoSecretSource};
use crate::placement::{Direction, Placement, Sidecars};
use crate::snapshot::{Changed, Resource, ResourceType, Snapshot};
use crate::status::{Finding, ObjectStatus, StatusKind};
use crate::terms::{Collector, Security};
use crate::translate::{Translation, translate};

/// The places of objects. Each place has its versions; the one before the first is that there is no such object.
fn places() -> Vec<Vec<String>> {
    let mut places: Vec<Vec<String>> = Vec::new();
    let mut place = |kind: &str, namespace: &str, name: &str, bodies: &[&str]| {
        let version = match kind {
            "RequestAuthentication" => "security.istio.io/v1",
            "Gateway" | "ListenerSet" | "HTTPRoute" | "GRPCRoute" | "TLSRoute" | "BackendTLSPolicy"
            | "GatewayClass" => "gateway.networking.k8s.io/v1",
            "ReferenceGrant" => "gateway.networking.k8s.io/v1beta1",
            "EndpointSlice" => "discovery.k8s.io/v1",
            "Service" | "Secret" | "ConfigMap" | "Namespace" | "Pod" => "v1",
            "InferencePool" => "inference.networking.k8s.io/v1",
            _ => "tollgate.dev/v1alpha1",
        };
        let document = |body: &&str| {
            let (labels, body) = body.split_once('|').unwrap_or(("", body));
            let labels = if labels.is_empty() { String::new() } else { format!(", labels: {{{labels}}}") };
            let metadata = format!("{{name: {name}, namespace: {namespace}{labels}}}");
            format!("apiVersion: {version}\nkind: {kind}\nmetadata: {metadata}\n{body}\n")
        };
        let mut versions: Vec<String> = bodies.iter().map(document).collect();
        // The same as the first version, further down in its file.
        versions.extend(versions.first().map(|first| format!("# moved\n\n{first}")));
        places.push(versions);
    };
    place(
        "GatewayClass",
        "",
        "tollgate",
        &[
            "spec: {controllerName: tollgate.dev/gateway-controller}",
            "spec: {controllerName: other.example/controller}",
        ],
    );
    for namespace in ["a", "b"] {
        place("Namespace", "", namespace, &["", "team: red|", "team: blue|"]);
        let gateway = |listeners: &str| format!("spec: {{gatewayClassName: tollgate, listeners: [{listeners}]}}");
        let gateways = [
            gateway("{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}"),
            gateway("{name: http, port: 80, protocol: HTTP}"),
            "spec: {gatewayClassName: tollgate, tls: {backend: {clientCertificateRef: {name: s, namespace: a}}}, listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]}".to_owned(),
            gateway(
                "{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}, {name: wild, port: 80, protocol: HTTP, hostname: '*.x.com', allowedRoutes: {namespaces: {from: All}}}",
            ),
            gateway(
                "{name: http, port: 81, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: red}}}}}",
            ),
            gateway(
                "{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}, {name: tls, port: 443, protocol: HTTPS, hostname: www.x.com, tls: {certificateRefs: [{name: s, namespace: a}]}, allowedRoutes: {namespaces: {from: All}}}",
            ),
            "spec: {gatewayClassName: tollgate, tls: {frontend: {default: {validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: ca, namespace: a}]}}, perPort: [{port: 443, tls: {validation: {mode: AllowInsecureFallback, caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}}}]}}, listeners: [{name: s, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: s, namespace: a}]}}, {name: t, port: 444, protocol: HTTPS, tls: {certificateRefs: [{name: s, namespace: a}]}}]}".to_owned(),
            gateway(
                "{name: pass, port: 443, protocol: TLS, hostname: '*.x.com', tls: {mode: Passthrough}, allowedRoutes: {namespaces: {from: All}}}, {name: end, port: 443, protocol: TLS, tls: {certificateRefs: [{name: s, namespace: a}, {name: absent}]}}, {name: tls, port: 443, protocol: HTTPS, hostname: www.x.com, tls: {certificateRefs: [{name: s, namespace: a}]}, allowedRoutes: {namespaces: {from: All}}}",
            ),
            "spec: {gatewayClassName: tollgate, allowedListeners: {namespaces: {from: All}}, listeners: [{name: http, port: 80, protocol: HTTP, hostname: www.x.com}]}".to_owned(),
            "spec: {gatewayClassName: tollgate, allowedListeners: {namespaces: {from: Selector, selector: {matchLabels: {team: red}}}}, listeners: [{name: http, port: 80, protocol: HTTP}]}".to_owned(),
            "spec: {gatewayClassName: other, listeners: [{name: http, port: 80, protocol: HTTP}]}".to_owned(),
        ];
        let gateways: Vec<&str> = gateways.iter().map(String::as_str).collect();
        place("Gateway", namespace, "g", &gateways);
        place("Gateway", namespace, "h", gateways.get(..4).unwrap());
        for name in ["l", "m"] {
            place(
                "ListenerSet",
                namespace,
                name,
                &[
                    "spec: {parentRef: {name: g, namespace: a}, listeners: [{name: http, port: 80, protocol: HTTP}, {name: more, port: 82, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]}",
                    "spec: {parentRef: {name: g}, listeners: [{name: http, port: 80, protocol: TCP}, {name: tls, port: 82, protocol: HTTPS, tls: {certificateRefs: [{name: s, namespace: a}]}}]}",
                    "spec: {parentRef: {name: h, namespace: b}, listeners: [{name: x, port: 81, protocol: HTTP, hostname: '*.x.com', allowedRoutes: {namespaces: {from: All}}}, {name: z, port: 443, protocol: TLS, tls: {mode: Passthrough}}]}",
                ],
            );
        }
        for name in ["r", "s"] {
            place(
                "HTTPRoute",
                namespace,
                name,
                &[
                    "spec: {parentRefs: [{name: g, namespace: a}], rules: [{backendRefs: [{name: s, port: 80}]}]}",
                    "spec: {parentRefs: [{name: g, namespace: a}], hostnames: [www.x.com, '*.x.com'], rules: [{matches: [{path: {value: /a}}, {path: {value: /b, type: Exact}}], backendRefs: [{group: tollgate.dev, kind: ModelPool, name: p}]}]}",
                    "spec: {parentRefs: [{name: g, namespace: a}, {name: h, namespace: b}], hostnames: ['*.x.com'], rules: [{backendRefs: [{group: tollgate.dev, kind: ModelPool, name: p, namespace: b}]}]}",
                    "spec: {parentRefs: [{name: g, sectionName: wild}], hostnames: [a.x.com, b.org], rules: [{filters: [{type: RequestRedirect, requestRedirect: {hostname: z.com}}]}]}",
                    "spec: {parentRefs: [{name: h}], rules: [{backendRefs: [{name: s, namespace: b, port: 80, weight: 3}, {name: t, port: 80}]}]}",
                    "spec: {parentRefs: [{name: g, namespace: a}], hostnames: [q.org], rules: [{backendRefs: [{group: tollgate.dev, kind: ModelPool, name: q}]}]}",
                    "spec: {parentRefs: [{name: l, kind: ListenerSet}, {name: m, namespace: b, kind: ListenerSet, sectionName: x}], rules: [{backendRefs: [{name: s, port: 80}]}]}",
                    "spec: {parentRefs: [{name: gg}], hostnames: [7], rules: []}",
                    "spec: {rules: [{backendRefs: []}]}",
                    "spec: {parentRefs: [{name: g, namespace: a}], rules: [{backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: i, namespace: a, weight: 2}, {group: inference.networking.k8s.io, kind: InferencePool, name: j}, {name: s, port: 80}]}]}",
                    "spec: {parentRefs: [{name: g}], rules: [{filters: [{type: CORS, cors: {allowOrigins: ['*']}}, {type: RequestMirror, requestMirror: {backendRef: {name: s, namespace: b, port: 8080}}}], retry: {codes: [503]}, backendRefs: [{name: s, port: 80}]}]}",
                ],
            );
            place(
                "GRPCRoute",
                namespace,
                name,
                &[
                    "spec: {parentRefs: [{name: g, namespace: a}], hostnames: ['*.x.com'], rules: [{backendRefs: [{name: s, port: 80}]}]}",
                    "spec: {parentRefs: [{name: g, namespace: a}, {name: h, namespace: b}], rules: [{matches: [{method: {service: a.B, method: C}}], backendRefs: [{name: s, namespace: b, port: 8080}]}]}",
                    "spec: {parentRefs: [{name: g, sectionName: http}, {name: g, sectionName: wild}], hostnames: [q.org, a.x.com], rules: [{backendRefs: [{name: s, port: 80, weight: 3}, {group: inference.networking.k8s.io, kind: InferencePool, name: i}, {group: tollgate.dev, kind: ModelPool, name: p}]}]}",
                    "spec: {parentRefs: [{name: l, kind: ListenerSet}, {name: m, namespace: b, kind: ListenerSet, sectionName: x}], rules: [{backendRefs: [{name: s, port: 80}]}]}",
                ],
            );
        }
        for name in ["t", "u"] {
            place(
                "TLSRoute",
                namespace,
                name,
                &[
                    "spec: {parentRefs: [{name: g, namespace: a}], hostnames: [www.x.com, '*.x.com', y.org], rules: [{backendRefs: [{name: s, port: 80}]}]}",
                    "spec: {parentRefs: [{name: g}, {name: g, namespace: b, sectionName: pass}], hostnames: ['*.x.com', '*.org'], rules: [{backendRefs: [{name: s, namespace: b, port: 80, weight: 2}, {name: t, port: 80}]}]}",
                    "spec: {parentRefs: [{name: l, kind: ListenerSet}, {name: g, sectionName: end}], hostnames: [a.x.com], rules: [{backendRefs: [{name: s, kind: ModelPool, group: tollgate.dev}]}]}",
                    "spec: {parentRefs: [{name: gg}], hostnames: [y.org], rules: []}",
                ],
            );
        }
        place(
            "ReferenceGrant",
            namespace,
            "all",
            &[
                "spec: {from: [{group: gateway.networking.k8s.io, kind: TLSRoute, namespace: a}, {group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: a}, {group: gateway.networking.k8s.io, kind: GRPCRoute, namespace: a}, {group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: b}], to: [{group: '', kind: Service}, {group: inference.networking.k8s.io, kind: InferencePool}, {group: tollgate.dev, kind: ModelPool}]}",
                "spec: {from: [{group: tollgate.dev, kind: ModelPool, namespace: a}, {group: gateway.networking.k8s.io, kind: Gateway, namespace: b}], to: [{group: tollgate.dev, kind: ModelBackend, name: m}, {group: '', kind: Secret}]}",
                "spec: {from: [{group: tollgate.dev, kind: ModelBackend, namespace: b}, {group: tollgate.dev, kind: Consumer, namespace: b}], to: [{group: '', kind: Secret}, {group: '', kind: Service}, {group: inference.networking.k8s.io, kind: InferencePool}]}",
            ],
        );
        place(
            "Service",
            namespace,
            "s",
            &[
                "spec: {ports: [{port: 80}]}",
                "spec: {selector: {app: s}, ports: [{port: 80, name: web, targetPort: web}, {port: 8080, name: h2, appProtocol: kubernetes.io/h2c}]}",
                "spec: {selector: {app: t}, ports: [{port: 8080, targetPort: 81}]}",
                "spec: {ports: [{port: 80, appProtocol: kubernetes.io/ws}, {port: 8080, name: other}]}",
            ],
        );
        for name in ["e", "f"] {
            place(
                "EndpointSlice",
                namespace,
                name,
                &[
                    "kubernetes.io/service-name: s|addressType: IPv4\nendpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: x}}]\nports: [{port: 8000}]",
                    "kubernetes.io/service-name: s|addressType: IPv4\nendpoints: [{addresses: [10.0.0.2], conditions: {ready: false, serving: true, terminating: true}}]\nports: [{port: 8000}]",
                    "kubernetes.io/service-name: t|addressType: IPv4\nendpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: z, namespace: a}}, {addresses: [10.0.0.3], targetRef: {kind: Pod, name: x}}]\nports: [{port: 8000, name: web}]",
                ],
            );
        }
        for name in ["i", "j"] {
            place(
                "InferencePool",
                namespace,
                name,
                &[
                    "spec: {selector: {matchLabels: {app: i}}, targetPorts: [{number: 8000}, {number: 8001}]}",
                    "spec: {selector: {matchLabels: {app: i, tier: x}}, targetPorts: [{number: 8000}], appProtocol: kubernetes.io/h2c, endpointPickerRef: {name: s, port: {number: 80}}}",
                    "spec: {selector: {matchLabels: {app: i}}, targetPorts: [{number: 8000}], endpointPickerRef: {name: s, port: {number: 8080}, failureMode: FailOpen}}",
                ],
            );
        }
        for name in ["x", "z"] {
            place(
                "Pod",
                namespace,
                name,
                &[
                    "app: i|status: {podIP: 10.1.0.1, conditions: [{type: Ready, status: 'True'}]}",
                    "app: i, tier: x, security.istio.io/tlsMode: istio|spec: {serviceAccountName: x, containers: []}\nstatus: {podIP: 10.1.0.2, conditions: [{type: Ready, status: 'True'}]}",
                    "app: i|status: {podIP: 10.1.0.1, conditions: [{type: Ready, status: 'False'}]}",
                    "app: other, security.istio.io/tlsMode: istio|status: {podIP: 10.1.0.3, conditions: [{type: Ready, status: 'True'}]}",
                ],
            );
        }
        place(
            "Secret",
            namespace,
            "s",
            &[
                "stringData: {apiKey: one, tls.crt: '-----BEGIN CERTIFICATE-----', tls.key: '-----BEGIN PRIVATE KEY-----'}",
                "stringData: {apiKey: two}",
                "stringData: {apiKey: ''}",
            ],
        );
        place(
            "ConfigMap",
            namespace,
            "ca",
            &["data: {ca.crt: '-----BEGIN CERTIFICATE-----'}", "data: {ca.crt: nothing}", "data: {other: 'x'}"],
        );
        for name in ["v", "w"] {
            place(
                "BackendTLSPolicy",
                namespace,
                name,
                &[
                    "spec: {targetRefs: [{group: '', kind: Service, name: s}], validation: {hostname: s.x.com, caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}, {group: '', kind: ConfigMap, name: absent}]}}",
                    "spec: {targetRefs: [{group: '', kind: Service, name: s, sectionName: web}], validation: {hostname: s.x.com, wellKnownCACertificates: System, subjectAltNames: [{type: URI, uri: 'spiffe://x/y'}]}}",
                    "spec: {targetRefs: [{group: '', kind: Service, name: s}, {group: '', kind: Service, name: t}], validation: {hostname: '*', wellKnownCACertificates: Moon}}",
                ],
            );
        }
        place(
            "ModelBackend",
            namespace,
            "m",
            &[
                "spec: {schema: OpenAI, endpoint: {hostname: 127.0.0.1, port: 80}}",
                "spec: {schema: Anthropic, endpoint: {hostname: m.example, port: 443}, tls: {mode: Simple}, credential: {secretRef: {name: s, namespace: a}}}",
                "spec: {schema: OpenAI, endpoint: {service: {name: s, namespace: a, port: 80}}, timeouts: {firstToken: 7s}}",
                "spec: {schema: OpenAI, endpoint: {service: {name: s, namespace: b, port: 80}}, tls: {mode: Istio}}",
                "spec: {schema: None}",
                "spec: {schema: OpenAI, endpoint: {inferencePool: {name: i, namespace: a}}}",
            ],
        );
        place("ModelBackend", namespace, "k", &["spec: {schema: OpenAI, endpoint: {service: {name: s, port: 8080}}}"]);
        place(
            "ModelPool",
            namespace,
            "p",
            &[
                "spec: {models: [{name: x, targets: [{backendRef: {name: m}, model: runner-x}]}]}",
                "spec: {access: Anonymous, parentRefs: [{name: s}], models: [{name: x, targets: [{backendRef: {name: m}}, {backendRef: {name: k}}]}]}",
                "spec: {allowedConsumers: {namespaces: {from: Selector, selector: {matchLabels: {team: red}}}}, models: [{name: 'x*', retries: 3, targets: [{backendRef: {name: m, namespace: b}}]}]}",
                "spec: {allowedConsumers: {namespaces: {from: All}}, parentRefs: [{name: s, port: 80}, {name: t}], models: [{name: w, targets: [{backendRef: {name: kk}}]}]}",
            ],
        );
        place(
            "ModelPool",
            namespace,
            "q",
            // It takes namespaces of which nothing is known but that a Consumer is there.
            &[
                "spec: {allowedConsumers: {namespaces: {from: Selector, selector: {matchExpressions: [{key: team, operator: DoesNotExist}]}}}, parentRefs: [{name: s}], models: [{name: q, targets: [{backendRef: {name: m}, weight: 2}]}]}",
            ],
        );
        let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        let (one, two) = (
            format!("spec: {{keys: [{{sha256: {hash}}}]}}"),
            format!("spec: {{keys: [{{sha256: {hash}}}, {{secretRef: {{name: s, namespace: a}}}}], models: [x]}}"),
        );
        place("Consumer", namespace, "c", &[&one, &two, "spec: {keys: [{secretRef: {name: s}}]}", "spec: {keys: 7}"]);
        let by_jwt = [
            "spec: {claims: [{issuer: i, match: {a: x}}]}",
            "spec: {claims: [{issuer: i, match: {a: z}}, {issuer: i}], models: [x]}",
            "spec: {claims: [{issuer: i, match: {b: x, a: x}}, {issuer: j}]}",
        ];
        place("Consumer", namespace, "d", &["spec: {keys: [{secretRef: {name: s}}, {secretRef: {name: s}}]}", &one]);
        place("Consumer", namespace, "e", &by_jwt);
        place("Consumer", namespace, "f", &by_jwt);
        for name in ["x", "z"] {
            place(
                "RequestAuthentication",
                namespace,
                name,
                &[
                    "spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}], jwtRules: [{issuer: i, jwksUri: 'https://i.example/keys'}]}",
                    "spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}, {group: gateway.networking.k8s.io, kind: Gateway, name: h}], jwtRules: [{issuer: j, jwks: '{\"keys\": [{\"kty\": \"RSA\"}]}', audiences: [x]}, {issuer: i, jwksUri: nowhere}]}",
                    "spec: {selector: {matchLabels: {app: s}}, jwtRules: [{issuer: i, fromCookies: [x]}]}",
                ],
            );
        }
        place(
            "TokenPolicy",
            namespace,
            "t",
            &[
                "spec: {targetRefs: [{group: tollgate.dev, kind: ModelPool, name: p}], limits: [{name: day, tokens: 5, window: 1d}]}",
                "spec: {targetRefs: [{group: tollgate.dev, kind: ModelPool, name: p}, {group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}], limits: [{name: day, tokens: 6, window: 1d}, {name: week, tokens: 6, window: week}]}",
                "spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}], mode: Shadow, limits: [{name: day, tokens: 5, window: 1d}]}",
                "spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: s}], limits: [{name: day, tokens: 5, window: 1 d}]}",
                "spec: {targetRefs: [{kind: Service, name: s}], limits: [{name: day, tokens: 5, window: 1d}, {name: week, tokens: 6, window: week}]}",
                "spec: {targetRefs: [{kind: Service, name: s}], limits: [{name: day, tokens: 5, window: 1 d}]}",
                "spec: {targetRefs: 7, limits: []}",
            ],
        );
        place(
            "TokenPolicy",
            namespace,
            "u",
            &[
                "spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}], limits: [{name: hour, tokens: 5, window: 1h, scope: [Claim/a]}]}",
                "spec: {targetRefs: [{kind: Service, name: s}, {kind: Service, name: absent}], limits: [{name: hour, tokens: 5, window: 1h}]}",
            ],
        );
    }
    places
}

/// Objects of which each was decoded once, so that what stays the same is shared.
struct Folder {
    places: Vec<Vec<(Objects, Vec<Finding>)>>,
    now: BTreeMap<usize, usize>,
}

impl Folder {
    fn new() -> Self {
        let decode = |place: usize, text: &String| {
            let mut objects = Objects::default();
            let findings = objects.add_yaml(&format!("{place:02}.yaml"), text, &NoSecretSource);
            (objects, findings)
        };
        let places = places().into_iter().enumerate();
        let places = places.map(|(place, versions)| versions.iter().map(|text| decode(place, text)).collect());
        Self { places: places.collect(), now: BTreeMap::new() }
    }

    fn set(&mut self, (place, version): (usize, usize)) {
        let place = place % self.places.len();
        // Objects that are not there are as likely as each version of those that are.
        match version % (self.places.get(place).unwrap().len() + 1) {
            0 => self.now.remove(&place),
            version => self.now.insert(place, version - 1),
        };
    }

    fn objects(&self) -> Objects {
        let mut objects = Objects::default();
        for (place, version) in &self.now {
            objects.merge(&self.places.get(*place).unwrap().get(*version).unwrap().0);
        }
        objects
    }
}

/// Holds that the step did what a whole translation does.
fn check(world: &World, whole: &Translation) {
    let (stepped, whole_ir) = (world.ir(), &whole.ir);
    assert_eq!(stepped.keys, whole_ir.keys);
    assert_eq!(stepped.limits, whole_ir.limits);
    let gateways = |ir: &Ir| ir.gateways.keys().cloned().collect::<Vec<_>>();
    assert_eq!(gateways(stepped), gateways(whole_ir));
    for (stepped, whole) in stepped.gateways.values().zip(whole_ir.gateways.values()) {
        assert_eq!(stepped, whole);
    }
    assert_eq!(stepped.workloads, whole_ir.workloads);
    assert_eq!(stepped.frontends, whole_ir.frontends);
    assert_eq!(world.findings(), whole.findings);
}

/// By kind, namespace and name.
type Statuses = BTreeMap<(StatusKind, Key), ObjectStatus>;

/// Holds that the statuses are those of a whole translation, and that the delta names all that are others than before.
/// Returns them. `given` is what is wrong with the objects as they were read.
fn check_statuses(
    before: &Statuses,
    (world, whole): (&World, &Translation),
    given: &[Finding],
    delta: &Delta,
) -> Statuses {
    let stepped = world.statuses(given);
    assert_eq!(stepped, whole.statuses(world.objects(), given));
    let named = |status: ObjectStatus| {
        let key = Key::new(status.namespace.clone(), status.name.clone());
        ((status.kind, key), status)
    };
    let after: Statuses = stepped.into_iter().map(named).collect();
    let others = others(before, &after);
    assert!(others.is_subset(&delta.statuses), "{:?}", others.difference(&delta.statuses));
    after
}

/// The routes that are attached to each Gateway.
type Attached = BTreeMap<Key, BTreeSet<Key>>;

fn attached(world: &World) -> Attached {
    let gateways = world.ir().gateways.keys();
    gateways.map(|gateway| (gateway.clone(), world.attached(gateway).cloned().collect())).collect()
}

/// Holds that the delta names everything that is another than before, and that no unit was asked for nothing.
fn check_delta((before, before_attached): &(Ir, Attached), (after, after_attached): &(Ir, Attached), delta: &Delta) {
    assert_eq!(others(&before.keys, &after.keys), delta.keys);
    let consumers = [before, after].into_iter().flat_map(|ir| delta.keys.iter().filter_map(|hash| ir.keys.get(hash)));
    assert_eq!(consumers.map(|key| key.origin.key()).collect::<BTreeSet<_>>(), delta.consumers);
    assert_eq!(others(&before.limits, &after.limits), delta.limits);
    let mut workloads = others(&before.workloads, &after.workloads);
    let has = |workload: &ir::Workload| workload.catalog.limits().any(|limit| delta.limits.contains(limit));
    workloads.extend(after.workloads.iter().filter(|(_, workload)| has(workload)).map(|(key, _)| key.clone()));
    assert_eq!(workloads, delta.workloads);
    assert_eq!(others(&before.frontends, &after.frontends), delta.frontends);
    for (key, gateway) in &after.gateways {
        let Some(before) = before.gateways.get(key) else {
            assert_eq!(delta.gateways.get(key), Some(&GatewayDelta::Whole));
            continue;
        };
        let parts = match delta.gateways.get(key) {
            Some(GatewayDelta::Whole) => continue,
            Some(GatewayDelta::Gone) => panic!("{key:?} is there"),
            Some(GatewayDelta::Parts(parts)) => parts,
            None => &PartsDelta::default(),
        };
        let attached = |routes: &BTreeMap<Key, BTreeSet<Key>>| routes.get(key).cloned().unwrap_or_default();
        assert_eq!(&attached(before_attached) ^ &attached(after_attached), parts.attached);
        let hosts = |gateway: &ir::Gateway| {
            let sites = gateway.listeners.iter().flat_map(|listener| listener.sites.clone());
            let hosts = sites.flat_map(|site| {
                let listener = site.name;
                site.virtual_hosts
                    .into_iter()
                    .map(move |(domain, host)| (Host { listener: listener.clone(), domain }, host))
            });
            hosts.collect::<BTreeMap<_, _>>()
        };
        assert!(others(&hosts(before), &hosts(gateway)).is_subset(&parts.hosts), "{parts:?}");
        assert_eq!(others(&before.catalog.pools, &gateway.catalog.pools), parts.pools);
        assert_eq!(others(&before.catalog.backends, &gateway.catalog.backends), parts.backends);
        assert_eq!(others(&before.services, &gateway.services), parts.services);
        let limits = gateway.catalog.limits().any(|limit| delta.limits.contains(limit));
        assert_eq!(before.catalog.classes != gateway.catalog.classes || limits, parts.classes);
    }
    let gone: BTreeSet<&Key> = before.gateways.keys().filter(|key| !after.gateways.contains_key(*key)).collect();
    for key in gone {
        assert_eq!(delta.gateways.get(key), Some(&GatewayDelta::Gone));
    }
}

fn others<K: Ord + Clone, T: PartialEq>(before: &BTreeMap<K, T>, after: &BTreeMap<K, T>) -> BTreeSet<K> {
    let keys = before.keys().chain(after.keys());
    keys.filter(|key| before.get(*key) != after.get(*key)).cloned().collect()
}

fn tracing() -> Tracing {
    let collector = Collector { host: "otel.example".to_owned(), port: 4317, security: Security::None };
    Tracing { collector, sampling: Sampling::of_percent(5.0).unwrap() }
}

/// Holds that the resources of each Gateway, brought up to date, are those that are made of all of it, and that what
/// changed was noted.
fn check_resources(snapshots: &mut BTreeMap<Key, Snapshot>, world: &World, delta: &Delta) {
    let surroundings = Surroundings {
        // Some tables have more hostnames than this and some have less.
        route_tables: RouteTables { scoped_above: 2 },
        bind: "127.0.0.1".to_owned(),
        ports: Ports::Shared,
        filter: FilterSetup::of_gateways(FilterCode::File("filter.wasm".to_owned())),
        signals: Signals { access_log: Some("/dev/stdout".to_owned()), tracing: Some(tracing()) },
    };
    let resources = |snapshot: &Snapshot| -> Vec<(ResourceType, String, Resource)> {
        let all = ResourceType::ALL.into_iter();
        all.flat_map(|kind| snapshot.of(kind).map(move |(name, resource)| (kind, name.to_owned(), resource.clone())))
            .collect()
    };
    snapshots.retain(|key, _| world.ir().gateways.contains_key(key));
    for (key, gateway) in &world.ir().gateways {
        let whole = envoy::without_keys(gateway, world.ir(), &surroundings);
        let snapshot = snapshots.entry(key.clone()).or_default();
        let before = snapshot.clone();
        let mut changed = Changed::default();
        match delta.gateways.get(key) {
            Some(GatewayDelta::Whole) => snapshot.update(&whole, &mut changed),
            Some(GatewayDelta::Parts(parts)) => {
                envoy::update(snapshot, (gateway, world.ir()), parts, &surroundings, &mut changed);
            }
            Some(GatewayDelta::Gone) => panic!("{key:?} is there"),
            None => {}
        }
        assert_eq!(resources(snapshot), resources(&whole), "{key:?}");
        assert_eq!(changed, Changed::between(&before, snapshot));
    }
}

/// Those of proxies that we program.
fn own() -> Vec<Setting> {
    let mesh = Mesh {
        trust_domain: "td.example".to_owned(),
        aliases: vec!["old.example".to_owned()],
        cluster_domain: "cluster.local".to_owned(),
        certificates: "/mesh".to_owned(),
    };
    let in_mesh = |placement| Setting { placement, mesh: Some(Arc::new(mesh.clone())), sidecars: Sidecars::Both };
    let fleet = Placement::OneFleet(Key::new("a", "s"));
    let own = [Placement::OneHost, Placement::ProxyPerGateway, fleet].map(Setting::from);
    own.into_iter().chain([Placement::OneHost, Placement::ProxyPerGateway].map(in_mesh)).collect()
}

fn settings() -> Vec<Setting> {
    let sidecars = [Direction::Inbound, Direction::Outbound].map(|direction| Placement::Sidecar(direction).into());
    own().into_iter().chain(sidecars).collect()
}

proptest! {
    /// Any objects appear, change, move, disappear and come back, some of them at the same time.
    #[test]
    fn a_step_is_as_a_whole_translation(
        setting in prop::sample::select(settings()),
        steps in prop::collection::vec(prop::collection::vec((any::<usize>(), any::<usize>()), 1..12), 1..16),
    ) {
        thread_local! { static FOLDER: std::cell::RefCell<Folder> = std::cell::RefCell::new(Folder::new()); }
        FOLDER.with_borrow_mut(|folder| {
            folder.now.clear();
            let mut world = World::new(setting.clone());
            let mut snapshots = BTreeMap::new();
            let mut statuses = Statuses::new();
            for step in steps {
                step.into_iter().for_each(|change| folder.set(change));
                let next = folder.objects();
                let before = (world.ir().clone(), attached(&world));
                let delta = world.step(Changes::between(world.objects(), &next));
                let whole = translate(&next, setting.clone());
                check(&world, &whole);
                statuses = check_statuses(&statuses, (&world, &whole), &[], &delta);
                check_resources(&mut snapshots, &world, &delta);
                check_delta(&before, &(world.ir().clone(), attached(&world)), &delta);
            }
        });
    }
}

proptest! {
    /// The same in a cluster: its watches tell of objects one by one, and each may be of a newer version than we are.
    #[test]
    fn a_step_of_a_cluster_is_as_a_whole_translation(
        setting in prop::sample::select(own()),
        steps in prop::collection::vec(prop::collection::vec((any::<usize>(), any::<usize>(), prop::bool::weighted(0.2)), 1..12), 1..16),
    ) {
        thread_local! { static PLACES: Vec<Vec<String>> = places(); }
        PLACES.with(|places| {
            let mut watched = Watched { places, cluster: Cluster::default(), there: BTreeMap::new(), events: 0 };
            let mut world = World::new(setting.clone());
            let mut statuses = Statuses::new();
            for step in steps {
                step.into_iter().for_each(|event| watched.tell(event));
                let cluster = &mut watched.cluster;
                let before = (world.ir().clone(), attached(&world));
                let delta = world.step(cluster.changes());
                let whole = translate(cluster.objects(), setting.clone());
                check(&world, &whole);
                statuses = check_statuses(&statuses, (&world, &whole), &cluster.findings(), &delta);
                check_delta(&before, &(world.ir().clone(), attached(&world)), &delta);
            }
        });
    }
}

/// A cluster, and what it has at each of the places.
struct Watched<'a> {
    places: &'a [Vec<String>],
    cluster: Cluster,
    there: BTreeMap<usize, Given>,
    events: i64,
}

impl Watched<'_> {
    /// An object is new, has another version or is gone. A strange one says something that nobody knows.
    fn tell(&mut self, (place, version, strange): (usize, usize, bool)) {
        self.events += 1;
        let place = place % self.places.len();
        let versions = self.places.get(place).unwrap();
        let Some(version) = (version % (versions.len() + 1)).checked_sub(1) else {
            if let Some((kind, key)) = self.there.remove(&place).map(|given| given.named()) {
                self.cluster.remove(&kind, &key);
            }
            return;
        };
        let mut text = versions.get(version).unwrap().clone();
        if strange {
            for known in ["type: Exact", "type: RequestRedirect", "from: All", "schema: OpenAI", "mode: Shadow"] {
                let (field, _) = known.split_once(' ').unwrap();
                text = text.replace(known, &format!("{field} Strange"));
            }
            text = text.replace("backendRef: {name: m}", "backendRef: {name: m, kind: Strange}");
        }
        // An object that comes back is another one.
        let uid = match self.there.get(&place) {
            Some(before) => before.uid().to_owned(),
            None => self.events.to_string(),
        };
        let given = Given::yaml(&text).with_data().version(&uid, self.events);
        self.there.insert(place, given.clone());
        self.cluster.upsert(given.into_document()).unwrap();
    }
}

/// A route of the Gateway `a/g` that leads to the pool `a/p`.
fn busy(name: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: a}}\n\
         spec: {{parentRefs: [{{name: g}}], hostnames: [{name}.org], rules: [{{backendRefs: [{{group: tollgate.dev, kind: \
         ModelPool, name: p}}]}}]}}\n---\n"
    )
}

#[test]
fn one_more_route_is_told_to_its_pool_and_gateway_and_nobody_else() {
    let start = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: a}\n\
                 spec: {gatewayClassName: tollgate, listeners: [{name: http, port: 80, protocol: HTTP}]}\n---\n\
                 apiVersion: tollgate.dev/v1alpha1\nkind: ModelPool\nmetadata: {name: p, namespace: a}\n\
                 spec: {models: [{name: x, targets: [{backendRef: {name: m}}]}]}\n---\n";
    let add = |objects: &mut Objects, file: &str, yaml: &str| {
        assert_eq!(objects.add_yaml(file, yaml, &NoSecretSource), []);
    };
    let routes: String = (0..100).map(|number| busy(&format!("r{number:03}"))).collect();
    let mut objects = Objects::default();
    add(&mut objects, "f", &format!("{start}{routes}"));
    let pool = (StatusKind::ModelPool, Key::new("a", "p"));
    let mut world = World::new(Placement::OneHost);
    world.step(Changes::between(world.objects(), &objects));
    let used_by = |world: &World| world.statuses_of([&pool], &[]).swap_remove(0).unwrap().status.used_by.unwrap();
    let before = used_by(&world);
    assert_eq!((before.total, before.objects.len()), (100, 16));
    add(&mut objects, "g", &busy("r100"));
    let delta = world.step(Changes::between(world.objects(), &objects));
    let route = (StatusKind::HttpRoute, Key::new("a", "r100"));
    let gateway = (StatusKind::Gateway, Key::new("a", "g"));
    assert_eq!(delta.statuses, [gateway, route, pool.clone()].into());
    // Of the pool's status one number is another.
    assert_eq!(used_by(&world), crate::status::UsedBy { total: 101, ..before });
}

#[test]
fn the_places_are_decoded_as_they_are_meant() {
    let folder = Folder::new();
    let findings = folder.places.iter().flatten().flat_map(|(_, findings)| findings);
    let mut refused: Vec<String> =
        findings.filter_map(|finding| finding.origin.as_ref()).map(ToString::to_string).collect();
    refused.sort();
    let of = |namespace: &str| {
        let policies = ["TokenPolicy N/t"; 3];
        let others =
            ["Consumer N/c", "HTTPRoute N/r", "HTTPRoute N/s", "ModelBackend N/m", "TLSRoute N/t", "TLSRoute N/u"];
        others.into_iter().chain(policies).map(|name| name.replace('N', namespace)).collect::<Vec<_>>()
    };
    let mut meant = [of("a"), of("b")].concat();
    meant.sort();
    assert_eq!(refused, meant);
}
