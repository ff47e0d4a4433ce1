//! A stream that looks only at what is said to have changed misses nothing, whichever publications it has seen.

use std::sync::Arc;

use tollgate_core::envoy::{FilterCode, FilterSetup, Ports, RouteTables, Surroundings};
use tollgate_core::objects::{Changes, NoSecretSource, Objects};
use tollgate_core::placement::Placement;
use tollgate_core::snapshot::{Changed, ResourceType, Snapshot};
use tollgate_core::subscription::stream::Since;

use super::{Published, Publisher};
use crate::identity::Identity;

/// Gateways that serve different keys: `own`, `labelled`, `all`, and `anonymous`, which serves none.
const CASE: &str = include_str!("../../../tests/cases/consumers/scoped.yaml");

fn publisher() -> Publisher {
    Publisher::new(
        Placement::OneHost,
        Surroundings {
            route_tables: RouteTables::default(),
            bind: "127.0.0.1".to_owned(),
            ports: Ports::Shared,
            filter: FilterSetup::of_gateways(FilterCode::File("filter.wasm".to_owned())),
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
    let patience = std::time::Duration::from_secs(60);
    for _ in 0..2_000 {
        answers.recv_timeout(patience).expect("both wait for each other");
    }
}
