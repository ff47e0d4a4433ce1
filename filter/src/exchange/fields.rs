//! What is known of a request, as fields for Envoy's access log and its spans (docs/signals.md). They are told where the
//! configuration asks for them, because each costs a host call.
//!
//! What was used is told twice: when an answer is whole, because Envoy ends a span before it ends the stream, and at
//! the end, which alone knows what a broken answer costs and who served.

use std::rc::Rc;

use super::{Answer, Desk, Effect, Ticket};
use crate::{config::RequestStage, errors::Refusal, report::Times, usage::Used};

/// A field's name in filter state, below `wasm.`.
pub type Name = &'static str;

const OPERATION: Name = "tollgate.operation";
const CONSUMER: Name = "tollgate.consumer";
const MODEL: Name = "tollgate.model";
const ROUTE: Name = "tollgate.route";
const ERROR: Name = "tollgate.error";
const BACKEND: Name = "tollgate.backend";
const INPUT: Name = "tollgate.input_tokens";
const OUTPUT: Name = "tollgate.output_tokens";
const CACHED: Name = "tollgate.cached_input_tokens";
const REASONING: Name = "tollgate.reasoning_tokens";
const ESTIMATED: Name = "tollgate.estimated";
const FIRST_TOKEN: Name = "tollgate.first_token_ms";

/// Who asks for what, and by which route.
pub(super) fn of_request(ticket: &Ticket, stage: &RequestStage) -> Vec<Effect> {
    if !stage.tells_fields {
        return Vec::new();
    }
    vec![
        field(OPERATION, ticket.api.operation().name()),
        field(CONSUMER, &ticket.caller.consumer),
        field(ROUTE, &ticket.route),
        field(MODEL, ticket.shown_model()),
    ]
}

pub(super) fn of_caller(consumer: &str, stage: &RequestStage) -> Option<Effect> {
    stage.tells_fields.then(|| field(CONSUMER, consumer))
}

/// Why the client gets an error that no backend made.
pub(super) fn of_refusal(refusal: &Refusal, stage: &RequestStage) -> Option<Effect> {
    stage.tells_fields.then(|| field(ERROR, refusal.code().name()))
}

/// What an answer used that came whole.
pub(super) fn of_answer(ticket: &Ticket, answer: &mut Answer, desk: &mut Desk<'_>) -> Vec<Effect> {
    if !desk.stage.tells_fields {
        return Vec::new();
    }
    let habit = desk.habits.of(&ticket.caller.consumer, &ticket.pattern);
    let used = answer.used(ticket.api, ticket.expected, habit);
    of_usage(used, &ticket.times(answer.spoke(), desk.now))
}

/// The same of what has ended, and who served it.
pub(super) fn of_end(
    used: Used,
    times: &Times,
    backend: impl FnOnce() -> Rc<str>,
    stage: &RequestStage,
) -> Vec<Effect> {
    if !stage.tells_fields {
        return Vec::new();
    }
    let mut fields = of_usage(used, times);
    fields.push(field(BACKEND, &backend()));
    fields
}

fn of_usage(used: Used, times: &Times) -> Vec<Effect> {
    let (tokens, estimated) = match used {
        Used::Exactly(tokens) => (tokens, "false"),
        Used::About(tokens) => (tokens, "true"),
        Used::Nothing => return Vec::new(),
    };
    let figures =
        [(INPUT, tokens.input), (OUTPUT, tokens.output), (CACHED, tokens.cached), (REASONING, tokens.reasoning)];
    let first = times.first_token_ms().map(|first| (FIRST_TOKEN, first));
    let mut fields = vec![field(ESTIMATED, estimated)];
    fields.extend(figures.into_iter().chain(first).map(|(name, figure)| Effect::Field(name, figure.to_string())));
    fields
}

fn field(name: Name, value: &str) -> Effect {
    Effect::Field(name, value.to_owned())
}
