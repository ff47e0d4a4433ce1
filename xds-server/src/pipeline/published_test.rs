//! A stream that looks only at what is said to have changed misses nothing, whichever publications it has seen.

use std::collections::BTreeMap;
use std::sync::Arc;

use tollgate_core::envoy::{FilterCode, FilterSetup, Ports, RouteTables, Signals, Surroundings};
use tollgate_core::ledger::{Configured, Thing};
use tollgate_core::mesh::Mesh;
use tollgate_core::objects::{Changes, Key, NoSecretSource, Objects};
use tollgate_core::placement::{Direction, Placement, Setting, Sidecars};
use tollgate_core::scope::Scope;
use tollgate_core::snapshot::{Changed, ResourceType, Snapshot};
use tollgate_core::subscription::stream::Since;

use super::{Published, Publisher, locked};
use crate::identity::Identity;

/// Gateways that serve different keys: `own`, `labelled`, `all`, and `anonymous`, which serves none.
const CASE: &str = include_str!("../../../tests/cases/consumers/scoped.yaml");

fn publisher() -> Publisher {
    publisher_of(Placement::OneHost.into())
}

fn publisher_of(setting: Setting) -> Publisher {
    Publisher::new(
        setting,
        Surroundings {
            route_tables: RouteTables::default(),
            bind: "127.0.0.1".to_owned(),
            ports: Ports::Shared,
            filter: FilterSetup::of_gateways(FilterCode::File("filter.wasm".to_owned())),
            signals: Signals::default(),
        },
    )
}

/// Publishes the texts one after the other.
fn published(texts: &[String]) -> Vec<Arc<Published>> {
    let publisher = publisher();
    let mut before = Objects::default();
    let publications = texts.iter().map(|text| {
        let mut objects = Objects::default();
        objects.add_yaml("case", text, &NoSecretSource);
        publisher.publish(Changes::between(&before, &objects), Vec::new());
        before = objects;
        Arc::clone(&publisher.published().borrow())
    });
    publications.collect()
}

fn identity(gateway: &str) -> Identity {
    Identity::of_gateway("default", gateway)
}

fn changed(from: &str, to: &str) -> String {
    assert!(CASE.contains(from), "{from}");
    CASE.replace(from, to)
}

/// What the streams of a Gateway look at, from one publication to the next.
fn news(published: &[Arc<Published>], gateway: &str) -> Vec<(ResourceType, String)> {
    match published[1].of(&identity(gateway)).since(published[0].generation) {
        Since::Names(changed) => changed.iter().map(|(kind, name)| (kind, name.to_string())).collect(),
        Since::Unknown => panic!("everything is looked at"),
    }
}

/// Checks the news of every pair of publications, for every stream.
fn nothing_is_missed(texts: &[String], gateways: &[&str]) {
    let published = published(texts);
    for identity in gateways.iter().map(|name| identity(name)).chain([Identity::AllGateways]) {
        let snapshots: Vec<Arc<Snapshot>> =
            published.iter().map(|published| Arc::clone(&published.of(&identity).snapshot)).collect();
        for (seen, before) in published.iter().enumerate() {
            for (next, after) in published.iter().enumerate().skip(seen) {
                let stayed = published[seen..=next].iter().all(|published| published.knows(&identity));
                let expected = Changed::between(&snapshots[seen], &snapshots[next]);
                match after.of(&identity).since(before.generation) {
                    Since::Names(told) if next == seen + 1 => assert_eq!(told, expected, "{identity} {seen}"),
                    Since::Names(told) => {
                        let mut more = told.clone();
                        more.merge(&expected);
                        assert_eq!(told, more, "{identity} {seen} {next}: something is missing");
                    }
                    Since::Unknown => assert!(!stayed, "{identity} {seen} {next}: it was there all the time"),
                }
            }
        }
    }
}

/// The only Gateway, and one of two, and none.
#[test]
fn who_serves_all_gateways_is_told_of_those_that_come_and_go() {
    let of = |names: &[(&str, u16)]| -> String {
        let gateway = |(name, port): &(&str, u16)| {
            format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}}}\nspec: {{gatewayClassName: tollgate, listeners: [{{name: http, port: {port}, protocol: HTTP}}]}}\n---\n"
            )
        };
        names.iter().map(gateway).collect()
    };
    let (a, b, both) = (of(&[("a", 81)]), of(&[("b", 82)]), of(&[("a", 81), ("b", 82)]));
    let moved = of(&[("a", 83)]);
    let names = ["a", "b"];
    nothing_is_missed(&[a.clone(), moved.clone(), a.clone(), both.clone(), a.clone(), moved], &names);
    nothing_is_missed(&[String::new(), a.clone(), b.clone(), both, b, String::new(), a.clone(), a], &names);
}

#[test]
fn whichever_publications_a_stream_has_seen_it_is_told_all_that_changed() {
    let without_own = CASE.replacen("metadata: {name: own}", "metadata: {name: owned}", 1);
    assert_ne!(without_own, CASE);
    let texts = [
        CASE.to_owned(),
        changed("4bb80d", "6bb80d"),
        changed("tollgate: \"yes\"", "tollgate: \"no\""),
        CASE.to_owned(),
        without_own,
        changed("port: 8084", "port: 9999"),
        String::new(),
        CASE.to_owned(),
        CASE.to_owned(),
    ];
    nothing_is_missed(&texts, &["own", "owned", "labelled", "all", "anonymous"]);
}

#[test]
fn what_is_not_of_a_gateway_is_no_news_for_it() {
    let key = "4bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let other = key.replace("4bb8", "6bb8");
    let published = published(&[CASE.to_owned(), changed(key, &other)]);
    assert_eq!(["own", "labelled", "anonymous"].map(|gateway| news(&published, gateway)), [vec![], vec![], vec![]]);
    assert_eq!(news(&published, "all"), [(ResourceType::ApiKey, key.to_owned()), (ResourceType::ApiKey, other)]);
}

#[test]
fn keys_are_held_once_and_stay_the_same() {
    let published = published(&[CASE.to_owned(), changed("port: 8084", "port: 9999")]);
    let key = "3bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let of = |published: &Published, gateway: &str| {
        published.of(&identity(gateway)).snapshot.shared(ResourceType::ApiKey, key).cloned().unwrap()
    };
    let first = of(&published[0], "all");
    assert!(Arc::ptr_eq(&first, &of(&published[0], "labelled")));
    assert!(Arc::ptr_eq(&first, &of(&published[1], "all")));
}

/// What the ledger is told of changes is what it is told of everything at once.
#[test]
fn the_ledger_knows_who_is_served_after_each_change() {
    let changed = |changes: &[(&str, &str)]| {
        changes.iter().fold(CASE.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        })
    };
    let texts = [
        CASE.to_owned(),
        // The only key of a Consumer is another one, is gone, and comes back with its Consumer.
        changed(&[("4bb80d", "6bb80d")]),
        changed(&[("4bb80d", "xxx")]),
        CASE.to_owned(),
        // Two Consumers claim one key, so neither has it.
        changed(&[("4bb80d", "3bb80d")]),
        // Other Consumers count.
        changed(&[("tollgate: \"yes\"", "tollgate: \"no\"")]),
        // A backend speaks something else, and comes back.
        changed(&[("schema: OpenAI", "schema: Anthropic")]),
        CASE.to_owned(),
        changed(&[("kind: HTTPRoute", "kind: GRPCRoute")]),
        changed(&[("metadata: {name: own}", "metadata: {name: owned}")]),
        CASE.to_owned(),
    ];
    let publisher = publisher();
    let told = publisher.for_ledger();
    let mut before = Objects::default();
    for text in texts {
        let mut objects = Objects::default();
        objects.add_yaml("case", &text, &NoSecretSource);
        publisher.publish(Changes::between(&before, &objects), Vec::new());
        let anew = self::publisher();
        anew.publish(Changes::between(&Objects::default(), &objects), Vec::new());
        assert_eq!(*told.borrow(), *anew.for_ledger().borrow(), "{text}");
        before = objects;
    }
}

/// Two workloads in namespaces of their own, each with a Consumer there, and a Gateway.
const WORKLOADS: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: llm}
spec: {gatewayClassName: tollgate, listeners: [{name: http, port: 81, protocol: HTTP}]}
---
apiVersion: v1
kind: Service
metadata: {name: runner, namespace: one}
spec: {selector: {app: runner}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: runner, namespace: two}
spec: {selector: {app: runner}, ports: [{port: 80}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: TokenPolicy
metadata: {name: daily, namespace: one}
spec: {targetRefs: [{kind: Service, name: runner}], limits: [{name: day, tokens: 1000, window: 1d}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: TokenPolicy
metadata: {name: daily, namespace: two}
spec: {targetRefs: [{kind: Service, name: runner}], limits: [{name: day, tokens: 1000, window: 1d}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: Consumer
metadata: {name: app, namespace: one}
spec: {keys: [{sha256: 1bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: Consumer
metadata: {name: app, namespace: two}
spec: {keys: [{sha256: 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b}]}
";

fn workload(namespace: &str) -> Identity {
    Identity::Of(Scope::Workload { service: Key::new(namespace, "runner"), direction: Direction::Inbound })
}

/// What is published, and what the ledger is told, after each text.
fn with_workloads(texts: &[&str]) -> Vec<(Arc<Published>, Arc<Configured>)> {
    let publisher = publisher_of(Setting { sidecars: Sidecars::Both, ..Placement::OneHost.into() });
    let mut before = Objects::default();
    let publications = texts.iter().map(|text| {
        let mut objects = Objects::default();
        objects.add_yaml("case", text, &NoSecretSource);
        publisher.publish(Changes::between(&before, &objects), Vec::new());
        before = objects;
        (Arc::clone(&publisher.published().borrow()), Arc::clone(&publisher.for_ledger().borrow()))
    });
    publications.collect()
}

#[test]
fn a_workload_has_the_keys_of_its_consumers_and_nothing_else() {
    let other_key = WORKLOADS.replace("1bb80d", "3bb80d");
    let other_policy = WORKLOADS.replacen("name: runner}], limits", "name: absent}], limits", 1);
    assert!(other_key != WORKLOADS && other_policy != WORKLOADS);
    let published = with_workloads(&[WORKLOADS, &other_key, &other_policy, WORKLOADS]);
    let of = |at: usize, namespace: &str| published[at].0.of(&workload(namespace));
    let has = |at: usize, namespace: &str| -> Vec<(ResourceType, String)> {
        let edition = of(at, namespace);
        let all = ResourceType::ALL.into_iter();
        let named = all.flat_map(|kind| edition.snapshot.of(kind).map(move |(name, _)| (kind, name[..2].to_owned())));
        named.collect()
    };
    let key = |start: &str| vec![(ResourceType::ApiKey, start.to_owned())];
    assert_eq!((has(0, "one"), has(0, "two")), (key("1b"), key("2b")));
    assert_eq!((has(1, "one"), has(1, "two")), (key("3b"), key("2b")));
    assert_eq!((has(2, "one"), has(2, "two")), (vec![], key("2b")));
    assert_eq!((has(3, "one"), has(3, "two")), (key("1b"), key("2b")));
    let knows = |at: usize| published[at].0.knows(&workload("one"));
    assert_eq!([0, 1, 2, 3].map(knows), [true, true, false, true]);
    // What is of one of them is no news for the other one.
    let nothing = Since::Names(Changed::default());
    assert_eq!(of(1, "two").since(published[0].0.generation), nothing);
    assert_ne!(of(1, "one").since(published[0].0.generation), nothing);
    // Who followed before it was gone compares all.
    assert_eq!(of(2, "one").since(published[1].0.generation), Since::Unknown);
    assert_eq!(of(3, "one").since(published[2].0.generation), Since::Unknown);

    let outbound = Scope::Workload { service: Key::new("one", "runner"), direction: Direction::Outbound };
    assert!(!published[0].0.knows(&Identity::Of(outbound)));
    assert!(!published[0].0.knows(&Identity::of_gateway("one", "runner")));
}

#[test]
fn a_workload_is_no_gateway() {
    let (published, _) = &with_workloads(&[WORKLOADS])[0];
    assert_eq!(published.gateways.keys().collect::<Vec<_>>(), ["default/llm"]);
    assert_eq!(published.gateways_of(&workload("one")).count(), 0);
    assert!(published.snapshots_of(&workload("one")).is_empty());
    let all = published.of(&Identity::AllGateways);
    assert_eq!(all.snapshot.of(ResourceType::ApiKey).count(), 0);
}

/// And what it is told of changes is what it is told of everything at once.
#[test]
fn the_ledger_knows_what_a_workload_serves() {
    let texts = [
        WORKLOADS.to_owned(),
        WORKLOADS.replace("1bb80d", "xxx"),
        WORKLOADS.replacen("name: runner}], limits", "name: absent}], limits", 1),
        WORKLOADS.replace("tokens: 1000", "tokens: 7"),
        WORKLOADS.to_owned(),
    ];
    let all = with_workloads(&texts.each_ref().map(String::as_str));
    for (text, (_, told)) in texts.iter().zip(&all) {
        assert_eq!(**told, *with_workloads(&[text])[0].1, "{text}");
    }
    let serves = |at: usize, things: &[Thing]| -> Vec<bool> {
        let served = all[at].1.served.get("spiffe://tollgate/workload/one/runner/inbound");
        let has = |thing: &Thing| served.is_some_and(|served| served.iter().any(|things| things.contains(thing)));
        things.iter().map(has).collect()
    };
    let own = [Thing::limit("one/daily/day"), Thing::route("service/one/runner"), Thing::consumer("one/app")];
    let foreign = [Thing::limit("two/daily/day"), Thing::route("service/two/runner"), Thing::consumer("two/nobody")];
    assert_eq!((serves(0, &own), serves(0, &foreign)), (vec![true; 3], vec![false; 3]));
    assert_eq!(serves(0, &[Thing::consumer("two/app")]), [true], "a Gateway may hand over a request of it");
    assert_eq!(serves(1, &own), [true, true, false]);
    assert_eq!(serves(2, &own), [false; 3]);
    let gateways = &all[0].1.served["spiffe://tollgate/gateway"];
    assert!(own.iter().all(|thing| !gateways.iter().any(|things| things.contains(thing))));
}

/// Whoever looks at what is published keeps the next publication waiting, and it must not wait for that one in turn.
#[test]
fn whoever_looks_may_ask_what_it_was_made_from() {
    let publisher = publisher();
    let mut objects = Objects::default();
    objects.add_yaml("case", CASE, &NoSecretSource);
    let published = publisher.published();
    let (asked, answers) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for _ in 0..2_000 {
            let now = published.borrow();
            asked.send(now.own_gateways().len()).unwrap();
        }
    });
    let empty = Objects::default();
    for _ in 0..100 {
        publisher.publish(Changes::between(&empty, &objects), Vec::new());
        publisher.publish(Changes::between(&objects, &empty), Vec::new());
    }
    let patience = std::time::Duration::from_secs(120);
    for _ in 0..2_000 {
        answers.recv_timeout(patience).expect("both wait for each other");
    }
}

/// A Gateway that leads to a runner in its namespace, and to one of another namespace, which permits it.
const LEADING: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: llm, namespace: two}
spec: {gatewayClassName: tollgate, listeners: [{name: http, port: 8080, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: chat, namespace: two}
spec: {parentRefs: [{name: llm}], rules: [{backendRefs: [{group: tollgate.dev, kind: ModelPool, name: chat}]}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelPool
metadata: {name: chat, namespace: two}
spec: {models: [{name: m, targets: [{backendRef: {name: runner}}]}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelBackend
metadata: {name: runner, namespace: two}
spec: {schema: OpenAI, endpoint: {service: {name: runner, namespace: one, port: 80}}}
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: two, namespace: one}
spec: {from: [{group: tollgate.dev, kind: ModelBackend, namespace: two}], to: [{group: '', kind: Service}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: runner-1, namespace: one, labels: {kubernetes.io/service-name: runner}}
addressType: IPv4
ports: [{port: 80}]
endpoints: [{addresses: [10.1.0.7], targetRef: {kind: Pod, name: runner-1}}]
---
apiVersion: v1
kind: Pod
metadata: {name: runner-1, namespace: one, labels: {app: runner, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: runner}
";

#[test]
fn sidecars_believe_the_proxies_of_the_gateways_that_lead_to_them() {
    let mesh = Mesh {
        trust_domain: "td.example".to_owned(),
        aliases: vec!["old.example".to_owned()],
        cluster_domain: "cluster.local".to_owned(),
        certificates: "/mesh".to_owned(),
    };
    let believed = |placement: Placement, text: &str| {
        let setting =
            Setting { mesh: Some(Arc::new(mesh.clone())), sidecars: Sidecars::Both, ..placement.clone().into() };
        let publisher = publisher_of(setting);
        let mut objects = Objects::default();
        objects.add_yaml("case", text, &NoSecretSource);
        publisher.publish(Changes::between(&Objects::default(), &objects), Vec::new());
        let published = Arc::clone(&publisher.published().borrow());
        super::istio::believed(&locked(&published.world), &placement)
    };
    let text = format!("{WORKLOADS}---{LEADING}");
    let of = |account: &str| {
        let domains = ["old.example", "td.example"];
        let identities = domains.map(|domain| format!("spiffe://{domain}/ns/{account}"));
        BTreeMap::from([(Key::new("one", "runner"), identities.into())])
    };
    assert_eq!(believed(Placement::ProxyPerGateway, &text), of("two/sa/llm-tollgate"));
    let fleet = Placement::OneFleet(Key::new("tollgate-system", "proxies"));
    assert_eq!(believed(fleet, &text), of("tollgate-system/sa/proxies"));
    assert_eq!(believed(Placement::OneHost, &text), BTreeMap::new(), "nobody knows who runs it");
    // Without the permission nothing leads there.
    let forbidden = text.replace("kind: ModelBackend, namespace: two}]", "kind: ModelBackend, namespace: three}]");
    assert!(forbidden != text);
    assert_eq!(believed(Placement::ProxyPerGateway, &forbidden), BTreeMap::new());
}
