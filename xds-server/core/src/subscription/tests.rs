//! A model of a client and of the wire between it and the server, driven through every short order of events
//! and many long ones: whatever happened, in the end the client has exactly what it asked for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use proptest::prelude::*;

use super::stream::{Since, Stream, StreamEvent};
use super::{Answer, Ask, Output, Protocol, Request, Response};
use crate::snapshot::{Changed, Resource, ResourceType, Snapshot, Version};

const KINDS: [ResourceType; 4] =
    [ResourceType::Cluster, ResourceType::Endpoint, ResourceType::ExtensionConfig, ResourceType::Route];

/// What happens next. Messages wait on the wire until they are delivered.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    ToServer,
    ToClient,
    /// A new version of `a` of every type.
    Change,
    /// A version of `b` that clients refuse, or a good one again.
    Spoil,
    /// `c` comes or goes.
    Toggle,
    /// The client starts or stops asking for `c` by name.
    Ask,
    Reconnect,
    /// Refused filters are sent again.
    Retry,
}

const STEPS: [Step; 8] =
    [Step::ToServer, Step::ToClient, Step::Change, Step::Spoil, Step::Toggle, Step::Ask, Step::Reconnect, Step::Retry];

#[derive(Default)]
struct Copies {
    names: BTreeSet<String>,
    has: BTreeMap<Arc<str>, Arc<Resource>>,
    nonce: Option<String>,
}

struct World {
    protocol: Protocol,
    server: Stream,
    /// The same server, but it is not told what changed.
    twin: Stream,
    /// The server's target.
    target: Arc<Snapshot>,
    client: BTreeMap<ResourceType, Copies>,
    to_server: VecDeque<(ResourceType, Request)>,
    to_client: VecDeque<Response>,
    refused: Vec<Arc<str>>,
    sent: usize,
    change: u32,
    spoilt: Option<u32>,
    with_c: bool,
    /// Without it clients refuse every filter configuration.
    has_code: bool,
}

fn wildcard(kind: ResourceType) -> bool {
    matches!(kind, ResourceType::Cluster | ResourceType::Listener | ResourceType::ScopedRoute)
}

fn is_bad(resource: &Resource) -> bool {
    resource.content.bytes().ends_with(b"bad")
}

/// One that says this, and no proxy could read it.
fn resource(says: &str) -> Resource {
    // SHA-256 would take most of the time of these tests.
    let mut hasher = DefaultHasher::new();
    says.hash(&mut hasher);
    let version = Version::parse(&format!("{:016x}", hasher.finish())).unwrap();
    Resource { version, content: says.as_bytes().to_vec().into(), origins: Box::default() }
}

impl World {
    fn new(protocol: Protocol) -> Self {
        let client = KINDS.into_iter().map(|kind| {
            let names = ["a", "b"].map(str::to_owned).into_iter().collect();
            (kind, Copies { names: if wildcard(kind) { BTreeSet::new() } else { names }, ..Copies::default() })
        });
        let mut world = Self {
            protocol,
            server: Stream::new(protocol, Arc::default()),
            twin: Stream::new(protocol, Arc::default()),
            target: Arc::default(),
            client: client.collect(),
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            refused: Vec::new(),
            sent: 0,
            change: 0,
            spoilt: None,
            with_c: false,
            has_code: true,
        };
        world.reconnect();
        world
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        let mut snapshot = Snapshot::default();
        for kind in KINDS {
            snapshot.insert(kind, "a", resource(&format!("a{}", self.change)));
            let b = self.spoilt.map_or("b".to_owned(), |number| format!("b{number}bad"));
            snapshot.insert(kind, "b", resource(&b));
            if self.with_c {
                snapshot.insert(kind, "c", resource("c"));
            }
        }
        Arc::new(snapshot)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::ToServer => {
                if let Some((kind, request)) = self.to_server.pop_front() {
                    self.serve(StreamEvent::Request(kind, request));
                }
            }
            Step::ToClient => {
                if let Some(response) = self.to_client.pop_front() {
                    self.receive(response);
                }
            }
            Step::Change => {
                self.change += 1;
                self.aim(self.snapshot());
            }
            Step::Spoil => {
                self.change += 1;
                self.spoilt = if self.spoilt.is_some() { None } else { Some(self.change) };
                self.aim(self.snapshot());
            }
            Step::Toggle => {
                self.with_c = !self.with_c;
                self.aim(self.snapshot());
            }
            Step::Ask => self.ask(),
            Step::Reconnect => self.reconnect(),
            Step::Retry => self.serve(StreamEvent::RetryFilters),
        }
    }

    fn start(&mut self, snapshot: Arc<Snapshot>) {
        self.server = Stream::new(self.protocol, Arc::clone(&snapshot));
        self.twin = Stream::new(self.protocol, Arc::clone(&snapshot));
        self.target = snapshot;
    }

    fn aim(&mut self, snapshot: Arc<Snapshot>) {
        let mut changed = Changed::between(&self.target, &snapshot);
        // That too much is said to have changed does no harm.
        changed.add(ResourceType::Endpoint, "a".into());
        changed.add(ResourceType::Cluster, "nobodys".into());
        self.target = Arc::clone(&snapshot);
        let twins = self.twin.step(StreamEvent::Target(Arc::clone(&snapshot), Since::Unknown));
        let outputs = self.server.step(StreamEvent::Target(snapshot, Since::Names(changed)));
        self.send(outputs, twins);
    }

    fn serve(&mut self, event: StreamEvent) {
        let twins = self.twin.step(event.clone());
        let outputs = self.server.step(event);
        self.send(outputs, twins);
    }

    fn send(&mut self, outputs: Vec<Output>, twins: Vec<Output>) {
        assert_eq!(outputs, twins, "it makes a difference whether the names of what changed are known");
        let whole = |kind| {
            let mut all = self.target.of(kind);
            all.all(|(name, resource)| self.server.holds(kind, name, resource.version))
        };
        let behind = [ResourceType::ScopedRoute, ResourceType::Listener, ResourceType::Route];
        let (routes, filters) = (behind.into_iter().all(whole), whole(ResourceType::ExtensionConfig));
        let taken = self.server.has_taken(&self.target);
        // Not every filter has to be asked for.
        assert!(if taken { routes } else { !routes || !filters }, "{taken} {routes} {filters}");
        for output in outputs {
            match output {
                Output::Send(response) => {
                    self.sent += 1;
                    self.to_client.push_back(response);
                }
                Output::Refused(refusal) => self.refused.extend(refusal.resources.keys().cloned()),
                Output::Accepted => {}
            }
        }
    }

    fn ask(&mut self) {
        for kind in KINDS.into_iter().filter(|kind| !wildcard(*kind)) {
            let copies = self.client.get_mut(&kind).unwrap();
            let mut change = (vec![], vec![]);
            if copies.names.remove("c") {
                copies.has.remove("c");
                change.1.push("c".to_owned());
            } else {
                copies.names.insert("c".to_owned());
                change.0.push("c".to_owned());
            }
            let request = match self.protocol {
                Protocol::Delta => Request {
                    answer: Answer::Nothing,
                    ask: Ask::Change { subscribe: change.0, unsubscribe: change.1, initial: BTreeMap::new() },
                },
                Protocol::StateOfTheWorld => Request {
                    answer: copies.nonce.clone().map_or(Answer::Nothing, |nonce| Answer::Ack { nonce }),
                    ask: Ask::Exactly(copies.names.iter().cloned().collect()),
                },
            };
            self.to_server.push_back((kind, request));
        }
    }

    fn reconnect(&mut self) {
        self.to_client.clear();
        self.to_server.clear();
        self.start(self.snapshot());
        for kind in KINDS {
            let copies = self.client.get_mut(&kind).unwrap();
            copies.nonce = None;
            let names = copies.names.iter().cloned().collect();
            let initial = copies.has.iter().map(|(name, has)| (name.to_string(), has.version.to_string())).collect();
            let ask = match self.protocol {
                Protocol::Delta => Ask::Change { subscribe: names, unsubscribe: Vec::new(), initial },
                Protocol::StateOfTheWorld => Ask::Exactly(names),
            };
            self.to_server.push_back((kind, Request { answer: Answer::Nothing, ask }));
        }
    }

    fn receive(&mut self, response: Response) {
        let kind = response.kind;
        let copies = self.client.get_mut(&kind).unwrap();
        let lacks_code = kind == ResourceType::ExtensionConfig && !self.has_code;
        let bad = response.resources.values().any(|resource| lacks_code || is_bad(resource));
        let covers = |name: &str| wildcard(kind) || copies.names.contains(name);
        let got = response.resources.iter().filter(|(name, _)| covers(name));
        let got = got.map(|(name, resource)| (Arc::clone(name), Arc::clone(resource)));
        match self.protocol {
            // A delta client takes all or nothing.
            Protocol::Delta if bad => {}
            Protocol::Delta => {
                let got: Vec<_> = got.collect();
                copies.has.extend(got);
                copies.has.retain(|name, _| !response.removed.contains(name));
            }
            // As in Envoy: what is sound is taken, and the whole is refused.
            Protocol::StateOfTheWorld => {
                let got: Vec<_> = got.collect();
                if wildcard(kind) {
                    copies.has.retain(|name, _| response.resources.contains_key(name));
                }
                copies.has.extend(got.into_iter().filter(|(_, resource)| !lacks_code && !is_bad(resource)));
            }
        }
        let nonce = response.nonce.clone();
        copies.nonce = Some(nonce.clone());
        let answer = if bad { Answer::Nack { nonce, message: "bad".to_owned() } } else { Answer::Ack { nonce } };
        let ask = match self.protocol {
            Protocol::Delta => Ask::Change { subscribe: Vec::new(), unsubscribe: Vec::new(), initial: BTreeMap::new() },
            Protocol::StateOfTheWorld => Ask::Exactly(copies.names.iter().cloned().collect()),
        };
        self.to_server.push_back((kind, Request { answer, ask }));
    }

    fn settle(&mut self) {
        for _ in 0..200 {
            if self.to_client.is_empty() && self.to_server.is_empty() {
                return;
            }
            self.step(Step::ToServer);
            self.step(Step::ToClient);
        }
        panic!("the two never come to rest");
    }

    /// The client has the last snapshot of what it asked for, or an older version of what it refuses.
    fn check(&self) {
        let snapshot = self.snapshot();
        for kind in KINDS {
            // A refused filter holds back what comes after it.
            if kind == ResourceType::Route && self.spoilt.is_some() {
                continue;
            }
            let copies = &self.client[&kind];
            let covers = |name: &str| wildcard(kind) || copies.names.contains(name);
            for (name, resource) in snapshot.of(kind).filter(|(name, _)| covers(name)) {
                let has = copies.has.get(name).map(|has| has.version);
                if is_bad(resource) {
                    assert_ne!(has, Some(resource.version), "{kind:?} {name} was refused");
                } else {
                    assert_eq!(has, Some(resource.version), "{kind:?} {name} is not the last one");
                }
            }
            if self.protocol == Protocol::StateOfTheWorld && !wildcard(kind) {
                continue;
            }
            // Removals wait for additions, and additions wait while a filter is refused.
            if self.spoilt.is_none() {
                for name in copies.has.keys() {
                    assert!(snapshot.get(kind, name).is_some(), "{kind:?} {name} should be gone");
                    assert!(covers(name), "{kind:?} {name} was not asked for");
                }
            }
        }
    }
}

fn run(protocol: Protocol, steps: &[Step]) {
    let mut world = World::new(protocol);
    for step in steps {
        world.step(*step);
    }
    world.settle();
    world.check();
    // At rest nothing is sent again, whether it was refused or not.
    let sent = world.sent;
    world.aim(world.snapshot());
    assert_eq!(world.sent, sent, "something was sent twice");
}

#[test]
fn every_short_order_of_events_ends_with_the_last_snapshot() {
    const DEPTH: u32 = 5;
    for protocol in [Protocol::Delta, Protocol::StateOfTheWorld] {
        for number in 0..STEPS.len().pow(DEPTH) {
            let steps: Vec<Step> =
                (0..DEPTH).map(|digit| STEPS[number / STEPS.len().pow(digit) % STEPS.len()]).collect();
            run(protocol, &steps);
        }
    }
}

proptest! {
    #[test]
    fn long_orders_of_events_end_with_the_last_snapshot(
        steps in prop::collection::vec(prop::sample::select(STEPS.to_vec()), 0..80),
        delta in any::<bool>(),
    ) {
        run(if delta { Protocol::Delta } else { Protocol::StateOfTheWorld }, &steps);
    }
}

#[test]
fn one_bad_resource_is_found_and_holds_nobody_back() {
    let mut world = World::new(Protocol::Delta);
    world.step(Step::Spoil);
    world.settle();
    let refused: BTreeSet<_> = world.refused.iter().map(|name| &**name).collect();
    assert_eq!(refused, BTreeSet::from(["b"]));
    assert!(world.client[&ResourceType::Cluster].has.contains_key("a"));
    let sent = world.sent;
    world.step(Step::Toggle);
    world.settle();
    assert_eq!(world.sent, sent + 1, "only the new cluster is sent");
    world.check();
}

#[test]
fn filters_that_were_refused_for_want_of_their_code_are_taken_when_it_is_there() {
    for protocol in [Protocol::Delta, Protocol::StateOfTheWorld] {
        let mut world = World::new(protocol);
        world.has_code = false;
        world.settle();
        let filters = |world: &World| world.client[&ResourceType::ExtensionConfig].has.len();
        assert_eq!(filters(&world), 0);
        let sent = world.sent;
        world.aim(world.snapshot());
        assert_eq!(world.sent, sent, "by themselves they are not sent again");
        world.has_code = true;
        world.step(Step::Retry);
        world.settle();
        assert_eq!(filters(&world), 2);
        world.check();
    }
}

#[test]
fn a_delta_client_that_comes_back_is_sent_the_difference_only() {
    let mut world = World::new(Protocol::Delta);
    world.settle();
    world.change += 1;
    world.reconnect();
    while let Some((kind, request)) = world.to_server.pop_front() {
        world.serve(StreamEvent::Request(kind, request));
    }
    let first = world.to_client.front().unwrap();
    assert_eq!(first.resources.keys().map(|name| &**name).collect::<Vec<_>>(), ["a"]);
    world.settle();
    world.check();
}

#[test]
fn an_empty_wildcard_is_answered_and_an_unknown_name_is_said_to_be_missing() {
    let ask = |names: &[&str]| Request {
        answer: Answer::Nothing,
        ask: Ask::Change {
            subscribe: names.iter().map(ToString::to_string).collect(),
            unsubscribe: Vec::new(),
            initial: BTreeMap::new(),
        },
    };
    let mut stream = Stream::new(Protocol::Delta, Arc::default());
    let outputs = stream.step(StreamEvent::Request(ResourceType::ApiKey, ask(&[])));
    assert!(matches!(&outputs[..], [Output::Send(response)] if response.resources.is_empty()));
    assert!(!stream.has_keys());
    let outputs = stream.step(StreamEvent::Request(ResourceType::Route, ask(&["x"])));
    assert!(matches!(&outputs[..], [Output::Send(response)] if response.removed.contains("x")));
    let ack = Request {
        answer: Answer::Ack { nonce: "1".to_owned() },
        ask: Ask::Change { subscribe: Vec::new(), unsubscribe: Vec::new(), initial: BTreeMap::new() },
    };
    stream.step(StreamEvent::Request(ResourceType::ApiKey, ack));
    assert!(stream.has_keys());
}

/// A route says the name of its cluster here: a client must never hold a route without its cluster.
#[test]
fn make_before_break() {
    for protocol in [Protocol::Delta, Protocol::StateOfTheWorld] {
        let snapshot = |cluster: &str| {
            let mut snapshot = Snapshot::default();
            snapshot.insert(ResourceType::Cluster, cluster, resource("1"));
            snapshot.insert(ResourceType::Route, "a", resource(cluster));
            Arc::new(snapshot)
        };
        let mut world = World::new(protocol);
        world.start(snapshot("c0"));
        // A client at its start serves nobody yet.
        world.settle();
        let broken = |world: &World| {
            let route = world.client[&ResourceType::Route].has.get("a");
            let has =
                |cluster: &[u8]| world.client[&ResourceType::Cluster].has.keys().any(|name| name.as_bytes() == cluster);
            route.is_some_and(|route| !has(&route.content.bytes()))
        };
        for number in 1..20 {
            world.aim(snapshot(&format!("c{}", number / 2)));
            for _ in 0..(number % 7) {
                world.step(Step::ToServer);
                assert!(!broken(&world));
                world.step(Step::ToClient);
                assert!(!broken(&world), "{protocol:?}: a route without its cluster");
            }
        }
        world.settle();
        assert_eq!(world.client[&ResourceType::Route].has["a"].content, b"c9".to_vec().into());
        assert_eq!(world.client[&ResourceType::Cluster].has.len(), 1);
    }
}

/// Envoy ACKs a cluster only when it is warm, and for that it needs what it asks for meanwhile.
#[test]
fn what_a_warming_cluster_needs_is_sent_before_its_ack() {
    let snapshot = |clusters: &[&str]| {
        let mut snapshot = Snapshot::default();
        for cluster in clusters {
            snapshot.insert(ResourceType::Cluster, *cluster, resource("1"));
            snapshot.insert(ResourceType::Endpoint, *cluster, resource("1"));
            snapshot.insert(ResourceType::ExtensionConfig, *cluster, resource("1"));
        }
        snapshot.insert(ResourceType::Route, "a", resource(&clusters.join(",")));
        Arc::new(snapshot)
    };
    let ask = |name: &str| Request {
        answer: Answer::Nothing,
        ask: Ask::Change { subscribe: vec![name.to_owned()], unsubscribe: vec![], initial: BTreeMap::new() },
    };
    let mut world = World::new(Protocol::Delta);
    world.start(snapshot(&["c1"]));
    world.settle();
    world.aim(snapshot(&["c1", "c2"]));
    let cluster = world.to_client.pop_front().unwrap();
    assert_eq!(cluster.kind, ResourceType::Cluster);
    for kind in [ResourceType::Endpoint, ResourceType::ExtensionConfig] {
        world.serve(StreamEvent::Request(kind, ask("c2")));
        let response = world.to_client.pop_front().unwrap();
        assert_eq!((response.kind, response.resources.len()), (kind, 1));
        world.client.get_mut(&kind).unwrap().names.insert("c2".to_owned());
        world.receive(response);
    }
    world.step(Step::ToServer);
    world.step(Step::ToServer);
    assert!(world.to_client.is_empty(), "the route waits for the cluster");
    world.receive(cluster);
    world.settle();
    assert_eq!(world.client[&ResourceType::Route].has["a"].content, b"c1,c2".to_vec().into());
}

/// A cluster that takes the endpoints `b`, and says something else with each number.
fn cluster_with_endpoints(name: &str, number: u64) -> Resource {
    use envoy_types::pb::envoy::config::cluster::v3::{Cluster, cluster::EdsClusterConfig};
    let eds = EdsClusterConfig { service_name: "b".to_owned(), ..EdsClusterConfig::default() };
    let alt_stat_name = number.to_string();
    let cluster = Cluster { name: name.to_owned(), alt_stat_name, eds_cluster_config: Some(eds), ..Cluster::default() };
    Resource::new(&cluster, Vec::new())
}

/// Envoy does not ask again for endpoints that some cluster has, and a cluster that is new or another one waits for them.
#[test]
fn a_cluster_gets_its_endpoints_even_if_the_client_has_them() {
    let snapshot = |clusters: &[(&str, u64)]| {
        let mut snapshot = Snapshot::default();
        for (name, number) in clusters {
            snapshot.insert(ResourceType::Cluster, *name, cluster_with_endpoints(name, *number));
        }
        snapshot.insert(ResourceType::Endpoint, "b", resource("1"));
        Arc::new(snapshot)
    };
    for protocol in [Protocol::Delta, Protocol::StateOfTheWorld] {
        let mut world = World::new(protocol);
        world.start(snapshot(&[("c", 1)]));
        world.settle();
        for (count, clusters) in [(1, &[("c", 2)][..]), (2, &[("c", 2), ("d", 1)])] {
            world.aim(snapshot(clusters));
            let kinds: Vec<_> = world.to_client.iter().map(|response| response.kind).collect();
            assert_eq!(kinds, [ResourceType::Cluster, ResourceType::Endpoint], "{count} {protocol:?}");
            assert!(world.to_client.iter().all(|response| !response.resources.is_empty()));
            world.settle();
        }
        // Nor does it count that endpoints of before are under way: the client takes them before it hears of the cluster.
        let changed = |number, endpoints: &str| {
            let mut next = Snapshot::clone(&snapshot(&[("c", number), ("d", 1)]));
            next.insert(ResourceType::Endpoint, "b", resource(endpoints));
            Arc::new(next)
        };
        world.aim(changed(2, "2"));
        world.aim(changed(3, "2"));
        let before = world.sent;
        world.settle();
        assert!(world.sent > before, "the cluster waits for its endpoints: {protocol:?}");
        world.aim(changed(2, "1"));
        world.settle();
        // Nothing is sent for nothing.
        world.aim(snapshot(&[("c", 2), ("d", 1)]));
        assert!(world.to_client.is_empty());
    }
}

#[test]
fn state_of_the_world_asks_again_under_a_nonce_that_was_answered() {
    let mut world = World::new(Protocol::StateOfTheWorld);
    world.step(Step::Toggle);
    world.settle();
    // Three requests in a row, all under the nonce of the response before them.
    for _ in 0..3 {
        world.step(Step::Ask);
    }
    world.settle();
    assert!(world.client[&ResourceType::Endpoint].has.contains_key("c"));
    world.check();
}

/// A client's whole set of one type, delta or not.
fn takes_all(world: &mut World, kind: ResourceType) {
    world.client.insert(kind, Copies::default());
    let ask = match world.protocol {
        Protocol::Delta => Ask::Change { subscribe: vec![], unsubscribe: vec![], initial: BTreeMap::new() },
        Protocol::StateOfTheWorld => Ask::Exactly(vec![]),
    };
    world.to_server.push_back((kind, Request { answer: Answer::Nothing, ask }));
}

/// A listener does not wait for its scopes where another one has asked for scopes before: they are there before it and
/// go after it.
#[test]
fn scopes_come_before_the_listeners_that_look_among_them() {
    use ResourceType::{Listener, ScopedRoute};
    for protocol in [Protocol::Delta, Protocol::StateOfTheWorld] {
        let snapshot = |tables: &[&str]| {
            let mut snapshot = Snapshot::default();
            for table in tables {
                snapshot.insert(Listener, *table, resource("1"));
                snapshot.insert(ScopedRoute, *table, resource("1"));
                snapshot.insert(ScopedRoute, format!("{table}|a"), resource("1"));
            }
            Arc::new(snapshot)
        };
        let mut world = World::new(protocol);
        world.start(snapshot(&["t"]));
        takes_all(&mut world, Listener);
        takes_all(&mut world, ScopedRoute);
        world.settle();
        for tables in [&["t", "u"][..], &["u"], &["t", "u"], &["t"]] {
            world.aim(snapshot(tables));
            for _ in 0..20 {
                world.step(Step::ToClient);
                let has = |kind: ResourceType, name: &str| world.client[&kind].has.contains_key(name);
                for table in ["t", "u"].into_iter().filter(|table| has(Listener, table)) {
                    assert!(has(ScopedRoute, table) && has(ScopedRoute, &format!("{table}|a")), "{protocol:?} {table}");
                }
                world.step(Step::ToServer);
            }
            let scopes = world.client[&ScopedRoute].has.len();
            assert_eq!(scopes, 2 * tables.len(), "{protocol:?}: {tables:?}");
        }
    }
}

/// Connections from before a table became one table again are still served by its scopes. When it is scoped again, what
/// is gone is taken away.
#[test]
fn a_table_that_is_one_table_again_leaves_its_scopes() {
    use ResourceType::{Route, ScopedRoute};
    for protocol in [Protocol::Delta, Protocol::StateOfTheWorld] {
        let scoped = |names: &[&str]| {
            let mut snapshot = Snapshot::default();
            names.iter().for_each(|name| snapshot.insert(ScopedRoute, *name, resource("1")));
            Arc::new(snapshot)
        };
        let mut world = World::new(protocol);
        world.start(scoped(&["t", "t|a", "t|b", "u", "u|a"]));
        takes_all(&mut world, ScopedRoute);
        world.settle();
        let mut one_table = Snapshot::clone(&scoped(&["u"]));
        one_table.insert(Route, "t", resource("1"));
        world.aim(Arc::new(one_table));
        world.settle();
        let has = |world: &World| world.client[&ScopedRoute].has.keys().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(has(&world), ["t", "t|a", "t|b", "u"], "{protocol:?}");
        world.aim(scoped(&["t", "t|a", "u"]));
        world.settle();
        assert_eq!(has(&world), ["t", "t|a", "u"], "{protocol:?}");
    }
}

/// Envoy forgets its scopes with the last listener that looks among them, and says nothing when there is one again.
#[test]
fn a_new_listener_gets_its_scopes_even_if_the_client_seems_to_have_them() {
    use ResourceType::{Listener, ScopedRoute};
    for protocol in [Protocol::Delta, Protocol::StateOfTheWorld] {
        let snapshot = |version: &str| {
            let mut snapshot = Snapshot::default();
            snapshot.insert(Listener, "n/g/80", resource(version));
            for scope in ["n/g/80", "n/g/80|a", "n/g/80/tls|b", "n/g/8080|c"] {
                snapshot.insert(ScopedRoute, scope, resource("1"));
            }
            Arc::new(snapshot)
        };
        let mut world = World::new(protocol);
        world.start(snapshot("1"));
        takes_all(&mut world, Listener);
        world.step(Step::ToServer);
        takes_all(&mut world, ScopedRoute);
        world.settle();
        let sent = world.sent;
        world.aim(snapshot("1"));
        assert_eq!(world.sent, sent, "{protocol:?}: at its start a client is sent everything once");

        world.aim(snapshot("2"));
        world.step(Step::ToClient);
        assert_eq!(world.client[&Listener].has["n/g/80"].content, b"2".to_vec().into());
        world.client.get_mut(&ScopedRoute).unwrap().has.clear();
        world.settle();
        let has: Vec<_> = world.client[&ScopedRoute].has.keys().map(AsRef::as_ref).collect();
        // State of the world has no smaller response than all.
        let wanted: &[&str] = match protocol {
            Protocol::Delta => &["n/g/80", "n/g/80/tls|b", "n/g/80|a"],
            Protocol::StateOfTheWorld => &["n/g/80", "n/g/80/tls|b", "n/g/8080|c", "n/g/80|a"],
        };
        assert_eq!(has, wanted, "{protocol:?}");
        assert_eq!(world.sent, sent + 2, "{protocol:?}: the listener, and its scopes");
    }
}
