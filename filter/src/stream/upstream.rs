//! The stream between Envoy and a backend: one attempt. Its callbacks become orders for the host.

use std::rc::Rc;

use super::{Callback, Property, StreamHost, connected, number, text};
use crate::{
    attempt::{AttemptPlan, Body, Decision, Failure, Failures, Told, decide},
    body::rewrite::{Edit, apply},
    config::{Config, Stage},
    exchange::Goes,
    handover,
};

/// Where an attempt is.
#[derive(Debug)]
enum State {
    New,
    /// Its headers are held until its body is there. Then the model's name in the body becomes this backend's.
    Renaming {
        edit: Edit,
        attempt: Attempt,
    },
    /// On its way.
    Sent(Attempt),
    /// Nothing more is to be noted of it.
    Done,
    /// It was ended here, because its plan or configuration does not know it.
    Ended,
}

#[derive(Debug)]
struct Attempt {
    place: u8,
    /// Where the one after it goes.
    next_target: Option<String>,
}

/// What the host is to do with an attempt, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Order {
    RemoveHeader(&'static str),
    SetHeader(&'static str, String),
    /// Where the attempt after this one goes.
    Target(String),
    Body(Vec<u8>),
    Failures(Vec<u8>),
    /// Answer with this status in the place of the backend.
    End {
        status: u32,
    },
}

/// One attempt at a backend.
pub struct Upstream {
    config: Rc<Config>,
    state: State,
}

/// The status of an attempt that is not made.
const UNAVAILABLE: u32 = 503;
/// The lowest status of an error.
const ERROR: &[u8] = b"400";

// === impl Upstream ===

impl Upstream {
    pub fn new(config: Rc<Config>) -> Self {
        Self { config, state: State::New }
    }

    pub fn request_goes(&self) -> Goes {
        match self.state {
            State::Renaming { .. } | State::Ended => Goes::Nowhere,
            State::New | State::Sent(_) | State::Done => Goes::On,
        }
    }

    /// Takes a callback.
    pub fn on(&mut self, callback: Callback, host: &dyn StreamHost) -> Vec<Order> {
        let state = std::mem::replace(&mut self.state, State::Ended);
        let (state, orders) = match (state, callback) {
            (State::New, Callback::RequestHeaders { end }) => self.arrived(end, host),
            (State::Renaming { edit, attempt }, Callback::RequestBody { end: true } | Callback::RequestTrailers) => {
                (State::Sent(attempt), vec![Order::Body(apply(&host.read(), vec![edit]))])
            }
            (State::Sent(attempt), Callback::AnswerHeaders { .. }) => answered(attempt, host),
            (State::Sent(attempt), Callback::Done) => left(attempt, host),
            (state, _) => (state, Vec::new()),
        };
        self.state = state;
        orders
    }

    fn arrived(&self, end: bool, host: &dyn StreamHost) -> (State, Vec<Order>) {
        let end_it = || (State::Ended, vec![Order::End { status: UNAVAILABLE }]);
        let Stage::Attempt(stage) = &self.config.stage else { return end_it() };
        let plan = host.property(Property::Plan).filter(|plan| !plan.is_empty());
        // A plan that cannot be read counts as one that knows no attempt.
        let plan = plan.map(|plan| AttemptPlan::decoded(&plan).unwrap_or_default());
        let cluster = text(host, Property::Cluster).unwrap_or_default();
        let rewritten = match decide(plan.as_ref(), stage, || attempt_number(host), &cluster) {
            Decision::Mine(rewritten) => rewritten,
            Decision::NotMine => return (State::Done, Vec::new()),
            Decision::Foreign => return end_it(),
        };
        let mut orders = vec![Order::SetHeader(":path", rewritten.path)];
        orders.extend(rewritten.authority.map(|authority| Order::SetHeader(":authority", authority)));
        match rewritten.handover {
            Told::Nothing => {}
            Told::This(handover) => orders.push(Order::SetHeader(handover::HEADER, handover)),
            Told::NotHere => orders.push(Order::RemoveHeader(handover::HEADER)),
        }
        let length = rewritten.content_length.map(|length| Order::SetHeader("content-length", length.to_string()));
        orders.extend(length);
        let attempt = Attempt { place: rewritten.place, next_target: rewritten.next_target };
        match rewritten.body {
            Body::Rename { edit } if !end => (State::Renaming { edit, attempt }, orders),
            Body::Rename { .. } | Body::AsItIs => (State::Sent(attempt), orders),
        }
    }
}

/// The backend has answered. Only an error is noted, because another attempt may follow it, and that is when it matters
/// where the next one goes.
fn answered(attempt: Attempt, host: &dyn StreamHost) -> (State, Vec<Order>) {
    if host.answer_headers().get(":status").is_none_or(|status| status < ERROR) {
        return (State::Done, Vec::new());
    }
    let note = note(&attempt, Failure::Refused, host);
    (State::Done, attempt.next_target.map(Order::Target).into_iter().chain([note]).collect())
}

/// The attempt ended without an answer. A backend may have worked on it if there was a connection.
fn left(attempt: Attempt, host: &dyn StreamHost) -> (State, Vec<Order>) {
    let note = connected(host).then(|| note(&attempt, Failure::Unanswered, host));
    (State::Done, attempt.next_target.map(Order::Target).into_iter().chain(note).collect())
}

fn note(attempt: &Attempt, failure: Failure, host: &dyn StreamHost) -> Order {
    let earlier = host.property(Property::Failures).map(|state| Failures::decoded(&state)).unwrap_or_default();
    Order::Failures(earlier.with(attempt_number(host), attempt.place, failure).encoded())
}

/// Envoy counts the next attempt when it begins, and so after all callbacks of this one.
fn attempt_number(host: &dyn StreamHost) -> u64 {
    number(host, Property::AttemptNumber).unwrap_or(1)
}
