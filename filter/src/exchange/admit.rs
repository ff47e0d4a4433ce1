//! Budgets: a request reserves from every limit of its route, or from none. If the leases have enough, that takes no
//! call. Otherwise the request is held until the ledger answers, for a bounded time.

use std::rc::Rc;

use super::{Desk, Draft, Effect, Exchange, Held, Hold, PATIENCE_MS, Stepped, Ticket, Waiting, fields};
use crate::{
    budget::{Budget, Rate, Reserve, Scope},
    config::{Limit, Mode, WithoutLedger},
    errors::{Refusal, Unavailable},
    report::Want,
};

/// What a try to reserve from all limits says.
enum Tried {
    Admitted,
    /// The ledger has to be asked for these tokens. Nothing is reserved.
    Short(Vec<Want>),
    Refused(Refusal),
}

/// What one limit says to a request.
enum Outcome {
    Held(Held),
    Short(Want),
    Refused(Refusal),
}

/// Whether the request can wait where the ledger would have to be asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    Left,
    /// It cannot. Each limit says what happens without the ledger.
    Over,
}

pub(super) fn first(mut draft: Draft, body: &[u8], desk: &mut Desk<'_>) -> Stepped {
    match reserve(&mut draft.ticket, Patience::Left, desk) {
        Tried::Admitted => sent(draft, body, desk),
        Tried::Short(needs) => {
            let number = desk.reporter.hold(needs);
            let deadline = desk.now.saturating_add(PATIENCE_MS);
            (Exchange::Waiting(Box::new(Waiting { draft, deadline, number })), vec![Effect::Ring])
        }
        Tried::Refused(refusal) => over(&refusal, &draft.ticket, desk),
    }
}

/// The ledger has answered.
pub(super) fn again(mut waiting: Waiting, desk: &mut Desk<'_>) -> Stepped {
    match reserve(&mut waiting.draft.ticket, Patience::Left, desk) {
        Tried::Short(needs) => {
            desk.reporter.hold_on(waiting.number, needs);
            (Exchange::Waiting(Box::new(waiting)), Vec::new())
        }
        tried => decided(tried, waiting, desk),
    }
}

/// The time to wait is over.
pub(super) fn late(mut waiting: Waiting, desk: &mut Desk<'_>) -> Stepped {
    let tried = reserve(&mut waiting.draft.ticket, Patience::Over, desk);
    decided(tried, waiting, desk)
}

/// The client has left.
pub(super) fn left(waiting: &Waiting, desk: &mut Desk<'_>) -> Stepped {
    desk.reporter.let_go(waiting.number);
    (Exchange::Closed, Vec::new())
}

/// A held request goes on, or not.
fn decided(tried: Tried, waiting: Waiting, desk: &mut Desk<'_>) -> Stepped {
    desk.reporter.let_go(waiting.number);
    match tried {
        Tried::Admitted => {
            let body = desk.request.read();
            let (state, mut effects) = sent(waiting.draft, &body, desk);
            effects.push(Effect::Resume);
            (state, effects)
        }
        Tried::Short(_) => over(&Refusal::Unavailable(Unavailable::Ledger), &waiting.draft.ticket, desk),
        Tried::Refused(refusal) => over(&refusal, &waiting.draft.ticket, desk),
    }
}

fn sent(draft: Draft, body: &[u8], desk: &mut Desk<'_>) -> Stepped {
    *desk.open += 1;
    // The fields come first: what leads the request to its backend is to be the last that Envoy hears.
    let mut effects = fields::of_request(&draft.ticket, desk.stage);
    effects.extend(draft.send(body));
    (Exchange::Sent(Box::new(draft.ticket)), effects)
}

fn over(refusal: &Refusal, ticket: &Ticket, desk: &mut Desk<'_>) -> Stepped {
    let (state, mut effects) = Exchange::refused(refusal, ticket.shape, fields::of_request(ticket, desk.stage), desk);
    if let (Some(rate), Some(Effect::Reply { headers, .. })) = (ticket.rate, effects.last_mut()) {
        headers.extend(super::rate_headers(rate));
    }
    (state, effects)
}

/// Reserves from every limit. What was reserved goes back unless all of them have enough.
fn reserve(ticket: &mut Ticket, patience: Patience, desk: &mut Desk<'_>) -> Tried {
    let terms = ticket.terms.clone();
    ticket.rate = None;
    let mut short = Vec::new();
    for limit in &terms.limits {
        match ask(ticket, limit, patience, desk) {
            Outcome::Held(held) => ticket.held.push(held),
            Outcome::Short(want) => short.push(want),
            Outcome::Refused(refusal) => {
                give_back(ticket, desk);
                return Tried::Refused(refusal);
            }
        }
    }
    if short.is_empty() {
        return Tried::Admitted;
    }
    give_back(ticket, desk);
    Tried::Short(short)
}

fn ask(ticket: &mut Ticket, limit: &Rc<Limit>, patience: Patience, desk: &mut Desk<'_>) -> Outcome {
    let scope = Scope {
        consumer: &ticket.caller.consumer,
        model: &ticket.pattern,
        route: &ticket.route,
        labels: &ticket.caller.labels,
        claims: &ticket.claims,
    };
    let budget = Budget::new(limit, &scope);
    if limit.mode == Mode::Shadow {
        return Outcome::Held(Held { budget, hold: Hold::Debt });
    }
    let amount = limit.count.cost(ticket.expected).max(1);
    let counter = desk.counter();
    let drawn = desk.slices.reserve(&budget, &counter, amount, desk.reporter);
    desk.touch(&budget.bucket);
    match drawn.outcome {
        Reserve::Taken { reservation, low } => {
            if let Some(wish) = low {
                desk.reporter.wish(&budget.bucket, wish);
            }
            ticket.note_rate(drawn.rate);
            Outcome::Held(Held { budget, hold: Hold::Reserved(reservation) })
        }
        Reserve::Refused { retry_after_s } => {
            ticket.note_rate(drawn.rate);
            Outcome::Refused(Refusal::OverBudget { limit: shown(&limit.id), retry_after_s })
        }
        Reserve::Ask { wish } => match (patience, budget.without_ledger()) {
            (Patience::Left, _) => Outcome::Short(Want { bucket: budget.bucket, wish, least: amount }),
            (Patience::Over, WithoutLedger::Allow) => Outcome::Held(Held { budget, hold: Hold::Debt }),
            (Patience::Over, WithoutLedger::Deny) => Outcome::Refused(Refusal::Unavailable(Unavailable::Ledger)),
        },
    }
}

/// Gives back what was reserved so far.
fn give_back(ticket: &mut Ticket, desk: &mut Desk<'_>) {
    for Held { budget, hold } in std::mem::take(&mut ticket.held) {
        hold.settle(&budget, 0, desk);
    }
}

/// The limit's id, `namespace/policy/limit`, without the default namespace.
fn shown(limit: &str) -> String {
    limit.strip_prefix("default/").unwrap_or(limit).to_owned()
}

// === impl Hold ===

impl Hold {
    /// Replaces what is held by what the request cost. A cost of 0 gives it back.
    pub(super) fn settle(self, budget: &Budget, cost: u64, desk: &mut Desk<'_>) {
        let Self::Reserved(reservation) = self else {
            if cost > 0 {
                desk.reporter.settled(&budget.bucket, 0, 0, cost);
            }
            return;
        };
        let counter = desk.counter();
        desk.slices.settle(&budget.bucket, &counter, &reservation, cost, desk.reporter);
        desk.touch(&budget.bucket);
    }
}

// === impl Ticket ===

impl Ticket {
    /// Keeps the budget if it is the tightest so far.
    fn note_rate(&mut self, rate: Option<Rate>) {
        if let Some(rate) = rate
            && self.rate.is_none_or(|tightest| rate.remaining < tightest.remaining)
        {
            self.rate = Some(rate);
        }
    }
}
