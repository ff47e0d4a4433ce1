use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::mesh::Mesh;
use crate::objects::CONTROLLER_NAME;
use crate::objects::cluster_test::{Given, cluster_of};
use crate::placement::{Placement, Setting};
use crate::status::{ConditionType, Reason};
use crate::terms::{Collector, Security};
use crate::world::World;

const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: llm, namespace: team}
spec:
  gatewayClassName: tollgate
  infrastructure:
    labels: {cost-centre: '7', app.kubernetes.io/managed-by: somebody}
    annotations: {note: ours}
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - {name: more, port: 80, protocol: HTTP, hostname: a.example}
";

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata:
  name: llm-tollgate
  namespace: team
  labels: {app.kubernetes.io/managed-by: tollgate, gateway.networking.k8s.io/gateway-name: llm}
spec: {type: LoadBalancer, clusterIPs: [10.0.0.1], ports: [{port: 80}]}
";

fn settings() -> Settings {
    Settings {
        image: "proxy:1".to_owned(),
        control_plane: "tollgate.tollgate-system.svc".to_owned(),
        xds_port: 18000,
        certificates_port: 18001,
        replicas: ProxyReplicas::Fixed(3),
        service: ProxyService::LoadBalancer,
        mesh: PodMesh::None,
        policies: Policies::None,
    }
}

fn world(objects: &[Given]) -> World {
    let mut cluster = cluster_of(objects.iter().cloned());
    let mut world = World::new(Placement::ProxyPerGateway);
    world.step(cluster.changes());
    world
}

fn wanted_of(gateway: Given, settings: &Settings) -> Vec<Wanted> {
    let world = world(&[gateway]);
    let (gateway, asked) = world.own_gateways().next().unwrap();
    wanted(gateway, &asked, &world.egress(&gateway.meta.key(), None), settings, "the CA").unwrap()
}

fn of(all: &[Wanted], kind: FleetKind) -> &Value {
    &all.iter().find(|one| one.kind == kind).unwrap().document
}

#[test]
fn all_of_it_belongs_to_the_gateway_and_says_so() {
    let all = wanted_of(Given::yaml(GATEWAY), &settings());
    assert_eq!(all.len(), 5);
    for Wanted { kind, document } in &all {
        let metadata = &document["metadata"];
        assert_eq!((document["kind"].as_str(), metadata["name"].as_str()), (Some(kind.name()), Some("llm-tollgate")));
        assert_eq!(metadata["ownerReferences"][0]["uid"], "u");
        let labels = &metadata["labels"];
        assert_eq!((&labels["cost-centre"], &labels[GATEWAY_NAME]), (&json!("7"), &json!("llm")));
        assert_eq!((&labels[MANAGED_BY.0], &metadata["annotations"]["note"]), (&json!(MANAGED_BY.1), &json!("ours")));
    }
    let pod = &of(&all, FleetKind::Deployment)["spec"]["template"];
    assert_eq!(pod["metadata"]["labels"]["cost-centre"], "7");
    let selector = &of(&all, FleetKind::Deployment)["spec"]["selector"]["matchLabels"];
    assert_eq!(selector, &of(&all, FleetKind::Service)["spec"]["selector"]);
    for (name, value) in selector.as_object().unwrap() {
        assert_eq!(pod["metadata"]["labels"].get(name), Some(value), "the selector finds the Pods");
    }
    assert_eq!(of(&all, FleetKind::ConfigMap)["data"], json!({CA_FILE: "the CA"}));
}

/// Whatever mesh they are in and whatever ProxyParameters ask for: what the Pod Security Standard `restricted` wants, and more.
#[test]
fn pods_of_gateways_give_up_what_they_do_not_need() {
    let meshes = [
        PodMesh::None,
        PodMesh::Istio { certificates: "/agent".to_owned() },
        PodMesh::Linkerd(linkerd::Logs::default()),
    ];
    for mesh in meshes {
        let all = wanted_of(Given::yaml(GATEWAY), &Settings { mesh, ..settings() });
        let pods = all.iter().filter_map(|one| one.document.pointer("/spec/template/spec"));
        let [pod] = pods.collect::<Vec<_>>()[..] else { panic!("there are Pods of another kind") };
        let context = &pod["securityContext"];
        assert_eq!(context["runAsNonRoot"], true);
        for id in ["runAsUser", "runAsGroup", "fsGroup"] {
            assert_eq!(context[id], 65_532, "{id}");
        }
        assert_eq!(context["seccompProfile"], json!({"type": "RuntimeDefault"}));
        for shared in ["hostNetwork", "hostPID", "hostIPC", "initContainers"] {
            assert_eq!(pod.get(shared), None, "{shared}");
        }
        for container in pod["containers"].as_array().unwrap() {
            let wanted = json!({
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            });
            assert_eq!(container["securityContext"], wanted);
        }
        for volume in pod["volumes"].as_array().unwrap() {
            // What is written is in memory alone.
            let written = volume.get("emptyDir");
            assert!(written.is_none_or(|volume| volume["medium"] == "Memory" && volume.get("sizeLimit").is_some()));
            assert_eq!(volume.get("hostPath"), None, "{volume}");
        }
    }
}

/// A network that does not exempt the node refuses its probes otherwise, those of the containers that a mesh adds included.
#[test]
fn a_policy_in_a_mesh_admits_what_the_mesh_adds() {
    let policies = Policies::PerGateway { namespace: "tollgate-system".to_owned(), collector: None };
    let rules = |mesh: PodMesh, direction: &str| -> Vec<Vec<Value>> {
        let settings = Settings { mesh, policies: policies.clone(), ..settings() };
        let all = wanted_of(Given::yaml(GATEWAY), &settings);
        let rules = of(&all, FleetKind::NetworkPolicy)["spec"][direction].as_array().unwrap().clone();
        let ports = |rule: &Value| rule["ports"].as_array().unwrap().iter().map(|port| port["port"].clone()).collect();
        rules.iter().map(ports).collect()
    };
    let istio = || PodMesh::Istio { certificates: "/agent".to_owned() };
    let linkerd = || PodMesh::Linkerd(linkerd::Logs::default());
    assert_eq!(rules(istio(), "ingress"), [vec![15021], vec![80], vec![15020]]);
    assert_eq!(rules(istio(), "egress"), [vec![18000, 18001], vec![53, 53, 5353, 5353], vec![15012]]);
    assert_eq!(rules(linkerd(), "ingress"), [vec![15021], vec![80], vec![4143, 4191]]);
    assert_eq!(
        rules(linkerd(), "egress"),
        [vec![18000, 18001], vec![53, 53, 5353, 5353], vec![8080, 8086, 8090], vec![4143]]
    );
}

#[test]
fn a_service_has_each_port_once() {
    let all = wanted_of(Given::yaml(GATEWAY), &settings());
    let spec = &of(&all, FleetKind::Service)["spec"];
    assert_eq!(spec["ports"], json!([{"name": "port-80", "port": 80, "protocol": "TCP", "targetPort": 80}]));
    assert_eq!(spec.get("loadBalancerIP"), None);
    let addresses = json!([{"type": "Hostname", "value": "a.example"}, {"value": "10.1.2.3"}]);
    let asking = Given::yaml(GATEWAY).with("/spec/addresses", addresses);
    assert_eq!(of(&wanted_of(asking, &settings()), FleetKind::Service)["spec"]["loadBalancerIP"], "10.1.2.3");
}

#[test]
fn pods_of_a_mesh_get_its_agent_and_look_for_what_that_writes() {
    let template = |settings: &Settings| -> Value {
        of(&wanted_of(Given::yaml(GATEWAY), settings), FleetKind::Deployment)["spec"]["template"].clone()
    };
    let outside = template(&settings());
    let inside = template(&Settings { mesh: PodMesh::Istio { certificates: "/agent".to_owned() }, ..settings() });
    assert_eq!(inside["metadata"]["labels"]["sidecar.istio.io/inject"], "true");
    assert_eq!(inside["metadata"]["annotations"]["inject.istio.io/templates"], "grpc-agent");
    let arguments = |template: &Value| template["spec"]["containers"][0]["args"].as_array().unwrap().clone();
    let (inside_arguments, outside_arguments) = (arguments(&inside), arguments(&outside));
    assert_eq!(inside_arguments.last().unwrap(), "--mesh-certificates=/agent");
    assert_eq!(&inside_arguments[..inside_arguments.len() - 1], outside_arguments.as_slice());
    assert_eq!(outside["metadata"]["labels"].get("sidecar.istio.io/inject"), None);
    assert_eq!(outside["metadata"]["annotations"], json!({"note": "ours"}));
}

#[test]
fn pods_of_linkerds_mesh_get_its_proxy_which_leaves_the_control_planes_ports_alone() {
    let template = |gateway: Given, mesh: PodMesh| -> Value {
        let settings = Settings { mesh, ..settings() };
        of(&wanted_of(gateway, &settings), FleetKind::Deployment)["spec"]["template"].clone()
    };
    let inside = template(Given::yaml(GATEWAY), PodMesh::Linkerd(linkerd::Logs::default()));
    let annotations = |template: &Value| template["metadata"]["annotations"].clone();
    let skipped = "config.linkerd.io/skip-outbound-ports";
    assert_eq!(annotations(&inside), json!({"note": "ours", "linkerd.io/inject": "enabled", skipped: "18000,18001"}));
    // The Envoy is told nothing of it.
    let outside = template(Given::yaml(GATEWAY), PodMesh::None);
    assert_eq!(inside["spec"], outside["spec"]);
    assert_eq!(inside["metadata"]["labels"], outside["metadata"]["labels"]);
    let asked = json!({"annotations": {skipped: "18000,18001,5432", "linkerd.io/inject": "ingress"}});
    let logs = linkerd::Logs { level: Some("warn".to_owned()), access: Some(linkerd::AccessLog::Json) };
    let mesh = PodMesh::Linkerd(logs);
    let own = annotations(&template(Given::yaml(GATEWAY).with("/spec/infrastructure", asked), mesh.clone()));
    let (level, access) = ("config.linkerd.io/proxy-log-level", "config.linkerd.io/access-log");
    assert_eq!(
        own,
        json!({"linkerd.io/inject": "enabled", skipped: "18000,18001,5432", level: "warn", access: "json"})
    );
    // What a Gateway says itself counts.
    let asked = json!({"annotations": {level: "debug", access: "apache"}});
    let own = annotations(&template(Given::yaml(GATEWAY).with("/spec/infrastructure", asked), mesh));
    assert_eq!((&own[level], &own[access]), (&json!("debug"), &json!("apache")));
}

/// Sidecars speak the TLS of the mesh to all ports of a Pod or to none.
#[test]
fn pods_that_take_members_of_the_mesh_alone_say_so() {
    let of_mesh = json!({
        "name": "mesh", "port": 8443, "protocol": "HTTPS",
        "tls": {"options": {"gateway.istio.io/tls-terminate-mode": "ISTIO_MUTUAL"}},
    });
    let plain = json!({"name": "http", "port": 80, "protocol": "HTTP"});
    let mesh = Mesh {
        trust_domain: "cluster.local".to_owned(),
        aliases: Vec::new(),
        cluster_domain: "cluster.local".to_owned(),
        certificates: "/agent".to_owned(),
    };
    let mode = |listeners: &Value, labels: &Value| -> Value {
        let gateway = Given::yaml(GATEWAY).with("/spec/listeners", listeners.clone());
        let gateway = gateway.with("/spec/infrastructure", json!({"labels": labels}));
        let mut world = World::new(Setting { mesh: Some(Arc::new(mesh.clone())), ..Placement::ProxyPerGateway.into() });
        world.step(cluster_of([gateway]).changes());
        let (gateway, asked) = world.own_gateways().next().unwrap();
        let all = wanted(gateway, &asked, &Egress::new(), &settings(), "the CA").unwrap();
        of(&all, FleetKind::Deployment)["spec"]["template"]["metadata"]["labels"]["security.istio.io/tlsMode"].clone()
    };
    let none = json!({});
    assert_eq!(mode(&json!([of_mesh]), &none), "istio");
    assert_eq!(mode(&json!([of_mesh, plain]), &none), Value::Null);
    assert_eq!(mode(&json!([plain]), &none), Value::Null);
    let owners = json!({"security.istio.io/tlsMode": "disabled"});
    assert_eq!(mode(&json!([of_mesh]), &owners), "disabled");
}

#[test]
fn an_autoscaler_is_not_overruled() {
    let fixed = wanted_of(Given::yaml(GATEWAY), &settings());
    assert_eq!(of(&fixed, FleetKind::Deployment)["spec"]["replicas"], 3);
    let replicas = ProxyReplicas::Between { least: 2, most: 9, cpu_percent: 80 };
    let scaled = wanted_of(Given::yaml(GATEWAY), &Settings { replicas, ..settings() });
    assert_eq!(of(&scaled, FleetKind::Deployment)["spec"].get("replicas"), None);
    let scaler = &of(&scaled, FleetKind::HorizontalPodAutoscaler)["spec"];
    assert_eq!((&scaler["minReplicas"], &scaler["maxReplicas"]), (&json!(2), &json!(9)));
    assert_eq!(scaler["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
}

#[test]
fn names_are_labels_and_never_shared() {
    assert_eq!(name("llm", "tollgate"), "llm-tollgate");
    let long = "g".repeat(253);
    let odd = ["a.b", "a-b", "0", "-", &long, &format!("{long}h")];
    let names: BTreeSet<String> = odd.iter().map(|gateway| name(gateway, "tollgate")).collect();
    assert_eq!(names.len(), odd.len());
    for name in &names {
        assert!(is_dns_label(name) && name.starts_with(|first: char| first.is_ascii_lowercase()), "{name}");
    }
    assert_eq!(label_value("llm"), "llm");
    assert!(is_label_value(&label_value(&long)) && label_value(&long) != label_value(&format!("{long}h")));
}

/// What `kubectl get gateway` says of how it is reached.
#[test]
fn a_gateway_has_the_addresses_of_its_service() {
    let ingress = |ip: &str| json!({"loadBalancer": {"ingress": [{"ip": ip}]}});
    let said = |gateway: Given, service: Given| {
        let world = world(&[gateway, service]);
        let status = world.statuses(&[]).into_iter().find(|status| status.name == "llm").unwrap().status;
        let programmed = status.conditions.get(ConditionType::Programmed).unwrap().reason.to_string();
        let addresses: Vec<String> = status.addresses.into_iter().map(|address| address.value).collect();
        (programmed, addresses.join(","))
    };
    let (gateway, service) = (Given::yaml(GATEWAY), Given::yaml(SERVICE));
    assert_eq!(said(gateway.clone(), service.clone()), ("AddressNotAssigned".to_owned(), String::new()));
    let given = service.clone().with("/status", ingress("10.9.9.9"));
    assert_eq!(said(gateway.clone(), given.clone()), ("Pending".to_owned(), "10.9.9.9".to_owned()));
    let asking = gateway.clone().with("/spec/addresses", json!([{"value": "10.1.2.3"}]));
    assert_eq!(said(asking.clone(), given.clone()).0, "AddressNotUsable");
    assert_eq!(said(asking, service.clone().with("/status", ingress("10.1.2.3"))).0, "Pending");
    let other = gateway.clone().with("/spec/addresses", json!([{"type": "Hostname", "value": "a.example"}]));
    assert_eq!(said(other, given.clone()).0, "Invalid");
    // Somebody else's Service of this name says nothing of the Gateway.
    let foreign = given.with("/metadata/labels", json!({}));
    assert_eq!(said(gateway.clone(), foreign), ("Pending".to_owned(), String::new()));
    let inside = service.with("/spec/type", json!("ClusterIP"));
    assert_eq!(said(gateway, inside), ("Pending".to_owned(), "10.0.0.1".to_owned()));
}

#[test]
fn a_gateway_has_its_own_parameters_and_then_those_of_its_class() {
    let parameters = |name: &str, spec: Value| {
        let metadata = json!({"name": name, "namespace": "team"});
        let api_version = "tollgate.dev/v1alpha1";
        Given::new(json!({"apiVersion": api_version, "kind": "ProxyParameters", "metadata": metadata, "spec": spec}))
    };
    let reference =
        |name: &str| json!({"group": "tollgate.dev", "kind": "ProxyParameters", "name": name, "namespace": "team"});
    let class = Given::new(json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": {"name": "tollgate"},
        "spec": {"controllerName": CONTROLLER_NAME, "parametersRef": reference("of-class")},
    }));
    let gateway = Given::yaml(GATEWAY).with("/spec/infrastructure/parametersRef", reference("own"));
    let of_class = parameters("of-class", json!({"image": "proxy:2", "replicas": 7, "nodeSelector": {"disk": "ssd"}}));
    let scaling = json!({"minReplicas": 2, "maxReplicas": 4});
    let own = parameters(
        "own",
        json!({"autoscaling": scaling, "service": {"type": "ClusterIP"}, "resources": {"limits": {"memory": "2Gi"}}}),
    );

    let world = world(&[gateway.clone(), class.clone(), of_class, own]);
    let (found, asked) = world.own_gateways().next().unwrap();
    let all = wanted(found, &asked, &Egress::new(), &settings(), "").unwrap();
    let deployment = &of(&all, FleetKind::Deployment)["spec"];
    let pod = &deployment["template"]["spec"];
    assert_eq!((&pod["containers"][0]["image"], &pod["nodeSelector"]["disk"]), (&json!("proxy:2"), &json!("ssd")));
    assert_eq!(pod["containers"][0]["resources"], json!({"requests": {}, "limits": {"memory": "2Gi"}}));
    assert_eq!(of(&all, FleetKind::HorizontalPodAutoscaler)["spec"]["maxReplicas"], 4);
    assert_eq!(
        (deployment.get("replicas"), &of(&all, FleetKind::Service)["spec"]["type"]),
        (None, &json!("ClusterIP"))
    );

    // What is not there is said, and the Gateway is not accepted.
    let world = self::world(&[gateway, class]);
    let reasons: Vec<Reason> = world.findings().iter().map(|finding| finding.reason).collect();
    assert_eq!(reasons, [Reason::InvalidParameters; 2]);
}

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: team}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}, {name: other, port: 81, targetPort: 9}]}
---
apiVersion: v1
kind: Service
metadata: {name: by-hand, namespace: team}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: by-hand, namespace: team, labels: {kubernetes.io/service-name: by-hand}}
addressType: IPv4
endpoints: [{addresses: [10.7.7.7]}]
ports: [{port: 8443}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: team}
spec:
  parentRefs: [{name: llm}]
  rules:
  - backendRefs: [{name: web, port: 80}, {name: by-hand, port: 80}]
  - {matches: [{path: {value: /v1}}], backendRefs: [{group: tollgate.dev, kind: ModelPool, name: chat}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelPool
metadata: {name: chat, namespace: team}
spec:
  models:
  - {name: a, targets: [{backendRef: {name: outside}}, {backendRef: {name: inside}}, {backendRef: {name: fixed}}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelBackend
metadata: {name: outside, namespace: team}
spec: {schema: OpenAI, endpoint: {hostname: api.example.com, port: 443}, tls: {mode: Simple}}
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelBackend
metadata: {name: inside, namespace: team}
spec: {schema: OpenAI, endpoint: {hostname: web.team.svc.cluster.local, port: 81}, tls: {mode: None}}
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelBackend
metadata: {name: fixed, namespace: team}
spec: {schema: OpenAI, endpoint: {hostname: 10.8.8.8, port: 8000}, tls: {mode: None}}
";

#[test]
fn proxies_reach_what_their_routes_lead_to_and_nothing_else() {
    let objects: Vec<Given> =
        [Given::yaml(GATEWAY)].into_iter().chain(SERVICES.split("\n---\n").map(Given::yaml)).collect();
    let world = world(&objects);
    let (gateway, _) = world.own_gateways().next().unwrap();
    let pods =
        Destination::Pods { namespace: "team".to_owned(), labels: [("app".to_owned(), "web".to_owned())].into() };
    // The Pods' own ports, also of a Service that has no endpoint yet.
    let expected = Egress::from([
        (pods, [9, 8080].into()),
        (Destination::Address("10.7.7.7".parse().unwrap()), [8443].into()),
        (Destination::Address("10.8.8.8".parse().unwrap()), [8000].into()),
        (Destination::Outside, [443].into()),
    ]);
    assert_eq!(world.egress(&gateway.meta.key(), None), expected);
    assert_eq!(world.egress(&Key::new("team", "other"), None), Egress::new());
}

/// No route leads there, and the Pods behind its Service are known all the same.
#[test]
fn proxies_reach_the_collector_of_their_spans() {
    let objects: Vec<Given> =
        [Given::yaml(GATEWAY)].into_iter().chain(SERVICES.split("\n---\n").take(1).map(Given::yaml)).collect();
    let world = world(&objects);
    let (gateway, _) = world.own_gateways().next().unwrap();
    let to = |host: &str, port| {
        let collector = Collector { host: host.to_owned(), port, security: Security::None };
        world.egress(&gateway.meta.key(), Some(&collector))
    };
    let pods =
        Destination::Pods { namespace: "team".to_owned(), labels: [("app".to_owned(), "web".to_owned())].into() };
    assert_eq!(to("web.team.svc.cluster.local", 80), [(pods, [8080].into())].into());
    let address = Destination::Address("10.6.6.6".parse().unwrap());
    assert_eq!(to("10.6.6.6", 4317), [(address, [4317].into())].into());
    assert_eq!(to("otel.example.com", 4317), [(Destination::Outside, [4317].into())].into());
}

#[test]
fn no_service_has_the_port_of_metrics_and_probes() {
    let more = "{name: more, port: 80,";
    let with_probes = GATEWAY.replace(more, "{name: probes, port: 15021,");
    let all = wanted_of(Given::yaml(&with_probes), &settings());
    let ports = &of(&all, FleetKind::Service)["spec"]["ports"];
    let numbers: Vec<&Value> = ports.as_array().unwrap().iter().map(|port| &port["port"]).collect();
    assert_eq!(numbers, [80]);
    // A Service without ports is none.
    let all = wanted_of(Given::yaml(&with_probes.replace("port: 80", "port: 15021")), &settings());
    assert!(all.iter().all(|one| one.kind != FleetKind::Service));
}

#[test]
fn a_policy_goes_with_proxies_where_it_is_asked_for() {
    let outside = wanted_of(Given::yaml(GATEWAY), &settings());
    assert!(outside.iter().all(|one| one.kind != FleetKind::NetworkPolicy));
    let policies = Policies::PerGateway { namespace: "tollgate-system".to_owned(), collector: None };
    let policed = Settings { policies, ..settings() };
    let all = wanted_of(Given::yaml(GATEWAY), &policed);
    let place = |kind| all.iter().position(|one| one.kind == kind).unwrap();
    assert!(place(FleetKind::NetworkPolicy) < place(FleetKind::Deployment), "no Pod begins without it");
    let spec = &of(&all, FleetKind::NetworkPolicy)["spec"];
    assert_eq!(spec["podSelector"], of(&all, FleetKind::Deployment)["spec"]["selector"]);
    let ports = |rules: &Value| -> Vec<Value> {
        rules.as_array().unwrap().iter().map(|rule| rule["ports"][0]["port"].clone()).collect()
    };
    assert_eq!(ports(&spec["ingress"]), [15021, 80]);
    let closed = policy::spec(&Map::new(), &BTreeSet::new(), &Egress::new(), &policed, "n");
    assert_eq!(ports(&closed["ingress"]), [15021], "and not all ports");
    assert_eq!(ports(&spec["egress"]), [18000, 53]);
    let control_plane = &spec["egress"][0]["to"][0];
    let namespace = &control_plane["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"];
    assert_eq!(namespace, "tollgate-system");
}
