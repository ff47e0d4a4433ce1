//! Calls at a store that others write to as well: which records they touch, and how often that is tried.
//!
//! ```text
//! Batch::new -> load -> the store: records and its time -> run -> None: it touches more, load again
//!                  ^                                           Some(step) -> the store: commit, if nothing changed
//!                  └──────────────────── something changed ───────────────────────────┘
//! ```
//! The time is the store's. The names of some records follow from it, and it comes with the records. So the first names
//! are a guess, by the time that the caller knows.

use super::{
    BucketKey, Call, Excerpt, HolderKey, Now, Outcome, Past, Rules, State, Step, Thing, Touched, apply,
    apply::{day_of, window_of_debt},
    call::{Named, Settlement, Want},
    window,
};

/// How often records are loaded for the same calls. Some loads find that more is touched, the others that something
/// changed.
pub const MAX_LOADS: usize = 16;

/// Calls that arrived together and are to count together.
#[derive(Debug, Clone)]
pub struct Batch {
    calls: Vec<Call>,
    touched: Touched,
    loads: usize,
}

/// Others changed the same records each time. Nothing of the calls has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("others changed the same budgets {MAX_LOADS} times; send the same call again")]
pub struct Contended;

// === impl Batch ===

impl Batch {
    pub fn new(calls: Vec<Call>, rules: &Rules, now: Now) -> Self {
        let mut touched = Touched::default();
        calls.iter().for_each(|call| touched.extend(Touched::by(call, rules, now)));
        Self { calls, touched, loads: 0 }
    }

    /// What is to be loaded next, together with the store's time.
    ///
    /// # Errors
    /// When that was tried often enough.
    pub fn load(&mut self) -> Result<&Touched, Contended> {
        self.loads = self.loads.saturating_add(1);
        if self.loads > MAX_LOADS { Err(Contended) } else { Ok(&self.touched) }
    }

    /// Runs the calls on what was loaded. None: they touch more than that.
    pub fn run(&mut self, excerpt: Excerpt, rules: &Rules, now: Now) -> Option<Step<Vec<Result<Outcome, Past>>>> {
        let mut touched = Touched::default();
        for call in &self.calls {
            touched.extend(Touched::by(call, rules, now));
            touched.extend(excerpt.charged_before(&call.holder, now));
        }
        if !excerpt.touched.covers(&touched) {
            self.touched.extend(touched);
            return None;
        }
        let calls = self.calls.iter().cloned();
        let step = |state: &mut State| calls.map(|call| apply(state, rules, call, now)).collect();
        Some(excerpt.run(step))
    }
}

// === impl Excerpt ===

impl Excerpt {
    /// If this holder was silent for too long, all that it has is charged before it is heard again.
    fn charged_before(&self, holder: &HolderKey, now: Now) -> Touched {
        let mut touched = Touched::default();
        if self.holders.get(holder).is_some_and(|heard| heard.expires <= now.steady) {
            touched.leases_of.insert(holder.clone());
            let leases = self.leases.keys().filter(|(of, _)| of == holder);
            touched.buckets.extend(leases.map(|(_, bucket)| bucket.clone()));
        }
        touched
    }
}

// === impl Touched ===

impl Touched {
    /// What a call names, and what follows from it at this time.
    pub fn by(call: &Call, rules: &Rules, now: Now) -> Self {
        let mut touched = Self::default();
        touched.workers.insert((call.holder.clone(), call.worker));
        touched.holders.insert(call.holder.clone());
        let asking = call.usage.iter().filter(|used| used.asked.is_some());
        let serves = |consumer: &str| rules.serves(&call.holder.identity, &Thing::consumer(consumer), now);
        for used in asking.filter(|used| serves(&used.key.consumer)) {
            touched.asked.insert((day_of(now), used.key.consumer.clone()));
        }
        call.settlements.iter().for_each(|settlement| touched.settled(&call.holder, settlement, rules, now));
        call.wants.iter().for_each(|want| touched.wanted(&call.holder, want, rules, now));
        touched
    }

    /// The bucket that is named, and the one that counts if that is gone.
    fn settled(&mut self, holder: &HolderKey, settlement: &Settlement, rules: &Rules, now: Now) {
        let Named::Bucket { limit, scope } = &settlement.bucket else {
            return;
        };
        if !rules.serves_budget(&holder.identity, &settlement.bucket, now) {
            return;
        }
        let key = BucketKey { limit: limit.clone(), scope: scope.clone(), window_start: settlement.window_start };
        let span = rules.limit(limit).and_then(|limit| window_of_debt(limit, key.window_start, now));
        if let Some(span) = span {
            self.lease(holder, BucketKey { window_start: span.start, ..key.clone() });
        }
        self.lease(holder, key);
    }

    fn wanted(&mut self, holder: &HolderKey, want: &Want, rules: &Rules, now: Now) {
        let Named::Bucket { limit: id, scope } = &want.bucket else {
            return;
        };
        let limit = rules.limit(id).filter(|_| rules.serves_budget(&holder.identity, &want.bucket, now));
        if let Some(span) = limit.and_then(|limit| window::at(&limit.window, now.wall).ok()) {
            self.lease(holder, BucketKey { limit: id.clone(), scope: scope.clone(), window_start: span.start });
        }
    }
}
