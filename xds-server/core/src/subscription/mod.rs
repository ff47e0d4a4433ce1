//! One resource type on one xDS stream, as a pure state machine. Its place on the path: snapshot -> here -> wire ->
//! Envoy, and back with ACK and NACK.
//!
//! One response is under way at a time. What to send next is always the difference between the snapshot of this moment
//! (the target) and what the client is known to have. So snapshots that come while a response is under way are skipped
//! over, not queued. A reconnect is a new `Subscription`. A delta client then says what it has kept
//! (`initial_resource_versions`), and only the difference is sent.
//!
//! Only names that are *open* are looked at: those of which the client does not have what the target says, or not for
//! sure. A name gets open when it changes or is asked for, so an event costs as much as there is to do, however large the
//! snapshot is. All of a snapshot is looked at once, when a client asks for all of it.
//!
//! When a response of several resources is refused, they are sent again one by one, except where a response is a whole
//! set (`full.rs`). This finds the bad one, so a NACK ends as a message on exactly one object and holds nobody else
//! back. A refused version is not sent again until the resource changes or somebody says that it may be good now.
//!
//! The rules cited are those of envoyproxy.io/docs, "xDS REST and gRPC protocol".

mod each;
mod full;
mod interest;
pub mod stream;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::{each::Each, full::Full, interest::Asked, interest::Interest};
use crate::snapshot::{Changed, Resource, ResourceType, Snapshot, Version, is_scope_of};

/// The two forms of xDS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Delta,
    StateOfTheWorld,
}

/// A client's request, the same for both forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub answer: Answer,
    pub ask: Ask,
}

/// What a request says about the response before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Nothing,
    Ack { nonce: String },
    Nack { nonce: String, message: String },
}

/// What a request says about what the client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Delta: a change of what was wanted before. `initial` counts only in a stream's first request.
    Change { subscribe: Vec<String>, unsubscribe: Vec<String>, initial: BTreeMap<String, String> },
    /// State of the world: the names of all that is wanted.
    Exactly(Vec<String>),
}

/// What may be sent now (see [`stream`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Resources that the client asks for by name and has never had. The client waits for them.
    Awaited,
    Additions,
    Removals,
}

/// Each event comes with the target of that moment. It is the same target as before, except after
/// [`Self::Target`].
#[derive(Debug)]
pub enum SubscriptionEvent<'a> {
    Request(Request, &'a Snapshot),
    /// There is another target. This is the one before it, and what changed since.
    Target {
        before: &'a Snapshot,
        changed: &'a Changed,
    },
    /// What the client refused may be sent again. This is for types that are always asked for by name.
    Retry,
    /// The client has new listeners with these names, and may have forgotten the scopes that these look among.
    Listeners(&'a BTreeSet<Arc<str>>, &'a Snapshot),
    /// The client warms clusters that take these endpoints, and waits for them even if it has them.
    Warming(BTreeSet<Arc<str>>, &'a Snapshot),
    /// It is this type's turn: what the snapshot requires is sent, if anything.
    Turn(Phase, &'a Snapshot),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    Send(Response),
    Accepted,
    Refused(RejectedVersion),
}

/// Resources by name. There may be many, so what is sent and what its answer is waited for are the same.
pub type Contents = Arc<BTreeMap<Arc<str>, Arc<Resource>>>;

#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    pub kind: ResourceType,
    pub nonce: String,
    pub resources: Contents,
    /// Delta only.
    pub removed: BTreeSet<Arc<str>>,
}

/// A version that the client does not take. By itself it is not sent again.
#[derive(Debug, Clone, PartialEq)]
pub struct RejectedVersion {
    pub kind: ResourceType,
    pub resources: Contents,
    pub message: String,
}

#[derive(Debug)]
pub struct Subscription {
    kind: ResourceType,
    interest: Interest,
    client: Client,
    state: State,
    nonces: u64,
}

#[derive(Debug)]
enum State {
    /// The client has not asked for this type.
    Silent,
    /// Nothing is under way.
    Settled,
    /// A response waits for its ACK or NACK.
    UnderWay(Sent),
}

/// What the client is known to have. The kind depends on how responses of this type are made up.
#[derive(Debug)]
enum Client {
    /// Each resource by itself: every type in delta, and the types that state of the world asks for by name.
    Each(Each),
    /// The whole set every time: LDS, CDS and keys in state of the world. There a missing resource is a removal.
    Full(Full),
}

/// The contents of a response under way.
#[derive(Debug, Clone, Default)]
struct Sent {
    nonce: String,
    resources: Contents,
    removed: BTreeSet<Arc<str>>,
}

/// What a client is to have: what it asks for, as the snapshot has it.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    kind: ResourceType,
    interest: &'a Interest,
    snapshot: &'a Snapshot,
}

/// What a refusal means for what is sent next.
enum Refused {
    /// The version is not sent again until the resource changes.
    ForGood,
    /// It was one of several, which are now sent again one by one.
    OneOfThem,
}

// === impl Subscription ===

impl Subscription {
    pub fn new(kind: ResourceType, protocol: Protocol) -> Self {
        let client = match protocol {
            Protocol::Delta => Client::Each(Each::delta()),
            Protocol::StateOfTheWorld if interest::may_be_implicit(kind) => Client::Full(Full::default()),
            Protocol::StateOfTheWorld => Client::Each(Each::by_name()),
        };
        Self { kind, interest: Interest::default(), client, state: State::Silent, nonces: 0 }
    }

    pub fn step(&mut self, event: SubscriptionEvent<'_>) -> Option<Output> {
        match event {
            SubscriptionEvent::Request(request, target) => self.request(request, target),
            SubscriptionEvent::Target { before, changed } => {
                let names = changed.of(self.kind);
                match &mut self.client {
                    Client::Each(each) => each.changed(names, self.interest.in_snapshot(self.kind, before)),
                    Client::Full(full) => full.changed(names, &self.interest),
                }
                None
            }
            SubscriptionEvent::Retry => {
                if let Client::Each(each) = &mut self.client {
                    each.retry();
                }
                None
            }
            SubscriptionEvent::Listeners(names, target) => {
                let looked_among = |scope: &str| names.iter().any(|listener| is_scope_of(listener, scope));
                match &mut self.client {
                    Client::Each(each) => {
                        let wanted = Wanted { kind: self.kind, interest: &self.interest, snapshot: target };
                        each.renew(looked_among, wanted);
                    }
                    Client::Full(full) => full.renew(),
                }
                None
            }
            SubscriptionEvent::Warming(names, target) => {
                // It is as if it had just asked for them.
                self.asked(&Asked { renewed: names, ..Asked::default() }, BTreeMap::new(), target);
                None
            }
            SubscriptionEvent::Turn(phase, target) => self.turn(phase, target).map(Output::Send),
        }
    }

    /// Whether a response waits for its answer.
    pub fn is_under_way(&self) -> bool {
        matches!(self.state, State::UnderWay(_))
    }

    pub fn asks_for(&self, name: &str) -> bool {
        self.interest.covers(name)
    }

    /// Whether the client has taken this version of this resource.
    pub fn holds(&self, name: &str, version: Version, target: &Snapshot) -> bool {
        match &self.client {
            Client::Each(each) => each.holds(name, version, self.interest.in_snapshot(self.kind, target)),
            Client::Full(full) => full.holds(name, version),
        }
    }

    /// Whether the client has taken all that this part of the target has of this type.
    pub fn holds_all(&self, part: &Snapshot) -> bool {
        let asks = self.interest.is_wildcard() || part.of(self.kind).all(|(name, _)| self.interest.covers(name));
        let lacks = match &self.client {
            Client::Each(each) => each.lacks_some(self.kind, part),
            Client::Full(full) => full.lacks_some(self.kind, part),
        };
        asks && !lacks
    }

    /// Whether the client has refused something of the target.
    pub fn refuses(&self, target: &Snapshot) -> bool {
        match &self.client {
            Client::Each(each) => each.refuses_some(self.kind, target),
            Client::Full(full) => full.refuses_some(),
        }
    }

    fn request(&mut self, request: Request, target: &Snapshot) -> Option<Output> {
        let first = matches!(self.state, State::Silent);
        if first {
            self.state = State::Settled;
        }
        let output = match request.answer {
            Answer::Nothing => None,
            Answer::Ack { nonce } => match self.answered(&nonce) {
                Some(sent) => {
                    match &mut self.client {
                        Client::Each(each) => each.accepted(sent, self.interest.in_snapshot(self.kind, target)),
                        Client::Full(full) => full.accepted(sent),
                    }
                    Some(Output::Accepted)
                }
                None if !first && self.is_stale(&nonce, &request.ask) => return None,
                None => None,
            },
            Answer::Nack { nonce, message } => match self.answered(&nonce) {
                Some(sent) => {
                    let resources = Arc::clone(&sent.resources);
                    let refused = match &mut self.client {
                        Client::Each(each) => each.refused(sent),
                        Client::Full(full) => full.refused(sent),
                    };
                    match refused {
                        Refused::ForGood => {
                            Some(Output::Refused(RejectedVersion { kind: self.kind, resources, message }))
                        }
                        Refused::OneOfThem => None,
                    }
                }
                None if !first && self.is_stale(&nonce, &request.ask) => return None,
                None => None,
            },
        };
        self.ask(request.ask, first, target);
        output
    }

    /// The response that this nonce answers. Another nonce is stale: the client will answer the newer response too.
    fn answered(&mut self, nonce: &str) -> Option<Sent> {
        match std::mem::replace(&mut self.state, State::Settled) {
            State::UnderWay(sent) if sent.nonce == nonce => Some(sent),
            other => {
                self.state = other;
                None
            }
        }
    }

    /// A state-of-the-world request under an older nonce was written before the client saw the newest response. The
    /// client's answer to that response will carry the names again. A request under the newest nonce is news, even if
    /// that nonce was answered before. A delta request carries changes, which must not be lost.
    fn is_stale(&self, nonce: &str, ask: &Ask) -> bool {
        matches!(ask, Ask::Exactly(_)) && nonce != self.nonces.to_string()
    }

    fn ask(&mut self, ask: Ask, first: bool, target: &Snapshot) {
        let (asked, initial) = match ask {
            Ask::Change { subscribe, unsubscribe, initial } => {
                let asked = self.interest.change(self.kind, subscribe, unsubscribe, first);
                (asked, if first { initial } else { BTreeMap::new() })
            }
            Ask::Exactly(names) => (self.interest.replace(self.kind, names, first), BTreeMap::new()),
        };
        if asked != Asked::default() || !initial.is_empty() {
            self.asked(&asked, initial, target);
        }
    }

    fn asked(&mut self, asked: &Asked, initial: BTreeMap<String, String>, target: &Snapshot) {
        let wanted = self.interest.in_snapshot(self.kind, target);
        let each = match &mut self.client {
            Client::Each(each) => each,
            Client::Full(full) => return full.asked(asked, wanted),
        };
        if let State::UnderWay(sent) = &mut self.state {
            // Whether the client kept these is not known: they were on their way when it changed what it asks for.
            let sure = |name: &str| self.interest.covers(name) && !asked.renewed.contains(name);
            Arc::make_mut(&mut sent.resources).retain(|name, _| sure(name));
            sent.removed.retain(|name| sure(name));
        }
        each.asked(asked, initial, wanted);
    }

    fn turn(&mut self, phase: Phase, target: &Snapshot) -> Option<Response> {
        if !matches!(self.state, State::Settled) {
            return None;
        }
        let wanted = self.interest.in_snapshot(self.kind, target);
        let mut sent = match &mut self.client {
            Client::Each(each) => each.next(phase, wanted),
            Client::Full(full) => full.next(phase, wanted),
        }?;
        self.nonces += 1;
        sent.nonce = self.nonces.to_string();
        let response = Response {
            kind: self.kind,
            nonce: sent.nonce.clone(),
            resources: Arc::clone(&sent.resources),
            removed: sent.removed.clone(),
        };
        self.state = State::UnderWay(sent);
        Some(response)
    }
}

// === impl Wanted ===

impl<'a> Wanted<'a> {
    fn entry(&self, name: &str) -> Option<(&'a Arc<str>, &'a Arc<Resource>)> {
        if self.interest.covers(name) { self.snapshot.entry(self.kind, name) } else { None }
    }

    fn version(&self, name: &str) -> Option<Version> {
        self.entry(name).map(|(_, resource)| resource.version)
    }

    /// See [`Snapshot::leaves`].
    fn leaves(&self, name: &str) -> bool {
        self.snapshot.leaves(self.kind, name)
    }

    fn all(&self) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<Resource>)> {
        let interest = self.interest;
        self.snapshot.shared_of(self.kind).filter(move |(name, _)| interest.covers(name))
    }
}
