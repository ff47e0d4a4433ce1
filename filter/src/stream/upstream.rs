//! The stream between Envoy and a backend: one attempt. Its callbacks become orders for the host.

use std::rc::Rc;

use super::{Callback, Property, StreamHost, connected, number, text};
use crate::{
    attempt::{AttemptPlan, Body, Decision, Failure, Failures, Told, decide},
    body::rewrite::{Edit, apply},
    config::{Config, Stage},
    exchange::Goes,
    handover, key,
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

#[derive(Debug, Clone, Copy)]
struct Attempt {
    number: u64,
    place: u8,
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
        // This comes first, whatever comes after: no attempt carries the credential of the one before.
        let mut orders: Vec<Order> = key::HEADERS.into_iter().map(Order::RemoveHeader).collect();
        let Stage::Attempt(stage) = &self.config.stage else {
            orders.push(Order::End { status: UNAVAILABLE });
            return (State::Ended, orders);
        };
        let plan = host.property(Property::Plan).filter(|plan| !plan.is_empty());
        // A plan that cannot be read counts as one that knows no attempt.
        let plan = plan.map(|plan| AttemptPlan::decoded(&plan).unwrap_or_default());
        let attempt_number = number(host, Property::AttemptNumber).unwrap_or(1);
        let cluster = text(host, Property::Cluster).unwrap_or_default();
        let rewritten = match decide(plan.as_ref(), stage, attempt_number, &cluster) {
            Decision::Mine(rewritten) => rewritten,
            Decision::NotMine => return (State::Done, orders),
            Decision::Foreign => {
                orders.push(Order::End { status: UNAVAILABLE });
                return (State::Ended, orders);
            }
        };
        orders.push(Order::SetHeader(":path", rewritten.path));
        orders.extend(rewritten.authority.map(|authority| Order::SetHeader(":authority", authority)));
        match rewritten.handover {
            Told::Nothing => {}
            Told::This(handover) => orders.push(Order::SetHeader(handover::HEADER, handover)),
            Told::NotHere => orders.push(Order::RemoveHeader(handover::HEADER)),
        }
        orders.extend(rewritten.next_target.map(Order::Target));
        orders.push(Order::SetHeader("content-length", rewritten.content_length.to_string()));
        let attempt = Attempt { number: attempt_number, place: rewritten.place };
        match rewritten.body {
            Body::Rename { edit } if !end => (State::Renaming { edit, attempt }, orders),
            Body::Rename { .. } | Body::AsItIs => (State::Sent(attempt), orders),
        }
    }
}

/// The backend has answered. Only an error is noted, because another attempt may follow it.
fn answered(attempt: Attempt, host: &dyn StreamHost) -> (State, Vec<Order>) {
    let headers = host.answer_headers();
    let status = headers.iter().find(|(name, _)| name == ":status").map(|(_, value)| value.as_slice());
    let orders = if status.is_some_and(|status| status >= ERROR) {
        vec![note(attempt, Failure::Refused, host)]
    } else {
        Vec::new()
    };
    (State::Done, orders)
}

/// The attempt ended without an answer. A backend may have worked on it if there was a connection.
fn left(attempt: Attempt, host: &dyn StreamHost) -> (State, Vec<Order>) {
    let orders = if connected(host) { vec![note(attempt, Failure::Unanswered, host)] } else { Vec::new() };
    (State::Done, orders)
}

fn note(attempt: Attempt, failure: Failure, host: &dyn StreamHost) -> Order {
    let earlier = host.property(Property::Failures).map(|state| Failures::decoded(&state)).unwrap_or_default();
    Order::Failures(earlier.with(attempt.number, attempt.place, failure).encoded())
}
