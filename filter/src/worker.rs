//! What one worker keeps between requests and over configurations: the reports to the ledger, the habits
//! of models, its part in keeping the table of keys, and caches of shared records that move slowly.

use std::{collections::HashMap, rc::Rc};

use tollgate_proto::v1 as wire;

use crate::{
    body::held::Room,
    budget::{Budget, Holder, Lease},
    config::RequestStage,
    counters::Counters,
    exchange::Desk,
    host::{Shared, prepare, read_u64, update},
    key::Table,
    model::Random,
    report::{Answered, Identity, Reporter},
    table::{self, Keeper},
    usage::Habits,
};

const EPOCH: &str = "epoch";
const WORKERS: &str = "workers";
const TTL_MS: u64 = 30_000;
const SWEEP_MS: u64 = 1000;
/// Statuses of gRPC that the same call gets again: INVALID_ARGUMENT and FAILED_PRECONDITION.
const NEVER: [u32; 2] = [3, 9];

#[derive(Debug, Default)]
pub struct Worker {
    pub reporter: Reporter,
    pub keeper: Keeper,
    pub counters: Counters,
    pub habits: Habits,
    pub room: Room,
    pub touched: HashMap<Rc<str>, Budget>,
    pub random: XorShift,
    identity: Option<Identity>,
    holder: Holder,
    table: Table,
    /// Requests that hold tokens.
    pub open: u64,
    ttl_ms: Option<u64>,
    swept_at: u64,
}

/// What becomes of a call that the ledger did not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    Later,
    Never,
}

/// A small generator; nothing secret depends on it.
#[derive(Debug, Default)]
pub struct XorShift(u64);

/// Makes the records that workers must find. Called on the main thread, before any worker starts.
pub fn prepare_records(shared: &dyn Shared, now_ns: u64) {
    let zero = [0u8; 16];
    let [leader, keys] = table::RECORDS;
    let epoch = now_ns.to_le_bytes();
    prepare(shared, &[(leader, &zero), (keys, &zero), (Holder::RECORD, &zero), (WORKERS, &zero), (EPOCH, &epoch)]);
}

// === impl Worker ===

impl Worker {
    /// Who this worker is to the ledger; its number is taken at the first need.
    pub fn identity(&mut self, shared: &dyn Shared, proxy: impl FnOnce() -> String, now: u64) -> Option<Identity> {
        if self.identity.is_none() {
            let epoch = shared.get(EPOCH).map(|(epoch, _)| read_u64(&epoch)).filter(|epoch| *epoch != 0)?;
            let number = update(shared, WORKERS, now, |record| {
                let next = read_u64(record).saturating_add(1);
                (Some(next.to_le_bytes().to_vec()), next)
            })
            .ok()?;
            self.random = XorShift::seeded(epoch ^ (number << 32) ^ now);
            self.identity = Some(Identity { proxy: proxy(), epoch, worker: number });
        }
        self.identity.clone()
    }

    /// Looks at the records that move slowly.
    pub fn refresh(&mut self, shared: &dyn Shared) {
        self.table = Table::read(shared);
        self.holder = Holder::read(shared);
    }

    pub fn desk<'a>(&'a mut self, stage: &'a RequestStage, shared: &'a dyn Shared, now: u64) -> Desk<'a> {
        if self.table == Table::Empty {
            self.table = Table::read(shared);
        }
        Desk {
            stage,
            shared,
            random: &mut self.random,
            habits: &mut self.habits,
            room: &self.room,
            reporter: &mut self.reporter,
            counters: &mut self.counters,
            touched: &mut self.touched,
            holder: &mut self.holder,
            table: self.table,
            now,
        }
    }

    /// The call to the ledger that is due, if any.
    pub fn next_call(&mut self, identity: &Identity, now: u64) -> Option<wire::SyncRequest> {
        let ttl = self.ttl_ms.unwrap_or(TTL_MS);
        let holds = self.open > 0 || !self.touched.is_empty();
        let heartbeat = holds && now.saturating_add(ttl / 3 * 2) >= self.holder.expires_at;
        let request = self.reporter.next(identity, now, heartbeat)?;
        self.counters.ledger_calls += 1;
        self.counters.dropped += std::mem::take(&mut self.reporter.dropped);
        Some(request)
    }

    /// Takes the ledger's answer in. True: grants came, and who waits may try again.
    pub fn ledger_answered(&mut self, shared: &dyn Shared, response: wire::SyncResponse, now: u64) -> bool {
        let ttl = u64::from(response.lease_ttl_ms);
        let Some(Answered { sent_at, grants }) = self.reporter.answered(response) else {
            return false;
        };
        let ttl = if ttl == 0 { TTL_MS } else { ttl };
        self.ttl_ms = Some(ttl);
        let extended = update(shared, Holder::RECORD, now, |record| {
            let holder = Holder::decode(record).extended(sent_at, ttl);
            (Some(holder.encode()), holder)
        });
        if let Ok(holder) = extended {
            self.holder = holder;
        }
        let holder = self.holder;
        let came = !grants.is_empty();
        for granted in grants {
            let release = update(shared, &granted.budget.key, now, |record| {
                let (lease, release) = Lease::decode(record).grant(&granted.grant, granted.least, sent_at, now, holder);
                (Some(lease.encode()), release)
            });
            if let Ok(Some(release)) = release {
                self.reporter.released(&granted.budget, release);
            }
            // Kept in sight until it is idle, also when who wanted it is gone.
            self.touched.insert(granted.budget.key.clone(), granted.budget);
        }
        came
    }

    /// The ledger did not take the call, and never will if the status says so.
    pub fn ledger_failed(&mut self, status: u32, now: u64) -> Taken {
        if !NEVER.contains(&status) {
            self.reporter.failed(now);
            return Taken::Later;
        }
        self.reporter.refused();
        self.counters.calls_refused += 1;
        Taken::Never
    }

    /// The stream of keys ended or could not be opened.
    pub fn keys_closed(&mut self, token: Option<u32>, now: u64) {
        let random = self.random.draw();
        self.keeper.closed(token, now, random);
    }

    /// Gives idle leases back, from time to time.
    pub fn sweep(&mut self, shared: &dyn Shared, now: u64) {
        if now < self.swept_at.saturating_add(SWEEP_MS) {
            return;
        }
        self.swept_at = now;
        let (holder, reporter) = (self.holder, &mut self.reporter);
        self.touched.retain(|key, budget| {
            let swept = update(shared, key, now, |record| {
                let lease = Lease::decode(record);
                let (kept, release) = lease.release_idle(now, holder);
                ((kept != lease).then(|| kept.encode()), (kept, release))
            });
            let Ok((lease, release)) = swept else {
                return true;
            };
            if let Some(release) = release {
                reporter.released(budget, release);
            }
            lease.is_in_use(now)
        });
    }
}

// === impl XorShift ===

impl XorShift {
    fn seeded(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn draw(&mut self) -> u64 {
        let mut state = if self.0 == 0 { 0x9e37_79b9_7f4a_7c15 } else { self.0 };
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.0 = state;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

impl Random for XorShift {
    fn below(&mut self, bound: u64) -> u64 {
        let high = (u128::from(self.draw()) * u128::from(bound)) >> 64;
        u64::try_from(high).unwrap_or(0)
    }
}
