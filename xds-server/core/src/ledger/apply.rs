//! One call. What was used is counted, what ended is settled, and what is wanted is granted: once for each number.

use std::time::Duration;

use tollgate_proto::v1::{self, SyncResponse};

use super::{
    Asked, BucketKey, Call, Entry, Heard, HolderKey, Now, Reason, Rules, State, Thing, USAGE_KEPT, Worker,
    asked::Kept,
    call::{Named, Settlement, Want},
    measures::{Group, Metered},
    usage::{Books, Used},
    window::{self, Span},
};
use crate::ir::Limit;

const SECONDS_OF_A_DAY: i64 = 86_400;

/// How a call ended, with its answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Applied(SyncResponse),
    /// The call has counted before. This is the answer that it got then.
    Repeated(SyncResponse),
}

/// A stray copy of a call that was answered long ago. It counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("call {sequence} of this worker came after its call {last}; a worker numbers its calls upwards from 1")]
pub struct Past {
    pub sequence: u64,
    pub last: u64,
}

/// Applies a call. `now` is when it arrived, because the time that it waited in a queue is not the holder's silence.
///
/// A number that skips some is taken. The calls between were heartbeats, which are not worth a write, or the record of
/// them was pruned.
///
/// # Errors
/// When it is a stray copy of an earlier call.
pub fn apply(state: &mut State, rules: &Rules, call: Call, now: Now) -> Result<Outcome, Past> {
    let Call { holder, worker, sequence, usage, too_large, settlements, wants } = call;
    match state.last_call(&holder, worker) {
        Some(last) if sequence < last.sequence => {
            return Err(Past { sequence, last: last.sequence });
        }
        Some(last) if sequence == last.sequence => {
            let answer = SyncResponse { now: now.wall.as_millisecond(), ..last.answer.clone() };
            state.hear(&holder, rules.lease_ttl, now);
            return Ok(Outcome::Repeated(answer));
        }
        _ => state.hear(&holder, rules.lease_ttl, now),
    }
    let reports = !usage.is_empty() || !settlements.is_empty();
    state.refuse(&holder, Entry::Usage, Reason::TooLarge, too_large);
    usage.into_iter().for_each(|used| state.count(&holder, rules, used, now));
    settlements.into_iter().for_each(|settlement| state.settle(&holder, rules, settlement, now));
    // Grants come after the settlements, so that a call may get again what it gives back.
    let grants: Vec<_> = wants.into_iter().map(|want| state.grant(&holder, rules, want, now)).collect();

    let granted = grants.iter().any(|grant| grant.granted > 0);
    let lease_ttl_ms = u32::try_from(rules.lease_ttl.as_millis()).unwrap_or(u32::MAX);
    let answer = SyncResponse { sequence, grants, lease_ttl_ms, now: now.wall.as_millisecond() };
    let record = Worker { sequence, answer: answer.clone() };
    if reports || granted {
        state.changes.workers.insert((holder.clone(), worker), Some(record.clone()));
    }
    state.holders.entry(holder).or_default().workers.insert(worker, record);
    Ok(Outcome::Applied(answer))
}

impl State {
    /// The holder lives, so its leases are extended. If they have just run out, they are charged first.
    fn hear(&mut self, key: &HolderKey, ttl: Duration, now: Now) {
        const WORTH_A_WRITE: i64 = 600;
        if self.holders.get(key).is_some_and(|holder| holder.expires <= now.steady) {
            self.charge_leases(key);
        }
        let holder = self.holders.entry(key.clone()).or_default();
        holder.expires = holder.expires.max(now.steady.saturating_add(ttl));
        let second = now.wall.as_second();
        if second.abs_diff(holder.seen) > WORTH_A_WRITE.unsigned_abs() {
            holder.seen = second;
            let heard = Heard { seen: second, expires: holder.expires };
            self.changes.holders.insert(key.clone(), Some(heard));
        }
    }

    /// Counts usage in its minute. If the proxy's clock is wrong, it is the nearest minute that makes sense.
    fn count(&mut self, holder: &HolderKey, rules: &Rules, used: Used, now: Now) {
        let Used { ended_at, mut key, asked, totals, operation, measured, books } = used;
        let named = [Thing::consumer(&key.consumer), Thing::route(&key.route)];
        if !named.iter().all(|thing| rules.serves(&holder.identity, thing, now)) {
            return self.refuse(holder, Entry::Usage, Reason::Foreign, 1);
        }
        let (ending, measures) = measured.unwrap_or_else(|_nonsense| {
            self.refuse(holder, Entry::Measures, Reason::Nonsense, 1);
            Default::default()
        });
        let measures = measures.with_tokens_of(&totals);
        let group = Group { key: key.clone(), operation, ending };
        *self.changes.metered.entry(group).or_default() += Metered { totals, measures };
        if books == Books::NotIn {
            return;
        }
        if let Some(name) = asked {
            key.model = self.row_of(&key.consumer, name, now).unwrap_or(key.model);
        }
        let now = now.wall.as_millisecond();
        let oldest = now.saturating_sub(i64::try_from(USAGE_KEPT.as_millis()).unwrap_or(i64::MAX));
        let ended_at = ended_at.clamp(oldest, now);
        let minute = u64::try_from(ended_at.div_euclid(60_000)).unwrap_or(0);
        *self.changes.usage.entry((minute, key)).or_default() += totals;
    }

    /// The name that was asked for, if usage is kept under it.
    fn row_of(&mut self, consumer: &str, name: String, now: Now) -> Option<String> {
        let asked = Asked { day: day_of(now), consumer: consumer.to_owned(), name };
        match self.asked.keep(&asked) {
            Kept::No => return None,
            Kept::Already => {}
            Kept::New => {
                self.changes.asked.insert(asked.clone());
            }
        }
        Some(asked.name)
    }

    fn settle(&mut self, holder: &HolderKey, rules: &Rules, settlement: Settlement, now: Now) {
        if !rules.serves_budget(&holder.identity, &settlement.bucket, now) {
            return self.refuse(holder, Entry::Settlement, Reason::Foreign, 1);
        }
        let Named::Bucket { limit, scope } = settlement.bucket else {
            return;
        };
        let key = BucketKey { limit, scope, window_start: settlement.window_start };
        if self.buckets.contains_key(&key) {
            self.change(holder, &key, |bucket, lease| bucket.settle(lease, settlement.settled));
            return;
        }
        // Nothing is leased there, but the cost still counts: in its window if that is known, else in the present one.
        let Some(limit) = rules.limit(&key.limit).filter(|limit| limit.scope.len() == key.scope.len()) else {
            return;
        };
        let Some(span) = window_of_debt(limit, key.window_start, now) else {
            return;
        };
        let key = BucketKey { window_start: span.start, ..key };
        self.change(holder, &key, |bucket, lease| {
            bucket.window_end = span.end;
            bucket.settle(lease, settlement.settled);
        });
    }

    fn grant(&mut self, holder: &HolderKey, rules: &Rules, want: Want, now: Now) -> v1::Grant {
        let own = rules.serves_budget(&holder.identity, &want.bucket, now);
        // A grant without a window and without tokens means: refused, ask again soon.
        let Named::Bucket { limit: id, scope } = want.bucket else {
            return v1::Grant::default();
        };
        let bucket = v1::Bucket { limit: id.clone(), scope: scope.clone() };
        let refused = v1::Grant { bucket: Some(bucket), ..v1::Grant::default() };
        let Some(limit) = rules.limit(&id) else {
            return v1::Grant { unknown: true, ..refused };
        };
        // Nobody is told anything about the budgets of others.
        if !own {
            self.refuse(holder, Entry::Want, Reason::Foreign, 1);
            return refused;
        }
        let refused = v1::Grant { limit: limit.tokens, ..refused };
        let Ok(span) = window::at(&limit.window, now.wall) else {
            return refused;
        };
        let refused = v1::Grant { window_start: span.start, window_end: span.end, ..refused };
        if scope.len() != limit.scope.len() {
            return refused;
        }
        let key = BucketKey { limit: id, scope, window_start: span.start };
        self.change(holder, &key, |bucket, lease| {
            bucket.window_end = span.end;
            let granted = bucket.grant(lease, limit.tokens, want.wish, want.least);
            let (remaining, exhausted) = (bucket.free(limit.tokens), bucket.spent >= limit.tokens);
            v1::Grant { granted, remaining, exhausted, ..refused }
        })
    }
}

/// Days since the epoch.
pub(super) fn day_of(now: Now) -> u64 {
    u64::try_from(now.wall.as_second().div_euclid(SECONDS_OF_A_DAY)).unwrap_or(0)
}

/// The window that a debt without a lease counts in. None: that window is over and forgotten, so no budget depends on
/// it. Start 0 says that the sender never had a lease, and so knows no window.
pub(super) fn window_of_debt(limit: &Limit, start: i64, now: Now) -> Option<Span> {
    let current = window::at(&limit.window, now.wall).ok()?;
    let named = jiff::Timestamp::from_second(start).ok().and_then(|start| window::at(&limit.window, start).ok());
    let over = start != 0 && start < current.start && named.is_some_and(|span| span.start == start);
    (!over).then_some(current)
}
