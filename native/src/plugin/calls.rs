//! The calls of one configuration that are under way, and what came on them.

use std::collections::HashMap;

use crate::{
    grpc::{self, Messages},
    host::{Config, Started},
};

#[derive(Debug, Default)]
pub struct Calls {
    by_place: HashMap<(Config, Started), State>,
    /// Ended with Envoy's object, and nobody was told yet.
    lost: Vec<Call>,
}

/// Whose call it is, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    pub island: usize,
    /// The number by which the island's root knows it.
    pub token: u32,
    pub sort: Sort,
}

#[derive(Debug)]
struct State {
    call: Call,
    messages: Messages,
    /// The ledger's answer, until its status is there.
    answer: Option<Vec<u8>>,
    status: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// One message there and one back.
    Ledger,
    /// A stream of messages in both directions.
    Keys,
}

/// What a root is to hear of a call.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    Message(Vec<u8>),
    Ended { status: u32, answer: Option<Vec<u8>> },
}

// === impl Calls ===

impl Calls {
    pub fn began(&mut self, config: Config, started: Started, call: Call) {
        let state = State { call, messages: Messages::default(), answer: None, status: None };
        self.by_place.insert((config, started), state);
    }

    /// Where the call is that a root knows by this number.
    pub fn of_token(&self, token: u32) -> Option<(Config, Started)> {
        self.by_place.iter().find(|(_, state)| state.call.token == token).map(|(place, _)| *place)
    }

    /// Headers (`began`) or trailers came.
    pub fn fields(&mut self, config: Config, started: Started, fields: &[(Vec<u8>, Vec<u8>)], began: bool) {
        if let Some(state) = self.by_place.get_mut(&(config, started)) {
            state.status = state.status.or(grpc::status(fields, began));
        }
    }

    /// Bytes came. The messages of a stream are for its root at once; the answer of a call waits for its status.
    pub fn bytes(&mut self, config: Config, started: Started, bytes: &[u8]) -> Vec<(Call, News)> {
        let Some(state) = self.by_place.get_mut(&(config, started)) else {
            return Vec::new();
        };
        match (state.messages.take(bytes), state.call.sort) {
            (Ok(messages), Sort::Keys) => {
                messages.into_iter().map(|message| (state.call, News::Message(message))).collect()
            }
            (Ok(messages), Sort::Ledger) => {
                state.answer = messages.into_iter().last().or(state.answer.take());
                Vec::new()
            }
            (Err(grpc::Unreadable), _) => {
                state.status = Some(grpc::UNKNOWN);
                Vec::new()
            }
        }
    }

    /// The call is over. `status`: nobody said how, and this is why.
    pub fn ended(&mut self, config: Config, started: Started, status: u32) -> Option<(Call, News)> {
        let state = self.by_place.remove(&(config, started))?;
        let status = state.status.unwrap_or(status);
        Some((state.call, News::Ended { status, answer: state.answer.filter(|_| status == 0) }))
    }

    /// Envoy destroys this object, and the calls that were made by it with it.
    pub fn lose(&mut self, config: Config) {
        let lost = self.take(|of, _| of == config);
        self.lost.extend(lost.into_iter().map(|(_, _, call)| call));
    }

    /// Those that were lost since the last time.
    pub fn take_lost(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.lost)
    }

    /// Takes out those that are chosen.
    pub fn take(&mut self, mut choose: impl FnMut(Config, Call) -> bool) -> Vec<(Config, Started, Call)> {
        let taken = self.by_place.extract_if(|(config, _), state| choose(*config, state.call));
        taken.map(|((config, started), state)| (config, started, state.call)).collect()
    }
}
