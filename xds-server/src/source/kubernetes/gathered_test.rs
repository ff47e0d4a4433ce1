//! What watches tell, in whatever order, and what is read out then.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use tollgate_core::objects::{Key, Needed};

use super::gathered::{Asks, Gathered};
use super::got::Got;
use super::kinds::watched;
use super::trouble::{Cause, Trouble, Verb};
use super::watch::{Seen, Told};

/// A cluster whose watches are told what to tell.
struct Cluster {
    gathered: Gathered,
    start: Instant,
    namespaces: Vec<String>,
}

impl Cluster {
    fn new(namespaces: &[&str]) -> Self {
        let namespaces: Vec<String> = namespaces.iter().map(|name| (*name).to_owned()).collect();
        Self { gathered: Gathered::new(watched(&namespaces)), start: Instant::now(), namespaces }
    }

    fn watch(&self, kind: &str) -> usize {
        watched(&self.namespaces).iter().position(|watched| watched.kind == kind).unwrap()
    }

    fn tell(&mut self, kind: &str, told: Told) -> Asks {
        self.gathered.take(self.watch(kind), told, self.start)
    }

    fn list(&mut self, kind: &str, all: Vec<Seen>) -> Vec<Needed> {
        self.tell(kind, Told::Lists);
        let mut get: Vec<Needed> = all.into_iter().flat_map(|seen| self.tell(kind, Told::Listed(seen)).get).collect();
        get.extend(self.tell(kind, Told::ListedAll).get);
        get
    }

    /// Lists every kind but these, as empty.
    fn list_all_but(&mut self, kinds: &[&str]) {
        for (id, watched) in watched(&self.namespaces).iter().enumerate() {
            if !kinds.contains(&watched.kind) {
                self.gathered.take(id, Told::Lists, self.start);
                self.gathered.take(id, Told::ListedAll, self.start);
            }
        }
    }

    fn fails(&mut self, kind: &str, cause: Cause) {
        let trouble = Trouble::new(&watched(&self.namespaces)[self.watch(kind)], cause);
        self.tell(kind, Told::Fails(trouble));
    }

    fn is_synced_after(&self, seconds: u64) -> bool {
        self.gathered.is_synced(self.start + Duration::from_secs(seconds))
    }

    fn findings(&self) -> Vec<String> {
        self.gathered.findings().iter().map(ToString::to_string).collect()
    }

    fn got(&mut self, got: Got) -> Asks {
        self.gathered.take_got(&needed(), got, self.start)
    }
}

fn needed() -> Needed {
    Needed::secret(secret())
}

fn secret() -> Key {
    Key::new("a", "s")
}

fn seen(document: Value) -> Seen {
    let text = |name: &str| document["metadata"][name].as_str().unwrap().to_owned();
    Seen::Object { key: Key::new(text("namespace"), text("name")), document }
}

fn consumer(version: &str, keys: Value) -> Seen {
    let metadata = json!({"name": "c", "namespace": "a", "uid": "u", "resourceVersion": version});
    seen(
        json!({"apiVersion": "tollgate.dev/v1alpha1", "kind": "Consumer", "metadata": metadata, "spec": {"keys": keys}}),
    )
}

/// Keys of which no Secret knows.
fn none() -> Value {
    json!([{"sha256": "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"}])
}

fn version(version: &str) -> Seen {
    Seen::Version { key: secret(), version: version.into() }
}

fn answer(version: &str) -> Got {
    let metadata = json!({"name": "s", "namespace": "a", "uid": "s", "resourceVersion": version});
    Got::Object {
        version: version.into(),
        document: json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"apiKey": "a2V5"}}),
    }
}

#[test]
fn nothing_is_there_before_every_kind_is_listed() {
    let mut cluster = Cluster::new(&[]);
    assert!(!cluster.is_synced_after(3600));
    cluster.list_all_but(&["Consumer"]);
    cluster.tell("Consumer", Told::Lists);
    assert!(!cluster.is_synced_after(3600));
    cluster.fails("Consumer", Cause::Unreachable);
    assert!(!cluster.is_synced_after(3600) && cluster.gathered.settles_at().is_none());
    cluster.list("Consumer", vec![consumer("1", json!([{"secretRef": {"name": "s"}}]))]);
    assert!(!cluster.is_synced_after(3600), "its Secret is not there");
    cluster.got(Got::NotThere);
    assert!(cluster.is_synced_after(0) && cluster.findings().is_empty());
    let reading = cluster.gathered.read().unwrap();
    assert_eq!(reading.changes.set.consumers.iter().count(), 1);
    assert!(cluster.gathered.read().is_none());
}

#[test]
fn a_kind_that_is_not_there_is_waited_for_and_holds_up_nothing() {
    let mut cluster = Cluster::new(&[]);
    cluster.list_all_but(&["Consumer"]);
    cluster.fails("Consumer", Cause::NotServed);
    assert!(cluster.is_synced_after(0));
    assert_eq!(
        cluster.findings(),
        ["warning: the API server has no consumers.tollgate.dev (install its CRD; until then there are none)"]
    );
    assert!(cluster.gathered.read().is_some());
    cluster.fails("Consumer", Cause::NotServed);
    assert!(cluster.gathered.read().is_none(), "it is told once");
    cluster.list("Consumer", vec![consumer("1", none())]);
    let reading = cluster.gathered.read().unwrap();
    assert_eq!((reading.changes.set.consumers.iter().count(), reading.findings.len()), (1, 0));
}

#[test]
fn what_is_forbidden_is_believed_after_some_time_and_the_rest_is_served() {
    let mut cluster = Cluster::new(&[]);
    cluster.list_all_but(&["Consumer", "TokenPolicy"]);
    cluster.fails("Consumer", Cause::Denied(Verb::List));
    cluster.fails("TokenPolicy", Cause::Denied(Verb::List));
    assert!(!cluster.is_synced_after(9) && cluster.is_synced_after(10));
    assert_eq!(cluster.gathered.settles_at(), Some(cluster.start + Duration::from_secs(10)));
    assert_eq!(
        cluster.findings()[0],
        "error: Consumer may not be read: list is forbidden (a role with get, list and watch of consumers.tollgate.dev; \
         what was read before stays)"
    );
    // Whoever may not see the limits must not do without them.
    cluster.gathered.close_what_is_unknown();
    assert_eq!(cluster.gathered.read().unwrap().changes.refused.unwrap().policies.len(), 1);
    cluster.list("TokenPolicy", vec![]);
    assert_eq!(cluster.gathered.read().unwrap().changes.refused.unwrap().policies.len(), 0);
    // What was listed once stays.
    cluster.fails("TokenPolicy", Cause::Denied(Verb::Watch));
    cluster.gathered.close_what_is_unknown();
    assert!(cluster.gathered.read().unwrap().changes.is_empty());
}

#[test]
fn whoever_may_read_a_namespace_only_does_without_what_has_none() {
    let mut cluster = Cluster::new(&["a"]);
    cluster.list_all_but(&["GatewayClass", "Namespace"]);
    cluster.fails("GatewayClass", Cause::Denied(Verb::List));
    cluster.fails("Namespace", Cause::Denied(Verb::List));
    assert!(cluster.is_synced_after(0) && cluster.findings().is_empty());
}

#[test]
fn an_api_server_that_is_away_takes_nothing_away() {
    let mut cluster = Cluster::new(&[]);
    cluster.list_all_but(&["Consumer"]);
    cluster.list("Consumer", vec![consumer("1", none())]);
    cluster.gathered.read();
    for (id, _) in watched(&[]).iter().enumerate() {
        let trouble = Trouble::new(&watched(&[])[id], Cause::Unreachable);
        cluster.gathered.take(id, Told::Fails(trouble), cluster.start);
    }
    let reading = cluster.gathered.read().unwrap();
    assert!(reading.changes.is_empty());
    assert_eq!(cluster.findings(), ["error: the API server does not answer (what was read before stays)"]);
    for (id, _) in watched(&[]).iter().enumerate() {
        cluster.gathered.take(id, Told::Recovers, cluster.start);
    }
    assert!(cluster.gathered.read().unwrap().findings.is_empty());
    // A gap is nobody's business. What is gone since is known after the list.
    cluster.fails("Consumer", Cause::Gap);
    assert!(cluster.gathered.read().is_none());
    cluster.list("Consumer", vec![]);
    assert_eq!(cluster.gathered.read().unwrap().changes.gone.len(), 1);
}

#[test]
fn nobody_misses_an_extension_that_is_not_installed() {
    let mut cluster = Cluster::new(&[]);
    cluster.list_all_but(&["InferencePool"]);
    cluster.fails("InferencePool", Cause::NotServed);
    assert!(cluster.is_synced_after(0) && cluster.findings().is_empty());
}

#[test]
fn a_poisoned_object_is_a_finding_about_itself() {
    let mut cluster = Cluster::new(&[]);
    cluster.list_all_but(&[]);
    cluster.tell("Consumer", Told::Applied(consumer("1", none())));
    let metadata = json!({"name": "x", "namespace": "a", "uid": "x", "resourceVersion": "1", "labels": 5});
    let document = json!({"apiVersion": "tollgate.dev/v1alpha1", "kind": "Consumer", "metadata": metadata, "spec": 7});
    cluster.tell("Consumer", Told::Applied(seen(document)));
    cluster.tell("Consumer", Told::Applied(Seen::Object { key: Key::new("", ""), document: json!("poison") }));
    let findings = cluster.findings();
    assert!(findings.len() == 1 && findings[0].starts_with("error: Consumer a/x: "), "{findings:?}");
    assert_eq!(cluster.gathered.read().unwrap().changes.set.consumers.iter().count(), 1);
}

#[test]
fn only_secrets_that_are_referred_to_are_got_and_kept() {
    let mut cluster = Cluster::new(&[]);
    cluster.list_all_but(&[]);
    let asks = cluster.tell("Secret", Told::Applied(version("1")));
    assert!(asks.get.is_empty() && !asks.is_news, "{asks:?}");
    let asks = cluster.tell("Consumer", Told::Applied(consumer("1", json!([{"secretRef": {"name": "s"}}]))));
    assert_eq!((asks.get, asks.is_news), (vec![needed()], true));
    cluster.got(answer("1"));
    assert_eq!(cluster.gathered.read().unwrap().changes.set.secrets.iter().count(), 1);
    // It changed, and then it is gone.
    assert_eq!(cluster.tell("Secret", Told::Applied(version("2"))).get, [needed()]);
    cluster.got(answer("2"));
    assert_eq!(cluster.gathered.read().unwrap().changes.set.secrets.iter().count(), 1);
    assert!(cluster.tell("Secret", Told::Deleted(secret())).is_news);
    assert_eq!(cluster.gathered.read().unwrap().changes.gone.len(), 1);
    // A list says that it is there again, and the next one that it is gone.
    assert_eq!(cluster.list("Secret", vec![version("3")]), [needed()]);
    cluster.got(answer("3"));
    cluster.gathered.read();
    assert_eq!(cluster.list("Secret", vec![]), []);
    assert_eq!(cluster.gathered.read().unwrap().changes.gone.len(), 1);
    // Nobody refers to it any more, and the answer comes too late.
    assert_eq!(cluster.list("Secret", vec![version("4")]), [needed()]);
    let asks = cluster.tell("Consumer", Told::Applied(consumer("2", none())));
    assert_eq!(asks.forget, [needed()]);
    cluster.got(answer("4"));
    assert_eq!(cluster.gathered.read().unwrap().changes.set.secrets.iter().count(), 0);
}

fn pool(version: &str, app: &str) -> Seen {
    let metadata = json!({"name": app, "namespace": "a", "uid": app, "resourceVersion": version, "generation": 1});
    let spec = json!({"selector": {"matchLabels": {"app": app}}, "targetPorts": [{"number": 8000}]});
    let (group, kind) = ("inference.networking.k8s.io/v1", "InferencePool");
    seen(json!({"apiVersion": group, "kind": kind, "metadata": metadata, "spec": spec}))
}

fn pod(version: &str, ready: &str) -> Seen {
    let metadata = json!({"name": "p", "namespace": "a", "uid": "p", "resourceVersion": version, "generation": 1});
    let status = json!({"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": ready}]});
    seen(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status}))
}

#[test]
fn only_pods_that_a_pool_selects_are_watched_and_kept() {
    let mut cluster = Cluster::new(&[]);
    cluster.list_all_but(&[]);
    let mut watch = |version: &str, app: &str| {
        let asks = cluster.tell("InferencePool", Told::Applied(pool(version, app)));
        asks.watch.into_iter().map(|(id, watched)| (id, watched.selection.unwrap().to_string())).collect::<Vec<_>>()
    };
    let (first, second) = (watch("1", "x"), watch("1", "y"));
    let [(x, x_labels), (y, y_labels)] = [&first[0], &second[0]].map(|(id, labels)| (*id, labels.as_str()));
    assert_eq!((x_labels, y_labels), ("app=x", "app=y"));
    assert!(!cluster.is_synced_after(3600), "a pool is served with its Pods");
    let mut tell = |id: usize, told: Told| drop(cluster.gathered.take(id, told, cluster.start));
    for id in [x, y] {
        tell(id, Told::Lists);
        tell(id, Told::Listed(pod("10", "True")));
        tell(id, Told::ListedAll);
    }
    // One watch is behind the other. Then the Pod is of one selection only.
    tell(x, Told::Applied(pod("12", "False")));
    tell(y, Told::Applied(pod("11", "True")));
    let changes = cluster.gathered.read().unwrap().changes;
    assert!(cluster.is_synced_after(0) && changes.set.pods.iter().all(|pod| !pod.spec.is_ready));
    assert_eq!(changes.set.pods.iter().count(), 1);
    cluster.gathered.take(x, Told::Deleted(Key::new("a", "p")), cluster.start);
    assert!(cluster.gathered.read().is_none(), "another selection has it");
    let asks = cluster.tell("InferencePool", Told::Deleted(Key::new("a", "y")));
    assert_eq!(asks.end, [y]);
    let gone = cluster.gathered.read().unwrap().changes.gone;
    assert_eq!(gone.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), ["InferencePool", "Pod"]);
    // What is under way from a watch that has ended counts for nothing.
    cluster.gathered.take(y, Told::Applied(pod("13", "True")), cluster.start);
    assert!(cluster.gathered.read().is_none());
}
