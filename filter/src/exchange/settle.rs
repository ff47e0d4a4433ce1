//! The end of an exchange, whoever ended it: what it used, what it costs, and what of its reservations
//! goes back. Nothing is free but what no backend answered.

use tollgate_proto::v1 as wire;

use super::{Answer, Desk, Exchange, Held, Hold, Stepped, Ticket, admit};
use crate::usage::{Api, Sample, Tokens, Used};

/// What Envoy knows at the end of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ending {
    /// Cluster of the last attempt.
    pub cluster: Option<String>,
    /// The client left, and a backend had the request.
    pub left_working: bool,
}

/// Longer names that clients made up are cut in usage rows, in bytes.
const MAX_ASKED: usize = 64;

/// No answer came.
pub(super) fn without_answer(ticket: Ticket, ending: &Ending, desk: &mut Desk<'_>) -> Stepped {
    if !ending.left_working || ticket.api == Api::CountTokens {
        return failed(ticket, desk);
    }
    let input = Tokens { input: ticket.expected.input, ..Tokens::default() };
    settle(ticket, Used::About(input), ending, desk)
}

/// Nothing is charged.
pub(super) fn failed(mut ticket: Ticket, desk: &mut Desk<'_>) -> Stepped {
    admit::give_back(&mut ticket, desk);
    (Exchange::Closed, Vec::new())
}

pub(super) fn answered(ticket: Ticket, mut answer: Answer, ending: &Ending, desk: &mut Desk<'_>) -> Stepped {
    let habit = desk.habits.of(&ticket.caller.consumer, &ticket.pattern);
    let used = answer.used(ticket.api, ticket.expected, habit);
    if let Used::Exactly(tokens) = used
        && ticket.api != Api::CountTokens
    {
        let sample = Sample { weighed: ticket.weighed, tokens, shown_bytes: answer.shown_bytes() };
        desk.habits.learn(&ticket.caller.consumer, &ticket.pattern, &sample);
    }
    settle(ticket, used, ending, desk)
}

/// A name of at most so many bytes.
fn cut(name: &str, bytes: usize) -> String {
    name.get(..name.floor_char_boundary(bytes)).unwrap_or_default().to_owned()
}

fn settle(mut ticket: Ticket, used: Used, ending: &Ending, desk: &mut Desk<'_>) -> Stepped {
    let (tokens, estimated) = match used {
        Used::Exactly(tokens) => (tokens, false),
        Used::About(tokens) => (tokens, true),
        Used::Nothing => return failed(ticket, desk),
    };
    for Held { budget, hold } in std::mem::take(&mut ticket.held) {
        let charged = budget.limit.count.cost(tokens);
        match hold {
            Hold::Reserved(reservation) => {
                let holder = desk.holder();
                let settled = budget.settle(desk.shared, holder, &reservation, charged, desk.now);
                desk.reporter.settled(&budget, reservation.window_start, settled.from_lease, charged);
                if let Some(release) = settled.release {
                    desk.reporter.released(&budget, release);
                }
                if !desk.touched.contains_key(&budget.key) {
                    desk.touched.insert(budget.key.clone(), budget);
                }
            }
            Hold::Debt if charged > 0 => desk.reporter.settled(&budget, 0, 0, charged),
            Hold::Debt => {}
        }
    }
    desk.counters.input_tokens += tokens.input;
    desk.counters.output_tokens += tokens.output;
    desk.counters.estimated += u64::from(estimated);
    let served = ending.cluster.as_deref();
    let backend = ticket
        .plan
        .targets()
        .map(|target| &target.backend)
        .find(|backend| served == Some(&*backend.cluster))
        .or_else(|| ticket.plan.first().map(|target| &target.backend));
    desk.reporter.used(wire::Usage {
        ended_at: i64::try_from(desk.now).unwrap_or(i64::MAX),
        consumer: ticket.caller.consumer.to_string(),
        route: ticket.route.name.to_string(),
        asked_model: if ticket.model == ticket.pattern { String::new() } else { cut(&ticket.model, MAX_ASKED) },
        model: ticket.pattern,
        extra_attempt: false,
        backend: backend.map(|backend| backend.name.to_string()).unwrap_or_default(),
        input_tokens: tokens.input,
        output_tokens: tokens.output,
        cached_input_tokens: tokens.cached,
        reasoning_tokens: tokens.reasoning,
        estimated,
    });
    (Exchange::Closed, Vec::new())
}
