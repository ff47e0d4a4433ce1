//! The root of one configuration: the part that belongs to no request. It keeps the conversations with the
//! control plane going and lets held requests go on. A VM has one root for each configuration that still has
//! streams; the newest one acts for the worker, the older ones only see their streams end.
//!
//! ```text
//! Serving ─ done ─▶ Going (a last report is on its way) ─ answered, or too late ─▶ Gone
//! ```
//! `step` takes an event and returns orders; an order whose result matters comes back as an event.

#[cfg(test)]
mod tests;

use prost::Message as _;
use tollgate_proto::{delta::DeltaDiscoveryResponse, v1 as wire};

use crate::{host::Shared, stream::Callback, table, worker::Taken, worker::Worker};

/// How long a root that is going may take for its last report.
pub const GOING_MS: u64 = 2000;
/// How often a root ticks at first.
pub const LIVELY_MS: u64 = 100;
/// Less than a worker may be silent before another one takes its part (`table.rs`, `roll.rs`).
pub const RESTING_MS: u64 = 1000;

/// The root of one configuration of the request stage.
#[derive(Debug)]
pub struct Root {
    id: u32,
    life: Life,
    /// The call to the ledger that is under way.
    call: Option<u32>,
    /// The stream of keys that is open.
    keys: Option<u32>,
    bell: Bell,
    tempo: Tempo,
}

/// How often a root ticks. Each tick costs a core some 200 us, in every worker of every proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tempo {
    /// Something is under way.
    Lively,
    /// Nothing has happened of late. The next request rings the bell.
    Resting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Serving,
    Going { until: u64 },
    Gone,
}

/// The queue by which a worker's streams call their root at once. A stream does not call the ledger itself,
/// because the answer would be lost when the stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bell {
    None,
    Hung,
}

#[derive(Debug)]
pub enum RootEvent<'a> {
    Configured,
    Tick,
    Rang,
    /// [`RootOrder::Wake`] was carried out with this callback.
    Woken(Callback),
    /// [`RootOrder::Call`] was carried out. None: the call could not be sent.
    CallSent(Option<u32>),
    /// A call has ended. `answer` is its message if it succeeded.
    CallEnded {
        token: u32,
        status: u32,
        answer: Option<&'a [u8]>,
    },
    KeysOpened(Option<u32>),
    KeysMessage {
        token: u32,
        message: &'a [u8],
    },
    KeysClosed {
        token: u32,
    },
    /// Envoy wants to delete this root.
    Done,
}

/// What the host is to do, in order.
#[derive(Debug, PartialEq)]
pub enum RootOrder {
    /// Call the ledger; the result is [`RootEvent::CallSent`].
    Call(Vec<u8>),
    /// Open the stream of keys; the result is [`RootEvent::KeysOpened`].
    OpenKeys,
    SendKeys {
        token: u32,
        message: Vec<u8>,
    },
    CloseKeys {
        token: u32,
    },
    /// Give this callback to the held requests; then comes [`RootEvent::Woken`].
    Wake(Callback),
    HangBell {
        name: String,
    },
    /// Tick so often from now on.
    TickEvery {
        millis: u64,
    },
    ExportMetrics,
    Warn(&'static str),
    /// Tell Envoy that it may delete this root.
    Gone,
}

/// What a root acts on.
pub struct Surroundings<'a> {
    pub worker: &'a mut Worker,
    pub shared: &'a dyn Shared,
    /// Envoy's node id.
    pub node: &'a dyn Fn() -> String,
    /// Unix milliseconds.
    pub now: u64,
}

// === impl Root ===

impl Root {
    pub fn new(id: u32) -> Self {
        Self { id, life: Life::Serving, call: None, keys: None, bell: Bell::None, tempo: Tempo::Lively }
    }

    /// Envoy may delete this root now.
    pub fn is_gone(&self) -> bool {
        self.life == Life::Gone
    }

    pub fn step(&mut self, event: RootEvent<'_>, around: &mut Surroundings<'_>) -> Vec<RootOrder> {
        // Envoy lets go of it a little later; taking over meanwhile would leave nobody acting.
        if self.is_gone() {
            return Vec::new();
        }
        match event {
            RootEvent::Configured => {
                self.take_over(around);
                self.hang_bell(around)
            }
            RootEvent::Tick => self.tick(around),
            RootEvent::Rang => self.rang(around),
            RootEvent::Woken(Callback::Tick) => self.at_a_pace(around),
            RootEvent::Woken(_) => self.hurry(around),
            RootEvent::CallSent(Some(token)) => {
                self.call = Some(token);
                Vec::new()
            }
            RootEvent::CallSent(None) => {
                around.worker.reporter.failed(around.now);
                Vec::new()
            }
            RootEvent::CallEnded { token, status, answer } if self.call == Some(token) => {
                self.call = None;
                self.call_ended(status, answer, around)
            }
            RootEvent::KeysOpened(token) => self.keys_opened(token, around),
            RootEvent::KeysMessage { token, message } if self.keys == Some(token) => keys_came(token, message, around),
            RootEvent::KeysClosed { token } if self.keys == Some(token) => {
                self.keys = None;
                around.worker.keys_closed(Some(token), around.now);
                around.worker.rests = false;
                self.keep_tempo(around).into_iter().collect()
            }
            RootEvent::Done => self.done(around),
            // These are about a call or a stream that was given up.
            RootEvent::CallEnded { .. } | RootEvent::KeysMessage { .. } | RootEvent::KeysClosed { .. } => Vec::new(),
        }
    }

    fn tick(&mut self, around: &mut Surroundings<'_>) -> Vec<RootOrder> {
        if matches!(self.life, Life::Going { until } if around.now >= until) {
            return self.gone(around);
        }
        if !self.acts(around) {
            return self.step_back();
        }
        around.worker.introduce(around.shared, around.node, around.now);
        let mut orders = self.hang_bell(around);
        around.worker.refresh(around.shared);
        around.worker.sweep(around.shared, around.now);
        orders.push(RootOrder::ExportMetrics);
        match around.worker.keep_keys(around.shared, around.now) {
            table::Step::Open => orders.push(RootOrder::OpenKeys),
            table::Step::Close(token) => orders.extend(self.close(token)),
            table::Step::Nothing => {}
        }
        orders.push(RootOrder::Wake(Callback::Tick));
        around.worker.rests = around.worker.is_quiet() && self.life == Life::Serving;
        orders.extend(self.keep_tempo(around));
        orders
    }

    /// Ticks as often as there is a reason to.
    fn keep_tempo(&mut self, around: &Surroundings<'_>) -> Option<RootOrder> {
        let (tempo, millis) =
            if around.worker.rests { (Tempo::Resting, RESTING_MS) } else { (Tempo::Lively, LIVELY_MS) };
        (std::mem::replace(&mut self.tempo, tempo) != tempo).then_some(RootOrder::TickEvery { millis })
    }

    /// A request is held, or it is the first one after a rest.
    fn rang(&mut self, around: &mut Surroundings<'_>) -> Vec<RootOrder> {
        if !self.acts(around) {
            return Vec::new();
        }
        let mut orders: Vec<RootOrder> = self.keep_tempo(around).into_iter().collect();
        orders.extend(self.report(around));
        orders
    }

    /// Whether this root acts for its VM. It takes over if no other root acts.
    fn acts(&mut self, around: &mut Surroundings<'_>) -> bool {
        if around.worker.owner.is_none() {
            self.take_over(around);
        }
        around.worker.owner == Some(self.id)
    }

    /// Takes over from another root. The worker opens or sends again what that root had under way.
    fn take_over(&mut self, around: &mut Surroundings<'_>) {
        self.bell = Bell::None;
        around.worker.owner = Some(self.id);
        around.worker.rests = false;
        around.worker.reporter.orphaned(around.now);
        around.worker.keeper.orphaned(around.now);
    }

    /// Takes the bell to itself. The worker has one, at the root that hung it last.
    fn hang_bell(&mut self, around: &Surroundings<'_>) -> Vec<RootOrder> {
        let (Bell::None, Some(identity)) = (self.bell, around.worker.identity(around.shared)) else {
            return Vec::new();
        };
        self.bell = Bell::Hung;
        vec![RootOrder::HangBell { name: format!("tollgate/{}", identity.worker) }]
    }

    /// Closes what this root has open, because another root acts.
    fn step_back(&mut self) -> Vec<RootOrder> {
        self.keys.take().map(|token| RootOrder::CloseKeys { token }).into_iter().collect()
    }

    fn close(&mut self, token: u32) -> Option<RootOrder> {
        self.keys.take_if(|open| *open == token).map(|token| RootOrder::CloseKeys { token })
    }

    /// Sends what is due to the ledger. Only the root that acts does so: Envoy deletes the others with their last stream,
    /// and their calls end without a word.
    fn report(&mut self, around: &mut Surroundings<'_>) -> Vec<RootOrder> {
        if !self.acts(around) {
            return Vec::new();
        }
        let call = around.worker.next_call(around.shared, around.now);
        call.map(|call| RootOrder::Call(call.encode_to_vec())).into_iter().collect()
    }

    fn call_ended(&mut self, status: u32, answer: Option<&[u8]>, around: &mut Surroundings<'_>) -> Vec<RootOrder> {
        if let Some(answer) = answer.and_then(|answer| wire::SyncResponse::decode(answer).ok()) {
            let granted = around.worker.ledger_answered(around.shared, answer, around.now);
            return if granted { vec![RootOrder::Wake(Callback::LedgerAnswered)] } else { self.hurry(around) };
        }
        let taken = around.worker.ledger_failed(status, around.now);
        let dropped = (taken == Taken::Never)
            .then_some(RootOrder::Warn("tollgate: the ledger refused a report for good; it is dropped"));
        dropped.into_iter().chain(self.hurry(around)).collect()
    }

    /// Sends the next report at once if a held request needs tokens, or if this root is going. All else waits for the
    /// tick: a call costs more than a request, so calls must not follow each other as fast as they are answered.
    fn hurry(&mut self, around: &mut Surroundings<'_>) -> Vec<RootOrder> {
        let is_going = matches!(self.life, Life::Going { .. });
        if is_going || around.worker.reporter.holds() { self.go_on(around) } else { Vec::new() }
    }

    /// Sends the next report unless that can wait. A root that is going waits for nothing.
    fn at_a_pace(&mut self, around: &mut Surroundings<'_>) -> Vec<RootOrder> {
        if self.life == Life::Serving && around.worker.can_wait(around.now) { Vec::new() } else { self.go_on(around) }
    }

    /// Sends the next report. A root that is going is gone once all reports are answered.
    fn go_on(&mut self, around: &mut Surroundings<'_>) -> Vec<RootOrder> {
        if matches!(self.life, Life::Going { .. }) && around.worker.reporter.is_done() {
            return self.gone(around);
        }
        self.report(around)
    }

    fn keys_opened(&mut self, token: Option<u32>, around: &mut Surroundings<'_>) -> Vec<RootOrder> {
        let Some(token) = token else {
            around.worker.keys_closed(None, around.now);
            return Vec::new();
        };
        self.keys = Some(token);
        let first = around.worker.keeper.opened(token, &(around.node)());
        first.map(|first| RootOrder::SendKeys { token, message: first.encode_to_vec() }).into_iter().collect()
    }

    fn done(&mut self, around: &mut Surroundings<'_>) -> Vec<RootOrder> {
        let mut orders = self.step_back();
        if !self.acts(around) {
            self.life = Life::Gone;
            return orders;
        }
        around.worker.put_slices_back(around.shared, around.now);
        orders.extend(self.report(around));
        if around.worker.reporter.is_done() {
            around.worker.owner = None;
            self.life = Life::Gone;
        } else {
            self.life = Life::Going { until: around.now.saturating_add(GOING_MS) };
        }
        orders
    }

    fn gone(&mut self, around: &mut Surroundings<'_>) -> Vec<RootOrder> {
        self.life = Life::Gone;
        if around.worker.owner == Some(self.id) {
            around.worker.put_slices_back(around.shared, around.now);
            around.worker.owner = None;
        }
        // A root that goes keeps ticking until then, and may have opened a stream.
        let mut orders = self.step_back();
        orders.push(RootOrder::Gone);
        orders
    }
}

fn keys_came(token: u32, message: &[u8], around: &mut Surroundings<'_>) -> Vec<RootOrder> {
    let Ok(response) = DeltaDiscoveryResponse::decode(message) else {
        return vec![RootOrder::Warn("tollgate: the control plane's answer about keys could not be read")];
    };
    let Some(reply) = around.worker.keys_came(around.shared, token, response) else {
        return Vec::new();
    };
    // Who waits for the proxy to be ready waits for this count.
    vec![RootOrder::SendKeys { token, message: reply.encode_to_vec() }, RootOrder::ExportMetrics]
}
