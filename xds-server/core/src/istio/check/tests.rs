use serde_json::{Value, json};

use super::*;
use crate::istio::Policies;
use crate::terms::Key;

/// A mesh in which all is well.
fn well() -> Found {
    let policies = Policies {
        trust_domain: "td".to_owned(),
        gateways: vec![Key::new("edge", "llm-tollgate")],
        runners: vec!["models".to_owned()],
        callers: vec!["shop".to_owned()],
    };
    Found {
        has_istio: true,
        injectors: vec!["istio-sidecar-injector".to_owned()],
        trust_domain: "td".to_owned(),
        gateways: vec![FoundGateway {
            key: Key::new("edge", "llm"),
            account: Key::new("edge", "llm-tollgate"),
            has_members: true,
            pods: vec![FoundPod {
                name: "llm-1".to_owned(),
                asks: true,
                templates: Some("grpc-agent".to_owned()),
                has_agent: true,
                revision: Some("default".to_owned()),
                agent: Version::of_tag("1.31.1"),
                proxy: Version::of_tag("0.1.0"),
                ..FoundPod::default()
            }],
            services: vec![FoundService {
                name: "Service models/runner".to_owned(),
                namespace: "models".to_owned(),
                endpoints: 2,
                members: 2,
            }],
        }],
        objects: policies.documents(),
        ambient: BTreeSet::new(),
        istiods: vec![control_plane("istio-system/istiod", "1.31.1", Some("default"))],
        control_planes: vec![control_plane("tollgate-system/tollgate", "0.1.0", None)],
        version: Version::of_tag("0.1.0"),
        workloads: vec![Key::new("models", "runner")],
        filters: vec![FoundFilter {
            key: Key::new("models", "tollgate-inbound-runner"),
            is_ours: true,
            pods: vec![sidecar("runner-1"), sidecar("runner-2")],
        }],
    }
}

fn control_plane(name: &str, tag: &str, revision: Option<&str>) -> FoundControlPlane {
    let revision = revision.map(str::to_owned);
    FoundControlPlane { name: name.to_owned(), revision, version: Version::of_tag(tag) }
}

fn sidecar(name: &str) -> FoundPod {
    let agent = Version::of_tag("1.30.0");
    FoundPod {
        name: name.to_owned(),
        has_agent: true,
        revision: Some("default".to_owned()),
        agent,
        ..FoundPod::default()
    }
}

/// What is said after a change.
fn said(change: impl FnOnce(&mut Found)) -> Vec<String> {
    let mut found = well();
    change(&mut found);
    check(&found).iter().map(ToString::to_string).collect()
}

fn object(kind: &str, namespace: &str, spec: &Value) -> Value {
    json!({"kind": kind, "metadata": {"namespace": namespace, "name": "own"}, "spec": spec})
}

/// One remark, which begins with this.
#[track_caller]
fn one(change: impl FnOnce(&mut Found), begin: &str) {
    let said = said(change);
    assert!(said.len() == 1 && said[0].starts_with(begin), "{said:#?}");
}

#[test]
fn with_our_policies_all_is_well() {
    assert_eq!(said(|_| {}), [""; 0]);
}

#[test]
fn istio_is_there_and_injects() {
    one(|found| found.has_istio = false, "error: cluster: the API server does not know");
    one(|found| found.injectors.clear(), "error: cluster: no MutatingWebhookConfiguration");
}

#[test]
fn proxies_have_the_agent_and_the_agent_alone() {
    fn pod(found: &mut Found) -> &mut FoundPod {
        &mut found.gateways[0].pods[0]
    }
    one(|found| found.gateways[0].pods.clear(), "warning: Gateway edge/llm: it has no Pod");
    one(|found| pod(found).asks = false, "error: Gateway edge/llm: Pod llm-1 does not ask");
    one(|found| pod(found).has_agent = false, "error: Gateway edge/llm: Pod llm-1 asks for Istio's agent and has none");
    for templates in [None, Some("sidecar".to_owned())] {
        one(
            |found| pod(found).templates = templates,
            "error: Gateway edge/llm: Pod llm-1 does not ask for the agent alone",
        );
    }
}

#[test]
fn who_is_reached_in_plain_text_is_told() {
    let service = |endpoints, members| {
        move |found: &mut Found| {
            let service = &mut found.gateways[0].services[0];
            (service.endpoints, service.members) = (endpoints, members);
        }
    };
    one(service(2, 1), "warning: Service models/runner: 1 of 2 endpoints are in the mesh");
    one(service(2, 0), "warning: Service models/runner: none of its endpoints is in the mesh");
    assert_eq!(said(service(0, 0)), [""; 0], "there is nobody");
}

#[test]
fn the_mode_is_that_of_the_namespace_or_of_all() {
    let mode = |namespace: &'static str, mode: &'static str, selector: Value| {
        move |found: &mut Found| {
            found.objects.retain(|object| object["kind"] != "PeerAuthentication");
            let spec = json!({"mtls": {"mode": mode}, "selector": selector});
            found.objects.push(object("PeerAuthentication", namespace, &spec));
        }
    };
    let permissive = "warning: namespace models: its Pods take plain text";
    let all = || json!({});
    for namespace in ["models", "istio-system"] {
        assert_eq!(said(mode(namespace, "STRICT", all())), [""; 0]);
        one(mode(namespace, "PERMISSIVE", all()), permissive);
        one(mode(namespace, "DISABLE", all()), "error: namespace models: its PeerAuthentication is DISABLE");
    }
    one(mode("elsewhere", "STRICT", all()), permissive);
    one(mode("models", "UNSET", all()), permissive);
    one(mode("models", "STRICT", json!({"matchLabels": {"app": "one"}})), permissive);
    let both = |found: &mut Found| {
        mode("models", "STRICT", all())(found);
        found.objects.push(object("PeerAuthentication", "istio-system", &json!({"mtls": {"mode": "DISABLE"}})));
    };
    assert_eq!(said(both), [""; 0], "the nearer one counts");
}

#[test]
fn some_policy_lets_each_gateway_in() {
    let rules = |namespace: &'static str, spec: Value| {
        move |found: &mut Found| {
            found.objects.retain(|object| object["metadata"]["name"] != "tollgate-gateways");
            found.objects.push(object("AuthorizationPolicy", namespace, &spec));
        }
    };
    let from = |source: Value| json!({"rules": [{"from": [{"source": source}]}]});
    let nobody = "error: namespace models: no AuthorizationPolicy lets Gateway edge/llm in, and tollgate-deny leaves";
    for source in [
        json!({"principals": ["td/ns/edge/sa/llm-tollgate"]}),
        json!({"principals": ["other", "td/ns/edge/*"]}),
        json!({"principals": ["*/sa/llm-tollgate"]}),
        json!({"principals": ["*"], "notPrincipals": ["td/ns/edge/sa/other"]}),
        json!({"namespaces": ["edge"]}),
        json!({"ipBlocks": ["10.0.0.0/8"]}),
        json!({}),
    ] {
        assert_eq!(said(rules("models", from(source.clone()))), [""; 0], "{source}");
    }
    for source in [
        json!({"principals": ["td/ns/edge/sa/llm"]}),
        json!({"principals": ["other/ns/edge/sa/llm-tollgate"]}),
        json!({"principals": ["*"], "notPrincipals": ["td/ns/edge/*"]}),
        json!({"namespaces": ["shop"]}),
        json!({"namespaces": ["edge"], "principals": ["td/ns/edge/sa/other"]}),
    ] {
        one(rules("models", from(source)), nobody);
    }
    assert_eq!(said(rules("models", json!({"rules": [{}]}))), [""; 0]);
    assert_eq!(said(rules("istio-system", json!({"action": "ALLOW", "rules": [{"to": []}]}))), [""; 0]);
    one(rules("elsewhere", json!({"rules": [{}]})), nobody);
    one(rules("models", json!({"action": "AUDIT", "rules": [{}]})), nobody);
    let denies = "error: namespace models: AuthorizationPolicy own denies everything";
    one(rules("models", json!({"action": "DENY", "rules": [{}]})), denies);
    one(rules("models", json!({"action": "DENY", "rules": [{"to": [{}]}]})), nobody);
    let of_some = json!({"action": "DENY", "rules": [{}], "selector": {"matchLabels": {"app": "a"}}});
    one(rules("models", of_some), nobody);
    // Without any policy everybody is let in.
    let none = |found: &mut Found| found.objects.retain(|object| object["kind"] != "AuthorizationPolicy");
    assert_eq!(said(none), [""; 0]);
    // Where nobody is in the mesh, no policy acts.
    one(
        |found| {
            rules("models", json!({}))(found);
            found.gateways[0].services[0].members = 0;
        },
        "warning: Service models/runner: none",
    );
}

#[test]
fn a_gateway_that_leads_elsewhere_needs_no_policy() {
    let other = |leads: bool| {
        move |found: &mut Found| {
            let (key, account) = (Key::new("edge", "other"), Key::new("edge", "other-tollgate"));
            let services = if leads { found.gateways[0].services.clone() } else { Vec::new() };
            found.gateways.push(FoundGateway { key, account, has_members: false, pods: Vec::new(), services });
        }
    };
    one(other(false), "warning: Gateway edge/other: it has no Pod");
    let said = said(other(true));
    assert!(said.len() == 2 && said[1].contains("no AuthorizationPolicy lets Gateway edge/other in"), "{said:#?}");
}

#[test]
fn callers_see_the_gateways_that_take_them() {
    let hosts = |hosts: &'static [&'static str]| {
        move |found: &mut Found| {
            found.objects.retain(|object| object["kind"] != "Sidecar");
            found.objects.push(object("Sidecar", "shop", &json!({"egress": [{"hosts": hosts}]})));
        }
    };
    for seen in [&["*/*"][..], &["edge/*"], &["./*", "edge/llm-tollgate.edge.svc.cluster.local"]] {
        assert_eq!(said(hosts(seen)), [""; 0], "{seen:?}");
    }
    for unseen in [&["./*"][..], &["~/*"], &["istio-system/*", "edges/*"], &["edge"]] {
        one(hosts(unseen), "warning: Sidecar shop/own: the workloads that it is for do not see Gateway edge/llm");
    }
    let same =
        |found: &mut Found| found.objects.push(object("Sidecar", "edge", &json!({"egress": [{"hosts": ["./*"]}]})));
    assert_eq!(said(same), [""; 0]);
    let silent = |found: &mut Found| found.objects.push(object("Sidecar", "shop", &json!({"ingress": []})));
    assert_eq!(said(silent), [""; 0]);
    let no_members = |found: &mut Found| {
        hosts(&["./*"])(found);
        found.gateways[0].has_members = false;
    };
    assert_eq!(said(no_members), [""; 0], "nobody calls it by the mesh");
}

#[test]
fn a_service_with_a_policy_has_our_filter_in_all_of_its_sidecars() {
    fn pods(found: &mut Found) -> &mut Vec<FoundPod> {
        &mut found.filters[0].pods
    }
    let gone =
        "error: Service models/runner: a TokenPolicy names it, and there is no EnvoyFilter tollgate-inbound-runner";
    one(|found| found.filters.clear(), gone);
    one(|found| found.filters[0].key = Key::new("other", "tollgate-inbound-runner"), gone);
    let theirs =
        "error: Service models/runner: a TokenPolicy names it, and the EnvoyFilter tollgate-inbound-runner is not";
    one(|found| found.filters[0].is_ours = false, theirs);
    let of_filter = |rest: &str| {
        format!(
            "{}: EnvoyFilter models/tollgate-inbound-runner: {}",
            if rest.starts_with("it ") { "warning" } else { "error" },
            rest
        )
    };
    one(|found| pods(found).clear(), &of_filter("it selects no Pod"));
    let outside = "1 of 2 Pods have no sidecar, so nobody is held to the policy there: runner-1 (";
    one(|found| pods(found)[0].has_agent = false, &of_filter(outside));
    let agent_alone = |found: &mut Found| pods(found)[1].templates = Some("grpc-agent".to_owned());
    one(agent_alone, &of_filter("1 of 2 Pods have Istio's agent without its Envoy"));
    let ambient = |found: &mut Found| {
        for pod in pods(found) {
            (pod.has_agent, pod.is_ambient) = (false, true);
        }
    };
    one(ambient, &of_filter("2 of 2 Pods are in ambient mode"));
    let many = |found: &mut Found| {
        *pods(found) = (1..=5).map(|number| FoundPod { has_agent: false, ..sidecar(&format!("a-{number}")) }).collect();
    };
    one(many, &of_filter("5 of 5 Pods have no sidecar, so nobody is held to the policy there: a-1, a-2, a-3, ... ("));
    assert_eq!(said(|found| found.workloads.clear()), [""; 0], "no policy names it");
}

#[test]
fn versions_go_together() {
    fn agent(version: &str, revision: Option<&str>) -> impl FnOnce(&mut Found) {
        move |found| {
            let pod = &mut found.gateways[0].pods[0];
            (pod.agent, pod.revision) = (Version::of_tag(version), revision.map(str::to_owned));
        }
    }
    for version in ["1.29.0", "1.31.9", "dev"] {
        assert_eq!(said(agent(version, Some("default"))), [""; 0], "{version}");
    }
    let begin = "warning: Gateway edge/llm: Pod llm-1 has Istio's agent";
    for (version, told) in [
        ("1.28.5", "1.28.5, which is more than two minor versions behind: istio-system/istiod is 1.31.1"),
        ("0.99.0", "0.99.0, which is more than two"),
        ("1.32-alpha.0", "1.32.0, which is newer: istio-system/istiod is 1.31.1"),
        ("2.0.0", "2.0.0, which is newer"),
    ] {
        for revision in [Some("default"), None] {
            one(agent(version, revision), &format!("{begin} {told}"));
        }
    }
    let other = "warning: Gateway edge/llm: Pod llm-1 has an agent of Istio's revision old, and no istiod is of it";
    one(agent("1.20.0", Some("old")), other);
    let upgrading = |found: &mut Found| {
        agent("1.20.0", Some("old"))(found);
        found.istiods.push(control_plane("istio-system/istiod-old", "1.20.1", Some("old")));
    };
    assert_eq!(said(upgrading), [""; 0], "each revision has its own");
    let elsewhere = |found: &mut Found| {
        agent("1.20.0", Some("old"))(found);
        found.istiods.clear();
    };
    assert_eq!(said(elsewhere), [""; 0], "istiod is not in this cluster");
    let of_sidecar = |found: &mut Found| found.filters[0].pods[1].agent = Version::of_tag("1.20.0");
    one(of_sidecar, "warning: EnvoyFilter models/tollgate-inbound-runner: Pod runner-2 has Istio's agent 1.20.0");

    let of_command =
        "warning: control plane tollgate-system/tollgate: it is of version 0.1.0, and this command is of 0.2.0";
    one(|found| found.version = Version::of_tag("0.2.0"), of_command);
    let of_proxy = "warning: Gateway edge/llm: Pod llm-1 is a proxy of version 0.0.9, and the control plane is 0.1.0";
    let old = |found: &mut Found| found.gateways[0].pods[0].proxy = Version::of_tag("0.0.9");
    one(old, of_proxy);
    for tag in ["main", "0.0.9"] {
        let known = |found: &mut Found| {
            old(found);
            found.control_planes.push(control_plane("b/tollgate", tag, None));
        };
        let said = said(known).into_iter().filter(|line| line.contains("Gateway")).count();
        assert_eq!(said, 0, "{tag}: it may be that one's");
    }
}

#[test]
fn ambient_mode_is_told_from_being_outside() {
    for (namespace, pod, has_agent, expected) in [
        (Some("ambient"), None, false, true),
        (None, Some("ambient"), false, true),
        (Some("ambient"), Some("none"), false, false),
        (Some("ambient"), None, true, false),
        (Some("none"), None, false, false),
        (None, None, false, false),
    ] {
        assert_eq!(is_ambient(namespace, pod, has_agent), expected, "{namespace:?} {pod:?} {has_agent}");
    }
    /// The Gateway without an agent of Istio, its Pod taken by ztunnel.
    fn gateway(found: &mut Found) {
        let pod = &mut found.gateways[0].pods[0];
        (pod.asks, pod.has_agent, pod.is_ambient, pod.agent) = (false, false, true, None);
    }
    one(gateway, "error: Gateway edge/llm: Pod llm-1 is in ambient mode and has no certificate, which its listener");
    let plain = |found: &mut Found| {
        gateway(found);
        found.gateways[0].has_members = false;
    };
    one(plain, "warning: Gateway edge/llm: Pod llm-1 is in ambient mode: its connections are encrypted");
    fn runners(found: &mut Found) {
        found.ambient.insert("models".to_owned());
        found.gateways[0].services[0].members = 0;
    }
    let spoken =
        "Service models/runner: its namespace is in ambient mode, and Gateway edge/llm speaks plain text to its Pods";
    one(runners, &format!("error: {spoken}, which ztunnel refuses because PeerAuthentication is STRICT ("));
    let permissive = |found: &mut Found| {
        runners(found);
        found.objects.retain(|object| object["kind"] != "PeerAuthentication");
    };
    one(permissive, &format!("warning: {spoken} ("));
    let both = |found: &mut Found| {
        runners(found);
        plain(found);
    };
    one(both, "warning: Gateway edge/llm: Pod llm-1 is in ambient mode");
}
