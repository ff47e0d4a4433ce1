//! One request and its answer: the state machine of the filter. `step` takes an event and returns the next state
//! and what the host is to do. It reaches the host only through the small traits of its [`Desk`].
//!
//! ```text
//! New ─ headers ─▶ Reading ─ body ─▶ [Waiting ─ ledger ─▶] Sent ─ answer ─▶ Answering ─ end ─▶ Closed
//!  │                  │                  │                   └─ no answer ─▶ Replaced ─ end ─▶ Closed
//!  └▶ Passing         └──── Refused ◀────┘
//! ```
//! A request is charged at `Ended` and nowhere else, whoever ended the stream.

mod admit;
mod answer;
mod arrive;
mod choose;
mod fields;
mod settle;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, collections::HashMap, rc::Rc};

pub use answer::{Answer, AnswerHead, Chunk, Origin};
pub use arrive::Head;
pub use choose::Draft;
pub use settle::{Ending, LastAttempt};

use tollgate_proto::Map;

use crate::{
    body::{content_type::ContentType, held::Room},
    budget::{Bucket, Budget, Counter, Holder, Rate, Reservation},
    config::{Known, RequestStage, Rewrite, Terms},
    counters::Counters,
    errors::{Refusal, Shape},
    host::{RequestBody, Shared},
    key::{Caller, Recent, Table},
    model::{Plan, Random},
    report::{Reporter, Times},
    slices::Slices,
    usage::{Api, Habits, Tokens, Weighed},
};

/// Where a request is.
#[derive(Debug, Default)]
pub enum Exchange {
    #[default]
    New,
    /// The request is not for a model and passes as it is.
    Passing,
    /// The caller is known; the body is on its way.
    Reading(Box<Reading>),
    /// The request is held until the ledger says whether there are tokens for it.
    Waiting(Box<Waiting>),
    /// The request is on its way to a backend.
    Sent(Box<Ticket>),
    /// A backend answers.
    Answering(Box<Ticket>, Answer),
    /// No backend answered. This text takes the place of Envoy's own error.
    Replaced(Box<Ticket>, Vec<u8>),
    /// Envoy refused the request before it was sent. This text takes the place of its error.
    ReplacedEarly(Vec<u8>),
    Refused,
    Closed,
}

#[derive(Debug)]
pub struct Reading {
    /// When its headers came, in unix milliseconds.
    began: u64,
    /// The HTTPRoute's display name.
    route: Rc<str>,
    terms: Rc<Terms>,
    caller: Rc<Caller>,
    /// Those of the verified JWT that budgets are for.
    claims: Map,
    /// The model's name in the pool of the Gateway that has handed the request over.
    handed_over: Option<Rc<str>>,
    api: Api,
    shape: Shape,
    /// The path as the client sent it, and where in it the part below `/v1` begins.
    path: String,
    below: usize,
    content_type: ContentType,
}

#[derive(Debug)]
pub struct Waiting {
    draft: Draft,
    deadline: u64,
    /// The reporter knows by this number what the request needs.
    number: u64,
}

/// What is known of a request when it is admitted, for its way and for its bill.
#[derive(Debug)]
pub struct Ticket {
    began: u64,
    /// The HTTPRoute's display name.
    route: Rc<str>,
    terms: Rc<Terms>,
    caller: Rc<Caller>,
    claims: Map,
    api: Api,
    shape: Shape,
    plan: Plan,
    /// The model's name as the client asked for it.
    model: String,
    /// The model's name in the pool, for habits and scopes.
    pattern: Rc<str>,
    weighed: Weighed,
    expected: Tokens,
    wants_usage_event: bool,
    told: Told,
    /// The status of the answer, if that is an error; else 0.
    error_status: u32,
    held: Vec<Held>,
    /// The tightest budget's.
    rate: Option<Rate>,
}

/// Who tells what a request used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Here,
    /// The Gateway that has handed it over. Here it is charged, and no row tells of it.
    ByGateway,
}

/// One budget that a request is charged to.
#[derive(Debug)]
struct Held {
    budget: Budget,
    hold: Hold,
}

#[derive(Debug)]
enum Hold {
    Reserved(Reservation),
    /// Nothing is reserved. The cost is charged at the end.
    Debt,
}

/// What a step may use of its surroundings.
pub struct Desk<'a> {
    pub stage: &'a RequestStage,
    /// Classes of earlier configurations, too.
    pub known: &'a Known,
    pub shared: &'a dyn Shared,
    pub request: &'a dyn RequestBody,
    /// The number of this worker. 0: it has none yet.
    pub worker: u64,
    /// How many requests of this worker are on their way.
    pub open: &'a mut u64,
    pub random: &'a mut dyn Random,
    pub habits: &'a mut Habits,
    /// How much the streams of this worker may hold back together.
    pub room: &'a Room,
    pub reporter: &'a mut Reporter,
    pub counters: &'a mut Counters,
    pub slices: &'a mut Slices,
    /// The buckets that this worker has used of late, by the name of their record.
    pub touched: &'a mut HashMap<Rc<str>, Bucket>,
    /// The record as this worker read it last. A step reads it again when the leases seem to have expired.
    pub holder: &'a mut Holder,
    pub table: Table,
    pub callers: &'a mut Recent,
    /// Unix milliseconds.
    pub now: u64,
}

#[derive(Debug)]
pub enum Event<'a> {
    RequestHeaders {
        head: Head<'a>,
        end: bool,
    },
    /// The whole body of the request is there.
    RequestEnd,
    /// The ledger answered a call.
    LedgerAnswered,
    Tick,
    ResponseHeaders {
        head: AnswerHead<'a>,
        end: bool,
    },
    ResponseBody {
        chunk: &'a dyn Chunk,
        end: bool,
    },
    Ended(Ending),
}

/// What the host is to do, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    RemoveRequestHeader(String),
    SetRequestHeader(&'static str, Cow<'static, str>),
    /// The cluster that the route's matcher finds in filter state.
    Target(Rc<str>),
    /// Where the attempts go, for the upstream filter.
    Plan(Vec<u8>),
    /// What the route is to write instead, where something changes.
    Rewrite {
        path: Option<String>,
        authority: Option<String>,
    },
    RequestBody(Vec<u8>),
    /// Have the root call the ledger now.
    Ring,
    /// Let a held request go on.
    Resume,
    Reply {
        status: u32,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
    },
    RemoveResponseHeader(String),
    SetResponseHeader(&'static str, String),
    /// Put this in the place of the current chunk.
    ResponseBody(Vec<u8>),
    /// For access logs and spans.
    Field(fields::Name, String),
}

/// What an exchange wants to be told next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    RequestHeaders,
    /// The request is held until its body is there; Envoy may answer before.
    RequestBody,
    Ledger,
    AnswerHeaders,
    AnswerBody,
    End,
    Nothing,
}

/// Where a request goes after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goes {
    On,
    /// It is held, or it was answered here.
    Nowhere,
}

/// How a request came to its backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempts {
    /// It went to no backend.
    None,
    /// There was one attempt, as far as the filter sees.
    One,
    /// There may have been several attempts, and each is counted.
    Several,
}

/// How long a request waits for the ledger.
const PATIENCE_MS: u64 = 2000;

pub type Stepped = (Exchange, Vec<Effect>);

// === impl Exchange ===

impl Exchange {
    pub fn step(self, event: Event<'_>, desk: &mut Desk<'_>) -> Stepped {
        match (self, event) {
            (Self::New, Event::RequestHeaders { head, end }) => arrive::arrived(&head, end, desk),
            (Self::Reading(reading), Event::RequestEnd) => choose::read(*reading, desk),
            (Self::Waiting(waiting), Event::LedgerAnswered) => admit::again(*waiting, desk),
            (Self::Waiting(waiting), Event::Tick) if desk.now >= waiting.deadline => admit::late(*waiting, desk),
            (Self::Waiting(waiting), Event::Ended(_)) => admit::left(&waiting, desk),
            (Self::Reading(reading), Event::ResponseHeaders { head, end }) => {
                answer::refused_by_envoy(reading.shape, &head, end, desk)
            }
            (Self::Waiting(waiting), Event::ResponseHeaders { head, end }) => {
                desk.reporter.let_go(waiting.number);
                answer::refused_by_envoy(waiting.draft.ticket.shape, &head, end, desk)
            }
            (Self::Sent(ticket), Event::ResponseHeaders { head, end }) => answer::began(ticket, &head, end, desk),
            (Self::Answering(ticket, answer), Event::ResponseBody { chunk, end }) => {
                answer::goes_on(ticket, answer, chunk, end, desk)
            }
            (Self::Replaced(ticket, body), Event::ResponseBody { .. }) => {
                (Self::Replaced(ticket, Vec::new()), vec![Effect::ResponseBody(body)])
            }
            (Self::ReplacedEarly(body), Event::ResponseBody { .. }) => {
                (Self::ReplacedEarly(Vec::new()), vec![Effect::ResponseBody(body)])
            }
            (Self::Sent(ticket), Event::Ended(ending)) => settle::without_answer(*ticket, &ending, desk),
            (Self::Answering(ticket, answer), Event::Ended(ending)) => settle::answered(*ticket, answer, &ending, desk),
            (Self::Replaced(ticket, _), Event::Ended(ending)) => settle::without_answer(*ticket, &ending, desk),
            (_, Event::Ended(_)) => (Self::Closed, Vec::new()),
            // Nothing of what the filter makes itself, or passes by, is looked at.
            (state, _) => (state, Vec::new()),
        }
    }

    /// What the exchange has to be told next of its stream. Nothing else is fetched from Envoy.
    pub fn wants(&self) -> Wants {
        match self {
            Self::New => Wants::RequestHeaders,
            Self::Reading(_) => Wants::RequestBody,
            Self::Waiting(_) => Wants::Ledger,
            Self::Sent(_) => Wants::AnswerHeaders,
            Self::Answering(_, answer) if answer.wants_bytes() => Wants::AnswerBody,
            Self::Replaced(..) | Self::ReplacedEarly(_) => Wants::AnswerBody,
            Self::Answering(..) => Wants::End,
            Self::Passing | Self::Refused | Self::Closed => Wants::Nothing,
        }
    }

    /// Whether the request goes further.
    pub fn request_goes(&self) -> Goes {
        match self {
            Self::Reading(_) | Self::Waiting(_) | Self::Refused => Goes::Nowhere,
            _ => Goes::On,
        }
    }

    /// Whether it matters when the next chunk comes.
    pub fn awaits_text(&self) -> bool {
        matches!(self, Self::Answering(_, answer) if answer.awaits_text())
    }

    /// Whether the request was sent and no backend's answer came.
    pub fn is_unanswered(&self) -> bool {
        matches!(self, Self::Sent(_) | Self::Replaced(..))
    }

    /// What its end has to find out about its attempts.
    pub fn attempts(&self) -> Attempts {
        match self {
            Self::Sent(ticket) | Self::Replaced(ticket, _) | Self::Answering(ticket, _) => ticket.attempts(),
            _ => Attempts::None,
        }
    }

    fn refused(refusal: &Refusal, shape: Shape, mut effects: Vec<Effect>, desk: &mut Desk<'_>) -> Stepped {
        desk.counters.refused(refusal.code());
        let reply = refusal.reply(shape);
        effects.extend(fields::of_refusal(refusal, desk.stage));
        let mut headers = vec![("content-type", "application/json".to_owned())];
        if let Some(seconds) = reply.retry_after_s {
            headers.push(("retry-after", seconds.to_string()));
        }
        effects.push(Effect::Reply { status: reply.status, headers, body: reply.body });
        (Self::Refused, effects)
    }
}

// === impl Desk ===

impl<'a> Desk<'a> {
    /// How long the leases are valid. If they seem to have expired, another worker's call may have extended them.
    fn holder(&mut self) -> Holder {
        if self.now >= self.holder.expires_at {
            *self.holder = Holder::read(self.shared);
        }
        *self.holder
    }

    fn counter(&mut self) -> Counter<'a> {
        Counter { shared: self.shared, worker: self.worker, holder: self.holder(), now: self.now }
    }

    fn touch(&mut self, bucket: &Bucket) {
        if !self.touched.contains_key(&bucket.key) {
            self.touched.insert(bucket.key.clone(), bucket.clone());
        }
    }
}

// === impl Ticket ===

impl Ticket {
    fn times(&self, spoke: Option<u64>, ended: u64) -> Times {
        Times { began: self.began, spoke, ended }
    }

    fn attempts(&self) -> Attempts {
        match self.plan.first().map(|target| target.backend.rewrite) {
            Some(Rewrite::PerAttempt) => Attempts::Several,
            Some(Rewrite::Once | Rewrite::ByHeaders | Rewrite::Nobody) | None => Attempts::One,
        }
    }
}

/// What an answer's headers say of a budget.
fn rate_headers(rate: Rate) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        ("x-ratelimit-limit-tokens", rate.limit.to_string()),
        ("x-ratelimit-remaining-tokens", rate.remaining.to_string()),
    ];
    if let Some(seconds) = rate.reset_s {
        headers.push(("x-ratelimit-reset-tokens", duration(seconds)));
    }
    headers
}

/// A duration as OpenAI writes it: `1h30m0s`.
fn duration(seconds: u64) -> String {
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, minutes) => format!("{minutes}m{rest}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}s"),
    }
}
