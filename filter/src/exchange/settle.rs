//! The end of an exchange, whoever ended it: what it used, what that costs, and how much of its reservations goes
//! back. The rule is that what a backend worked on is charged. An attempt that a backend answered with an error, or
//! never received, is free. docs/accounting.md has a table of all ways in which a request can end.

use std::rc::Rc;

use super::{Answer, Desk, Exchange, Held, Stepped, Ticket, Told, fields};
use crate::{
    attempt::Unanswered,
    config::{EarlyEnd, Limit},
    report::{Row, RowKey, Times},
    usage::{Api, Sample, Tokens, Used},
};

/// What Envoy knows at the end of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ending {
    /// The cluster of the last attempt, where there may have been several.
    pub cluster: Option<String>,
    pub last: LastAttempt,
    /// The earlier attempts that a backend had and never answered.
    pub unanswered: Vec<Unanswered>,
}

/// Whether a backend worked on the last attempt, where that attempt has no answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LastAttempt {
    /// No backend had it, because it never got a connection.
    #[default]
    NeverReceived,
    /// A backend had it.
    Received,
    /// A backend answered it with an error, and another attempt was to follow.
    Refused,
}

/// What one attempt is charged.
struct Charge {
    used: Used,
    /// Display name of the backend.
    backend: Rc<str>,
}

/// The longest name, in bytes, that a client made up and a usage row keeps. Longer ones are cut.
const MAX_ASKED: usize = 64;

/// How a request ended.
struct Outcome {
    /// What its last attempt used.
    used: Used,
    /// 0, or the status of its error.
    error_status: u32,
    times: Times,
}

/// Stands for the status of an answer that broke off, or that a client did not wait for. Servers write it so in their logs.
const BROKEN_OFF: u32 = 499;

/// No backend's answer came. The last attempt costs what was reserved for it, if a backend had it.
pub(super) fn without_answer(ticket: Ticket, ending: &Ending, desk: &mut Desk<'_>) -> Stepped {
    let used = match ending.last {
        LastAttempt::Received => ticket.reserved(),
        LastAttempt::NeverReceived | LastAttempt::Refused => Used::Nothing,
    };
    // An error of Envoy's own has its status. Without one, the client has left.
    let error_status = if ticket.error_status == 0 { BROKEN_OFF } else { ticket.error_status };
    let times = ticket.times(None, desk.now);
    settle(ticket, Outcome { used, error_status, times }, ending, desk)
}

pub(super) fn answered(ticket: Ticket, mut answer: Answer, ending: &Ending, desk: &mut Desk<'_>) -> Stepped {
    let habit = desk.habits.of(&ticket.caller.consumer, &ticket.pattern);
    let used = answer.used(ticket.api, ticket.expected, habit);
    let mut error_status = ticket.error_status;
    if let Used::Exactly(tokens) = used {
        if ticket.api != Api::CountTokens {
            let sample = Sample { weighed: ticket.weighed, tokens, shown_bytes: answer.shown_bytes() };
            desk.habits.learn(&ticket.caller.consumer, &ticket.pattern, &sample);
        }
    } else if error_status == 0 && answer.is_cut() {
        error_status = BROKEN_OFF;
    }
    let times = ticket.times(answer.spoke(), desk.now);
    settle(ticket, Outcome { used, error_status, times }, ending, desk)
}

fn settle(mut ticket: Ticket, outcome: Outcome, ending: &Ending, desk: &mut Desk<'_>) -> Stepped {
    *desk.open = desk.open.saturating_sub(1);
    let held = std::mem::take(&mut ticket.held);
    let charges = ticket.charges(outcome.used, ending);
    for Held { budget, hold } in held {
        let costs = charges.iter().map(|charge| cost(charge.used, &budget.limit, &ticket));
        let cost = costs.fold(0, u64::saturating_add);
        hold.settle(&budget, cost, desk);
    }
    let served = || ticket.backend(ending.cluster.as_deref());
    let fields = fields::of_end(outcome.used, &outcome.times, served, desk.stage);
    if ticket.told == Told::ByGateway {
        return (Exchange::Closed, fields);
    }
    if charges.is_empty() && outcome.error_status != 0 {
        // It cost nothing, and how long it took counts.
        let mut row = ticket.row(served(), desk.now);
        row.key.error_status = outcome.error_status;
        row.measured.took(&outcome.times, 0);
        desk.reporter.used(row);
    }
    // The last attempt that is charged counts as the request. Those before it add tokens but no request.
    for (place, charge) in charges.into_iter().rev().enumerate() {
        let Some((tokens, estimated)) = tokens(charge.used, &ticket) else { continue };
        desk.counters.input_tokens += tokens.input;
        desk.counters.output_tokens += tokens.output;
        desk.counters.estimated += u64::from(estimated);
        let mut row = ticket.row(charge.backend, desk.now);
        row.key.asked_model = ticket.asked_model();
        row.tokens = tokens;
        row.estimated_requests = u64::from(estimated);
        row.measured.tokens(tokens);
        if place == 0 {
            row.requests = 1;
            row.key.error_status = outcome.error_status;
            row.measured.took(&outcome.times, tokens.output);
        }
        desk.reporter.used(row);
    }
    (Exchange::Closed, fields)
}

// === impl Ticket ===

impl Ticket {
    /// What a backend is taken to have used if it never answered.
    fn reserved(&self) -> Used {
        match self.api {
            Api::CountTokens => Used::Nothing,
            _ => Used::About(self.expected),
        }
    }

    /// The display name of the backend that has this cluster, or else of the first one.
    fn backend(&self, cluster: Option<&str>) -> Rc<str> {
        let mut backends = self.plan.targets().map(|target| &target.backend);
        let served = backends.find(|backend| cluster == Some(&*backend.cluster));
        served
            .or_else(|| self.plan.first().map(|target| &target.backend))
            .map_or_else(Rc::default, |backend| backend.name.clone())
    }

    /// A usage row of it, with nothing in it yet.
    fn row(&self, backend: Rc<str>, ended_at: u64) -> Row {
        let key = RowKey {
            consumer: self.caller.consumer.clone(),
            route: self.route.clone(),
            model: self.pattern.clone(),
            backend,
            operation: self.api.operation(),
            ..RowKey::default()
        };
        Row { ended_at, key, ..Row::default() }
    }

    /// What is charged, for each attempt in order.
    fn charges(&self, last: Used, ending: &Ending) -> Vec<Charge> {
        let earlier = ending.unanswered.iter().map(|attempt| {
            let target = self.plan.targets().nth(usize::from(attempt.place));
            Charge { used: self.reserved(), backend: self.backend(target.map(|target| &*target.backend.cluster)) }
        });
        let last = Charge { used: last, backend: self.backend(ending.cluster.as_deref()) };
        earlier.chain([last]).filter(|charge| charge.used != Used::Nothing).collect()
    }

    /// The name that the client asked for, where the pool has only a pattern of it. Empty otherwise.
    fn asked_model(&self) -> String {
        if *self.model == *self.pattern {
            return String::new();
        }
        self.shown_model().to_owned()
    }

    /// The name that the client asked for, cut to what is kept of it.
    pub(super) fn shown_model(&self) -> &str {
        self.model.get(..self.model.floor_char_boundary(MAX_ASKED)).unwrap_or_default()
    }

    /// Whether some limit of the route charges at least the reservation where the usage is not known.
    fn charges_reservation(&self) -> bool {
        self.terms.limits.iter().any(|limit| limit.on_early_end == EarlyEnd::Reservation)
    }
}

/// What an attempt costs under a limit.
fn cost(used: Used, limit: &Limit, ticket: &Ticket) -> u64 {
    match (used, limit.on_early_end) {
        (Used::Exactly(tokens), _) | (Used::About(tokens), EarlyEnd::Estimate) => limit.count.cost(tokens),
        (Used::About(tokens), EarlyEnd::Reservation) => limit.count.cost(tokens).max(limit.count.cost(ticket.expected)),
        (Used::Nothing, _) => 0,
    }
}

/// The tokens of an attempt's usage row, and whether they are estimated.
fn tokens(used: Used, ticket: &Ticket) -> Option<(Tokens, bool)> {
    match used {
        Used::Exactly(tokens) => Some((tokens, false)),
        Used::About(tokens) if ticket.charges_reservation() => Some((tokens.at_least(ticket.expected), true)),
        Used::About(tokens) => Some((tokens, true)),
        Used::Nothing => None,
    }
}
