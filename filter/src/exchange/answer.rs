//! The answer as it passes: rate limits in its headers, usage out of its body, never held back as a
//! whole. Errors that Envoy made itself become errors of the API; a backend's own pass unchanged.

use super::{Desk, Effect, Exchange, Stepped, Ticket};
use crate::{
    body::sse::{Passed, Scan, UsageOnly},
    errors::{Refusal, Shape},
};

/// The headers of an answer.
#[derive(Debug, Clone, Copy)]
pub struct AnswerHead<'a> {
    pub headers: &'a [(String, Vec<u8>)],
    pub origin: Origin,
}

/// Who made an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Backend,
    /// Envoy itself: nothing came from a backend.
    Envoy,
}

/// What an answer is made of, and what has been seen of it.
#[derive(Debug)]
pub struct Answer {
    pub(super) status: u32,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) enum Body {
    Events(Box<Scan>),
    /// A copy of a JSON answer, for its usage.
    Json {
        copy: Vec<u8>,
        bytes: u64,
    },
    /// Text that tells no usage.
    Text {
        bytes: u64,
    },
    /// Bytes that are no tokens.
    Opaque,
}

/// Larger JSON answers are not read for their usage.
const MAX_JSON: usize = 8 << 20;

pub(super) fn began(ticket: Box<Ticket>, head: &AnswerHead<'_>, end: bool, desk: &mut Desk<'_>) -> Stepped {
    if head.origin == Origin::Envoy {
        let refusal = Refusal::of_envoy(head.status(), desk.stage.max_body_bytes);
        desk.counters.refused(refusal.code());
        let (body, effects) = replace(&refusal, ticket.shape, end);
        return (Exchange::Replaced(ticket, body), effects);
    }
    let mut effects: Vec<Effect> = head
        .headers
        .iter()
        .filter(|(name, _)| name.starts_with("x-tollgate-"))
        .map(|(name, _)| Effect::RemoveResponseHeader(name.clone()))
        .collect();
    if let Some(rate) = ticket.rate {
        effects.extend(rate.headers().into_iter().map(|(name, value)| Effect::SetResponseHeader(name, value)));
    }
    let body = body(&ticket, head);
    if !ticket.wants_usage_event && matches!(body, Body::Events(_)) && head.get("content-length").is_some() {
        effects.push(Effect::RemoveResponseHeader("content-length".to_owned()));
    }
    (Exchange::Answering(ticket, Answer { status: head.status(), body }), effects)
}

fn body(ticket: &Ticket, head: &AnswerHead<'_>) -> Body {
    let kind = head.get("content-type").unwrap_or_default();
    let is = |prefix: &[u8]| kind.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    if head.get("content-encoding").is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
        Body::Text { bytes: 0 }
    } else if is(b"text/event-stream") {
        let usage_only = if ticket.wants_usage_event { UsageOnly::Keep } else { UsageOnly::Remove };
        Body::Events(Box::new(Scan::new(usage_only)))
    } else if is(b"application/json") || kind.is_empty() {
        Body::Json { copy: Vec::new(), bytes: 0 }
    } else if is(b"text/") || is(b"application/") && !is(b"application/octet-stream") {
        Body::Text { bytes: 0 }
    } else {
        Body::Opaque
    }
}

pub(super) fn goes_on(ticket: Box<Ticket>, mut answer: Answer, chunk: Vec<u8>, end: bool) -> Stepped {
    let mut effects = Vec::new();
    match &mut answer.body {
        Body::Events(scan) => {
            if let Passed::Instead(chunk) = scan.feed(&chunk, end) {
                effects.push(Effect::ResponseBody(chunk));
            }
        }
        Body::Json { copy, bytes } => {
            *bytes += chunk.len() as u64;
            if copy.is_empty() {
                *copy = chunk;
            } else if copy.len().saturating_add(chunk.len()) <= MAX_JSON {
                copy.extend_from_slice(&chunk);
            }
        }
        Body::Text { bytes } => *bytes += chunk.len() as u64,
        Body::Opaque => {}
    }
    (Exchange::Answering(ticket, answer), effects)
}

/// Envoy refused the request while its body was read: it was too large, or broken.
pub(super) fn refused_by_envoy(shape: Shape, head: &AnswerHead<'_>, end: bool, desk: &mut Desk<'_>) -> Stepped {
    let refusal = Refusal::of_envoy(head.status(), desk.stage.max_body_bytes);
    desk.counters.refused(refusal.code());
    let (body, effects) = replace(&refusal, shape, end);
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
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_slice())
    }

    fn status(&self) -> u32 {
        let status = self.get(":status").and_then(|status| std::str::from_utf8(status).ok());
        status.and_then(|status| status.parse().ok()).unwrap_or(0)
    }
}

// === impl Answer ===

impl Answer {
    /// Whether the chunks are looked at; else they pass without being copied.
    pub fn wants_bytes(&self) -> bool {
        !matches!(self.body, Body::Opaque)
    }
}
