//! Budgets: a request reserves from every limit of its route, all or none. Inside the leases that takes
//! no call; else it waits for one answer of the ledger, for a bounded time.

use super::{Desk, Effect, Exchange, Held, Hold, PATIENCE_MS, Rate, Stepped, Ticket, Waiting};
use crate::{
    budget::{Budget, Lease, Reserve, Scope},
    config::{Mode, RouteTarget, WithoutLedger},
    errors::{Refusal, Unavailable},
};

/// What a try to reserve everything gives.
enum Tried {
    Admitted,
    /// The ledger has to be asked; the wants are queued.
    Asked,
    Refused(Refusal),
}

/// What happens where the ledger would have to be asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    Left,
    /// The time is up: each limit says what happens without the ledger.
    Over,
}

pub(super) fn first(mut ticket: Ticket, mut effects: Vec<Effect>, desk: &mut Desk<'_>) -> Stepped {
    match attempt(&mut ticket, Patience::Left, desk) {
        Tried::Admitted => (Exchange::Sent(Box::new(ticket)), effects),
        Tried::Asked => {
            effects.push(Effect::Ring);
            let deadline = desk.now.saturating_add(PATIENCE_MS);
            (Exchange::Waiting(Box::new(Waiting { ticket, deadline })), effects)
        }
        Tried::Refused(refusal) => over(&refusal, &ticket, Vec::new(), desk),
    }
}

pub(super) fn again(mut waiting: Waiting, desk: &mut Desk<'_>) -> Stepped {
    let patience = if desk.now >= waiting.deadline { Patience::Over } else { Patience::Left };
    match attempt(&mut waiting.ticket, patience, desk) {
        Tried::Admitted => (Exchange::Sent(Box::new(waiting.ticket)), vec![Effect::Resume]),
        Tried::Asked => (Exchange::Waiting(Box::new(waiting)), vec![Effect::Ring]),
        Tried::Refused(refusal) => over(&refusal, &waiting.ticket, Vec::new(), desk),
    }
}

fn over(refusal: &Refusal, ticket: &Ticket, effects: Vec<Effect>, desk: &mut Desk<'_>) -> Stepped {
    let (state, mut effects) = Exchange::refused(refusal, ticket.shape, effects, desk);
    if let (Some(rate), Some(Effect::Reply { headers, .. })) = (ticket.rate, effects.last_mut()) {
        headers.extend(rate.headers());
    }
    (state, effects)
}

fn attempt(ticket: &mut Ticket, patience: Patience, desk: &mut Desk<'_>) -> Tried {
    let RouteTarget::Models { limits, .. } = &ticket.route.target else {
        return Tried::Admitted;
    };
    let limits = limits.clone();
    ticket.rate = None;
    let mut wants = Vec::new();
    let mut refused = None;
    for limit in &limits {
        let scope = Scope {
            consumer: &ticket.caller.consumer,
            model: &ticket.pattern,
            route: &ticket.route.name,
            labels: &ticket.caller.labels,
        };
        let budget = Budget::new(limit, &scope);
        if limit.mode == Mode::Shadow {
            ticket.held.push(Held { budget, hold: Hold::Debt });
            continue;
        }
        let amount = limit.count.cost(ticket.expected).max(1);
        let holder = desk.holder();
        let Ok((reserve, lease, release)) = budget.reserve(desk.shared, holder, amount, desk.now) else {
            refused = Some(Refusal::Unavailable(Unavailable::Ledger));
            break;
        };
        if !desk.touched.contains_key(&budget.key) {
            desk.touched.insert(budget.key.clone(), budget.clone());
        }
        if let Some(release) = release {
            desk.reporter.released(&budget, release);
        }
        match reserve {
            Reserve::Taken(reservation) => {
                ticket.note_rate(&lease, desk.now);
                ticket.held.push(Held { budget, hold: Hold::Reserved(reservation) });
            }
            Reserve::TakenLow(reservation, wish) => {
                desk.reporter.want(&budget, wish, 0);
                ticket.note_rate(&lease, desk.now);
                ticket.held.push(Held { budget, hold: Hold::Reserved(reservation) });
            }
            Reserve::Refused { retry_after_s } => {
                ticket.note_rate(&lease, desk.now);
                refused = Some(Refusal::OverBudget { limit: shown(&limit.id), retry_after_s });
                break;
            }
            Reserve::Ask { wish } => match (patience, budget.without_ledger()) {
                (Patience::Left, _) => wants.push((budget, wish, amount)),
                (Patience::Over, WithoutLedger::Allow) => ticket.held.push(Held { budget, hold: Hold::Debt }),
                (Patience::Over, WithoutLedger::Deny) => {
                    refused = Some(Refusal::Unavailable(Unavailable::Ledger));
                    break;
                }
            },
        }
    }
    if let Some(refusal) = refused {
        give_back(ticket, desk);
        return Tried::Refused(refusal);
    }
    if wants.is_empty() {
        return Tried::Admitted;
    }
    give_back(ticket, desk);
    for (budget, wish, amount) in wants {
        desk.reporter.want(&budget, wish, amount);
    }
    Tried::Asked
}

/// Nothing of what was reserved so far is kept.
pub(super) fn give_back(ticket: &mut Ticket, desk: &mut Desk<'_>) {
    for Held { budget, hold } in std::mem::take(&mut ticket.held) {
        if let Hold::Reserved(reservation) = hold {
            let holder = desk.holder();
            let settled = budget.give_back(desk.shared, holder, &reservation, desk.now);
            if settled.from_lease > 0 {
                // The window rolled meanwhile: the tokens go back to the ledger.
                desk.reporter.settled(&budget, reservation.window_start, settled.from_lease, 0);
            }
            if let Some(release) = settled.release {
                desk.reporter.released(&budget, release);
            }
        }
    }
}

/// `namespace/policy/limit` without the default namespace.
fn shown(limit: &str) -> String {
    limit.strip_prefix("default/").unwrap_or(limit).to_owned()
}

// === impl Ticket ===

impl Ticket {
    /// Keeps the tightest of the budgets.
    fn note_rate(&mut self, lease: &Lease, now: u64) {
        if lease.limit == 0 {
            return;
        }
        let rate = Rate {
            limit: lease.limit,
            remaining: lease.left(),
            reset_s: (lease.window_end != 0).then(|| lease.seconds_left(now)),
        };
        if self.rate.is_none_or(|tightest| rate.remaining < tightest.remaining) {
            self.rate = Some(rate);
        }
    }
}
