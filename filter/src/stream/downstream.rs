//! The stream between a client and Envoy. Its callbacks become events of its exchange.

use std::{fmt, rc::Rc};

use super::{Callback, Property, StreamHost, connected, number, text};
use crate::{
    attempt::{Failure, Failures},
    config::{Config, Place, RequestStage, Stage},
    exchange::{AnswerHead, Attempts, Chunk, Effect, Ending, Event, Exchange, Goes, Head, LastAttempt, Origin, Wants},
    headers::Headers,
    host::Shared,
    worker::Worker,
};

/// An exchange, with the configuration that it started under.
pub struct Downstream {
    config: Rc<Config>,
    exchange: Exchange,
}

/// The chunk of an answer that Envoy has in hand.
struct Current<'a> {
    host: &'a dyn StreamHost,
    size: usize,
}

/// What the names of filter chains begin with that take members of the mesh alone (`proto/policy.proto`).
const OF_MEMBERS: &[u8] = b"mesh:";

/// What identities begin with (SPIFFE-ID, 2).
const SPIFFE: &str = "spiffe://";

/// `response.code_details` of an answer that came from a backend.
const VIA_UPSTREAM: &[u8] = b"via_upstream";

// === impl Downstream ===

impl Downstream {
    pub fn new(config: Rc<Config>) -> Self {
        Self { config, exchange: Exchange::New }
    }

    pub fn wants(&self) -> Wants {
        self.exchange.wants()
    }

    pub fn request_goes(&self) -> Goes {
        self.exchange.request_goes()
    }

    /// Takes a callback. `now` gives unix milliseconds; it is called only where the time matters.
    pub fn on(
        &mut self,
        callback: Callback,
        host: &dyn StreamHost,
        shared: &dyn Shared,
        worker: &mut Worker,
        now: &dyn Fn() -> u64,
    ) -> Vec<Effect> {
        match (callback, self.exchange.wants()) {
            (Callback::RequestHeaders { end }, Wants::RequestHeaders) => {
                let now = now();
                worker.introduce(shared, || text(host, Property::Node).unwrap_or_default(), now);
                let headers = host.request_headers();
                let route = text(host, Property::Route);
                let identity = self.identity(host);
                let metadata = self.metadata(host);
                let head = Head {
                    headers: &headers,
                    route: route.as_deref(),
                    identity: identity.as_deref(),
                    metadata: metadata.as_deref(),
                };
                self.step(Event::RequestHeaders { head, end }, host, shared, worker, now)
            }
            (Callback::RequestBody { end: true } | Callback::RequestTrailers, Wants::RequestBody) => {
                self.step(Event::RequestEnd, host, shared, worker, now())
            }
            (Callback::LedgerAnswered, Wants::Ledger) => self.step(Event::LedgerAnswered, host, shared, worker, now()),
            (Callback::Tick, Wants::Ledger) => self.step(Event::Tick, host, shared, worker, now()),
            // Envoy itself may answer a request that was not sent yet.
            (Callback::AnswerHeaders { end }, Wants::AnswerHeaders | Wants::RequestBody | Wants::Ledger) => {
                let headers = host.answer_headers();
                let head = AnswerHead { headers: &headers, origin: origin(&headers, host) };
                self.step(Event::ResponseHeaders { head, end }, host, shared, worker, 0)
            }
            (Callback::AnswerBody { size, end }, Wants::AnswerBody) => {
                let chunk = Current { host, size };
                let now = if end || self.exchange.awaits_text() { now() } else { 0 };
                self.step(Event::ResponseBody { chunk: &chunk, end }, host, shared, worker, now)
            }
            (Callback::Log, wants) if wants != Wants::Nothing => {
                let ending = ending(&self.exchange, host);
                self.step(Event::Ended(ending), host, shared, worker, now())
            }
            _ => Vec::new(),
        }
    }

    /// Who the client is, where the mesh says so.
    fn identity(&self, host: &dyn StreamHost) -> Option<String> {
        let Stage::Request(RequestStage { place, .. }) = &self.config.stage else {
            return None;
        };
        match place {
            Place::Workload(_) => {}
            Place::Gateway { has_members: true } => {
                host.property(Property::FilterChain).filter(|name| name.starts_with(OF_MEMBERS))?;
            }
            Place::Gateway { has_members: false } | Place::Caller(_) => return None,
        }
        text(host, Property::ClientUri).filter(|uri| uri.starts_with(SPIFFE))
    }

    /// What Envoy has verified of the request, where somebody wants to know it.
    fn metadata(&self, host: &dyn StreamHost) -> Option<Vec<u8>> {
        match &self.config.stage {
            Stage::Request(stage) if stage.claims.are_wanted() => host.property(Property::Metadata),
            _ => None,
        }
    }

    fn step(
        &mut self,
        event: Event<'_>,
        host: &dyn StreamHost,
        shared: &dyn Shared,
        worker: &mut Worker,
        now: u64,
    ) -> Vec<Effect> {
        let Stage::Request(stage) = &self.config.stage else {
            return Vec::new();
        };
        // If a step panics, the state that is left holds the request.
        let exchange = std::mem::replace(&mut self.exchange, Exchange::Refused);
        let (exchange, mut effects) = exchange.step(event, &mut worker.desk(stage, shared, host, now));
        self.exchange = exchange;
        effects.extend(std::mem::take(&mut worker.rests).then_some(Effect::Ring));
        effects
    }
}

// === impl Current ===

impl fmt::Debug for Current<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.size)
    }
}

impl Chunk for Current<'_> {
    fn len(&self) -> usize {
        self.size
    }

    fn slice(&self, start: usize, len: usize) -> Vec<u8> {
        self.host.chunk(start, len)
    }
}

/// A good answer comes from a backend. Only for others Envoy is asked who made them, because most are good.
fn origin(headers: &Headers, host: &dyn StreamHost) -> Origin {
    let good = headers.get(":status").is_some_and(|status| status.starts_with(b"2"));
    if good || host.property(Property::CodeDetails).is_some_and(|details| details == VIA_UPSTREAM) {
        Origin::Backend
    } else {
        Origin::Envoy
    }
}

fn ending(exchange: &Exchange, host: &dyn StreamHost) -> Ending {
    let mut ending = Ending::default();
    if exchange.attempts() == Attempts::Several {
        ending.cluster = text(host, Property::Cluster);
        if let Some(failures) = host.property(Property::Failures).map(|state| Failures::decoded(&state)) {
            let last = number(host, Property::AttemptNumber).unwrap_or(u64::MAX);
            ending.unanswered = failures.unanswered_before(last);
            if failures.of(last) == Some(Failure::Refused) {
                ending.last = LastAttempt::Refused;
                return ending;
            }
        }
    }
    if exchange.is_unanswered() && connected(host) {
        ending.last = LastAttempt::Received;
    }
    ending
}
