//! The answer as it passes. Its headers get the rate limits. Its body is read for usage and never held back as a
//! whole. An error that Envoy made becomes an error of the API; a backend's own error passes unchanged.

use super::{Desk, Effect, Exchange, Stepped, Ticket, fields};
use crate::{
    body::{
        held::{Passed, Room},
        sse::{LastText, Scan, UsageOnly},
    },
    config::Mode,
    errors::{Refusal, Shape},
    headers::{self, Headers},
    usage::{
        Api, Habit, Tally, Tokens, Used,
        reader::{Form, Reader},
        tally::{Case, Delivery, End},
    },
};

/// The headers of an answer.
#[derive(Debug, Clone, Copy)]
pub struct AnswerHead<'a> {
    pub headers: &'a Headers,
    pub origin: Origin,
}

/// Who made an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Backend,
    /// Envoy made it, and nothing came from a backend.
    Envoy,
}

/// A chunk of an answer in Envoy's memory. It is read in slices, so that a large one is never copied whole.
pub trait Chunk: std::fmt::Debug {
    fn len(&self) -> usize;
    /// So many bytes from `start` on, or as many as there are.
    fn slice(&self, start: usize, len: usize) -> Vec<u8>;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What kind of answer it is, and what has been seen of it.
#[derive(Debug)]
pub struct Answer {
    status: u32,
    body: Body,
    end: End,
    /// When the first text of a stream came, in unix milliseconds.
    spoke: Option<u64>,
}

#[derive(Debug)]
enum Body {
    Events(Box<Scan>),
    Json(Box<Json>),
    /// Text that does not tell its usage. Only its bytes are counted.
    Text {
        bytes: u64,
    },
    /// The backend compressed it, although nobody asked for that. Its bytes tell nothing.
    Coded,
    /// Its bytes are no tokens, as those of sound are not.
    Opaque,
}

/// A JSON answer, or several one after the other.
#[derive(Debug)]
struct Json {
    delivery: Delivery,
    reader: Reader,
    tally: Tally,
}

/// Headers that only this gateway sends. What an account of a provider has left, clients would take for their own.
const NOT_THE_BACKENDS: [&str; 3] = ["x-tollgate-", "x-ratelimit-", "anthropic-ratelimit-"];
/// How many bytes of a chunk are read at once.
const SLICE: usize = 64 << 10;

pub(super) fn began(mut ticket: Box<Ticket>, head: &AnswerHead<'_>, end: bool, desk: &mut Desk<'_>) -> Stepped {
    if head.origin == Origin::Envoy {
        let refusal = Refusal::of_envoy(head.status(), desk.stage.envoy_holds());
        desk.counters.refused(refusal.code());
        ticket.error_status = refusal.status();
        let (body, mut effects) = replace(&refusal, ticket.shape, end);
        effects.extend(fields::of_refusal(&refusal, desk.stage));
        return (Exchange::Replaced(ticket, body), effects);
    }
    let status = head.status();
    ticket.error_status = if status >= 400 { status } else { 0 };
    let mut effects: Vec<Effect> = head
        .headers
        .iter()
        .filter(|(name, _)| NOT_THE_BACKENDS.iter().any(|prefix| name.starts_with(prefix.as_bytes())))
        .map(|(name, _)| Effect::RemoveResponseHeader(headers::owned(name)))
        .collect();
    if let Some(rate) = ticket.rate {
        effects
            .extend(super::rate_headers(rate).into_iter().map(|(name, value)| Effect::SetResponseHeader(name, value)));
    }
    let body = body(&ticket, head, desk.room);
    if !ticket.wants_usage_event && matches!(body, Body::Events(_)) && head.headers.get("content-length").is_some() {
        effects.push(Effect::RemoveResponseHeader("content-length".to_owned()));
    }
    let end = if end { End::Whole } else { End::Early };
    (Exchange::Answering(ticket, Answer { status, body, end, spoke: None }), effects)
}

fn body(ticket: &Ticket, head: &AnswerHead<'_>, room: &Room) -> Body {
    let kind = head.headers.get("content-type").unwrap_or_default();
    let is = |prefix: &[u8]| kind.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    let json = |delivery| Body::Json(Box::new(Json { delivery, reader: Reader::default(), tally: Tally::default() }));
    if head.headers.get("content-encoding").is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
        Body::Coded
    } else if is(b"text/event-stream") {
        let usage_only = if ticket.wants_usage_event { UsageOnly::Keep } else { UsageOnly::Remove };
        let last_text = if ticket.is_limited() { LastText::Hold } else { LastText::Pass };
        Body::Events(Box::new(Scan::new(usage_only, last_text, room)))
    } else if is(b"application/json") || kind.is_empty() {
        json(Delivery::AtOnce)
    } else if is(b"application/") && kind.windows(4).any(|part| part == b"json") {
        json(Delivery::AsStream)
    } else if is(b"text/") || is(b"application/") && !is(b"application/octet-stream") {
        Body::Text { bytes: 0 }
    } else {
        Body::Opaque
    }
}

pub(super) fn goes_on(
    ticket: Box<Ticket>,
    mut answer: Answer,
    chunk: &dyn Chunk,
    end: bool,
    desk: &mut Desk<'_>,
) -> Stepped {
    let mut effects: Vec<Effect> = answer.read(chunk, end).map(Effect::ResponseBody).into_iter().collect();
    if answer.awaits_text() && answer.shown_bytes() > 0 {
        answer.spoke = Some(desk.now);
    }
    if end {
        effects.extend(fields::of_answer(&ticket, &mut answer, desk));
    }
    (Exchange::Answering(ticket, answer), effects)
}

/// Envoy refused the request while its body was read, because it was too large or broken.
pub(super) fn refused_by_envoy(shape: Shape, head: &AnswerHead<'_>, end: bool, desk: &mut Desk<'_>) -> Stepped {
    let refusal = Refusal::of_envoy(head.status(), desk.stage.envoy_holds());
    desk.counters.refused(refusal.code());
    let (body, mut effects) = replace(&refusal, shape, end);
    effects.extend(fields::of_refusal(&refusal, desk.stage));
    (Exchange::ReplacedEarly(body), effects)
}

/// Puts an error of the API in the place of Envoy's text.
fn replace(refusal: &Refusal, shape: Shape, end: bool) -> (Vec<u8>, Vec<Effect>) {
    let body = refusal.body(shape);
    let kind = ("content-type", "application/json".to_owned());
    if end {
        let status = refusal.status();
        return (Vec::new(), vec![Effect::Reply { status, headers: vec![kind], body }]);
    }
    let effects = vec![
        Effect::SetResponseHeader(kind.0, kind.1),
        Effect::SetResponseHeader("content-length", body.len().to_string()),
    ];
    (body, effects)
}

// === impl AnswerHead ===

impl AnswerHead<'_> {
    fn status(&self) -> u32 {
        // Envoy has made sure that it is three digits.
        let digits = self.headers.get(":status").unwrap_or_default().iter().take(3);
        digits.fold(0, |status, digit| status * 10 + u32::from(digit.saturating_sub(b'0')))
    }
}

// === impl Chunk ===

impl Chunk for Vec<u8> {
    fn len(&self) -> usize {
        self.len()
    }

    fn slice(&self, start: usize, len: usize) -> Vec<u8> {
        let end = start.saturating_add(len).min(self.len());
        self.get(start..end).unwrap_or_default().to_vec()
    }
}

// === impl Ticket ===

impl Ticket {
    /// Whether some limit of the route is enforced.
    fn is_limited(&self) -> bool {
        self.terms.limits.iter().any(|limit| limit.mode != Mode::Shadow)
    }
}

// === impl Answer ===

impl Answer {
    /// Whether the chunks are to be read. Otherwise they pass unseen.
    pub fn wants_bytes(&self) -> bool {
        !matches!(self.body, Body::Coded | Body::Opaque)
    }

    /// Whether it is a stream without any text so far.
    pub fn awaits_text(&self) -> bool {
        self.spoke.is_none() && matches!(self.body, Body::Events(_))
    }

    /// When its first text came.
    pub(super) fn spoke(&self) -> Option<u64> {
        self.spoke
    }

    /// Whether it did not come to its end, as far as its bytes are seen.
    pub(super) fn is_cut(&self) -> bool {
        self.wants_bytes() && self.end == End::Early
    }

    /// Reads a chunk. Returns what goes on in its place, unless that is the chunk itself.
    fn read(&mut self, chunk: &dyn Chunk, end: bool) -> Option<Vec<u8>> {
        if end {
            self.end = End::Whole;
        }
        if let Body::Text { bytes } = &mut self.body {
            *bytes += chunk.len() as u64;
            return None;
        }
        let mut instead: Option<Vec<u8>> = None;
        let mut start = 0;
        loop {
            let slice = if start < chunk.len() { chunk.slice(start, SLICE) } else { Vec::new() };
            // If nothing can be read, the chunk is done with.
            let next = if slice.is_empty() { chunk.len() } else { start + slice.len() };
            let is_last = next >= chunk.len();
            match (&mut self.body, &mut instead) {
                (Body::Events(scan), instead) => match (scan.feed(&slice, end && is_last), instead) {
                    (Passed::Unchanged, None) => {}
                    (Passed::Unchanged, Some(bytes)) => bytes.extend_from_slice(&slice),
                    (Passed::Instead(passed), Some(bytes)) => bytes.extend_from_slice(&passed),
                    (Passed::Instead(passed), none) if start == 0 => *none = Some(passed),
                    (Passed::Instead(passed), none) => *none = Some([chunk.slice(0, start), passed].concat()),
                },
                (Body::Json(json), _) => json.reader.feed(&slice, &mut json.tally),
                (Body::Text { .. } | Body::Coded | Body::Opaque, _) => {}
            }
            if is_last {
                return instead;
            }
            start = next;
        }
    }

    /// What the answer used, if this was all of it.
    pub(super) fn used(&mut self, api: Api, expected: Tokens, habit: Habit) -> Used {
        if api == Api::CountTokens {
            return Used::Exactly(Tokens::default());
        }
        let case = |delivery| Case { api, end: self.end, delivery, expected, habit };
        let used = match &mut self.body {
            Body::Events(scan) => scan.finish().used(&case(Delivery::AsStream)),
            Body::Json(json) => {
                json.reader.finish(&mut json.tally);
                let delivery = if json.reader.form() == Form::Array { Delivery::AsStream } else { json.delivery };
                json.tally.used(&case(delivery))
            }
            Body::Text { bytes } => {
                let usual = if self.end == End::Early { expected.output } else { 0 };
                Used::About(Tokens { output: habit.tokens(*bytes).max(usual), ..expected })
            }
            Body::Coded => Used::About(expected),
            Body::Opaque => Used::About(Tokens { output: 0, ..expected }),
        };
        match used {
            Used::About(_) if self.status >= 400 => Used::Nothing,
            used => used,
        }
    }

    /// How many bytes of text the client was given, as far as they were counted.
    pub(super) fn shown_bytes(&self) -> u64 {
        match &self.body {
            Body::Events(scan) => scan.tally().shown_bytes(),
            Body::Json(json) => json.tally.shown_bytes(),
            Body::Text { .. } | Body::Coded | Body::Opaque => 0,
        }
    }
}
