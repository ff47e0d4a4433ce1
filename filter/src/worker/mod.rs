//! What one worker keeps between requests, whatever the configuration: reports to the ledger, habits, its part in
//! keeping the table of keys, and copies of shared records that change seldom.

#[cfg(test)]
mod tests;

use std::{collections::HashMap, rc::Rc};

use tollgate_proto::{
    delta::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    v1 as wire,
};

use crate::{
    body::held::Room,
    budget::{Bucket, Counter, Holder, Lease, Release},
    config::{Known, RequestStage},
    counters::Counters,
    exchange::Desk,
    host::{RequestBody, Shared, prepare, read_u64, update},
    key::{Recent, Table},
    model::Random,
    report::{Answered, Identity, Reporter},
    roll::Roll,
    slices::Slices,
    sources::Sources,
    table::{self, Keeper},
    usage::Habits,
};

const EPOCH: &str = "epoch";
pub const WORKERS: &str = "workers";
const TTL_MS: u64 = 30_000;
const SWEEP_MS: u64 = 1000;
/// A worker that has not signed for so long cuts no slice. It may be taken for dead before its next tick, and a slice
/// would not know of that.
const SLEPT_MS: u64 = 5000;
/// After these gRPC statuses the same call would only be refused again: INVALID_ARGUMENT, FAILED_PRECONDITION and
/// OUT_OF_RANGE.
const NEVER: [u32; 3] = [3, 9, 11];

#[derive(Debug, Default)]
pub struct Worker {
    pub reporter: Reporter,
    pub keeper: Keeper,
    pub counters: Counters,
    pub habits: Habits,
    pub room: Room,
    pub sources: Sources,
    pub known: Known,
    pub touched: HashMap<Rc<str>, Bucket>,
    pub random: XorShift,
    /// The root that acts for this worker.
    pub owner: Option<u32>,
    /// Whether that root ticks seldom. The next request has to ring its bell.
    pub rests: bool,
    /// This worker's number in the process, from 1. 0: it has none yet.
    number: u64,
    proxy: Rc<str>,
    holder: Holder,
    table: Table,
    callers: Recent,
    slices: Slices,
    roll: Roll,
    /// How many requests of this worker are on their way.
    open: u64,
    ttl_ms: Option<u64>,
    signed_at: u64,
    swept_at: u64,
}

/// What becomes of a call that the ledger did not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    Later,
    Never,
}

/// A small random generator (xorshift64*). Nothing secret depends on it.
#[derive(Debug, Default)]
pub struct XorShift(u64);

/// Makes the records that workers must find. The main thread calls this before any worker starts.
pub fn prepare_records(shared: &dyn Shared, now_ns: u64) {
    let zero = [0u8; 16];
    let [leader, keys] = table::RECORDS;
    let epoch = now_ns.to_le_bytes();
    prepare(shared, &[(leader, &zero), (keys, &zero), (Holder::RECORD, &zero), (WORKERS, &zero), (EPOCH, &epoch)]);
}

// === impl Worker ===

impl Worker {
    /// Takes a number for this worker that no other worker of the process has, and learns the proxy's name.
    pub fn introduce(&mut self, shared: &dyn Shared, proxy: impl FnOnce() -> String, now: u64) {
        if self.number != 0 {
            return;
        }
        let number = update(shared, WORKERS, now, |record| {
            let next = read_u64(record).saturating_add(1);
            (Some(next.to_le_bytes().to_vec()), next)
        });
        self.number = number.unwrap_or(0);
        self.random = XorShift::seeded(epoch(shared) ^ (self.number << 32) ^ now);
        self.proxy = proxy().into();
    }

    /// Who this worker is to the ledger. None: it has no number yet.
    pub fn identity(&self, shared: &dyn Shared) -> Option<Identity> {
        let epoch = epoch(shared);
        (self.number != 0 && epoch != 0).then(|| Identity { proxy: self.proxy.to_string(), epoch, worker: self.number })
    }

    /// Reads the shared records that change seldom.
    pub fn refresh(&mut self, shared: &dyn Shared) {
        self.table = Table::read(shared);
        self.holder = Holder::read(shared);
    }

    pub fn desk<'a>(
        &'a mut self,
        stage: &'a RequestStage,
        shared: &'a dyn Shared,
        request: &'a dyn RequestBody,
        now: u64,
    ) -> Desk<'a> {
        if self.table == Table::Empty {
            self.table = Table::read(shared);
        }
        self.slices.are_put_back = self.owner.is_some() && now.abs_diff(self.signed_at) < SLEPT_MS;
        Desk {
            stage,
            known: &self.known,
            shared,
            request,
            worker: self.number,
            open: &mut self.open,
            random: &mut self.random,
            habits: &mut self.habits,
            room: &self.room,
            reporter: &mut self.reporter,
            counters: &mut self.counters,
            slices: &mut self.slices,
            touched: &mut self.touched,
            holder: &mut self.holder,
            table: self.table,
            callers: &mut self.callers,
            now,
        }
    }

    /// The call to the ledger that is due, if any.
    pub fn next_call(&mut self, shared: &dyn Shared, now: u64) -> Option<&wire::SyncRequest> {
        let identity = self.identity(shared)?;
        let heartbeat = self.heartbeat_is_due(now);
        self.counters.dropped += std::mem::take(&mut self.reporter.dropped);
        let request = self.reporter.next(&identity, now, heartbeat)?;
        self.counters.ledger_calls += 1;
        Some(request)
    }

    /// Whether a tick would find nothing to do before long: no request is on its way, all is told, and the table of keys is
    /// kept by somebody.
    pub fn is_quiet(&self) -> bool {
        self.open == 0 && self.reporter.is_done() && self.keeper.is_at_rest()
    }

    /// Whether nothing is lost if the ledger is called later.
    pub fn can_wait(&self, now: u64) -> bool {
        self.reporter.can_wait(now) && !self.heartbeat_is_due(now)
    }

    /// Whether the ledger is to hear of this worker, so that its leases do not expire.
    fn heartbeat_is_due(&self, now: u64) -> bool {
        let ttl = self.ttl_ms.unwrap_or(TTL_MS);
        let holds = self.open > 0 || !self.touched.is_empty();
        holds && now.saturating_add(ttl / 3 * 2) >= self.holder.expires_at
    }

    /// Takes in the ledger's answer. True: there are grants, so held requests may try again.
    pub fn ledger_answered(&mut self, shared: &dyn Shared, response: wire::SyncResponse, now: u64) -> bool {
        let ttl = u64::from(response.lease_ttl_ms);
        let ledger_now = u64::try_from(response.now).unwrap_or(0);
        let Some(Answered { sent_at, grants, heard }) = self.reporter.answered(response) else {
            return false;
        };
        let ttl = if ttl == 0 { TTL_MS } else { ttl };
        self.ttl_ms = Some(ttl);
        let extended = update(shared, Holder::RECORD, now, |record| {
            let holder = Holder::decode(record).extended(sent_at, ttl).told(ledger_now, sent_at, now);
            (Some(holder.encode()), holder)
        });
        if let Ok(holder) = extended {
            self.holder = holder;
        }
        let (holder, number) = (self.holder, self.number);
        for heard in heard {
            // If the record cannot be changed now, the note stays. Then too much may be charged, never too little.
            let _ = update(shared, &heard.bucket.key, now, |record| {
                let mut lease = Lease::decode(record);
                let noted = lease.answered_for(number, heard.window_start, heard.from_lease);
                (noted.then(|| lease.encode()), ())
            });
        }
        let came = !grants.is_empty();
        for granted in grants {
            let release = update(shared, &granted.bucket.key, now, |record| {
                let (lease, release) = Lease::decode(record).grant(&granted.grant, granted.least, sent_at, now, holder);
                (Some(lease.encode()), release)
            });
            // If the record cannot be changed now, the tokens go back.
            let given = Release { window_start: granted.grant.window_start, amount: granted.grant.granted };
            if let Some(release) = release.unwrap_or((given.amount > 0).then_some(given)) {
                self.reporter.released(&granted.bucket, release);
            }
            // The sweep gives it back when it is idle, even if the request that wanted it is gone.
            self.touched.insert(granted.bucket.key.clone(), granted.bucket);
        }
        came
    }

    /// The ledger did not take the call. The status says whether it ever will.
    pub fn ledger_failed(&mut self, status: u32, now: u64) -> Taken {
        if !NEVER.contains(&status) {
            self.reporter.failed(now);
            return Taken::Later;
        }
        self.reporter.refused();
        self.counters.calls_refused += 1;
        Taken::Never
    }

    /// This worker's part in keeping the table of keys.
    pub fn keep_keys(&mut self, shared: &dyn Shared, now: u64) -> table::Step {
        match self.number {
            0 => table::Step::Nothing,
            number => self.keeper.tick(shared, number, now),
        }
    }

    /// Keys came on a stream; returns the ACK or NACK.
    pub fn keys_came(
        &mut self,
        shared: &dyn Shared,
        token: u32,
        response: DeltaDiscoveryResponse,
    ) -> Option<DeltaDiscoveryRequest> {
        let current = self.keeper.is_current(token);
        let reply = current.then(|| self.keeper.received(shared, response)).flatten();
        let is_taken = reply.as_ref().is_some_and(|reply| reply.error_detail.is_none());
        self.counters.keys_taken += u64::from(is_taken);
        self.refresh(shared);
        reply
    }

    /// The stream of keys ended or could not be opened.
    pub fn keys_closed(&mut self, token: Option<u32>, now: u64) {
        let random = self.random.draw();
        self.keeper.closed(token, now, random);
    }

    /// Puts this worker's slices back into the leases.
    pub fn put_slices_back(&mut self, shared: &dyn Shared, now: u64) {
        let counter = Counter { shared, worker: self.number, holder: self.holder, now };
        self.slices.put_back(&counter, &mut self.reporter);
    }

    /// Puts slices back and signs the roll. Once a second it also gives idle leases back and calls the roll, but not in
    /// the worker's first second, in which the others of its process may not have signed yet.
    pub fn sweep(&mut self, shared: &dyn Shared, now: u64) {
        self.put_slices_back(shared, now);
        self.roll.sign(shared, self.number, now, &self.touched);
        self.signed_at = now;
        if self.swept_at == 0 {
            self.swept_at = now;
        }
        if now < self.swept_at.saturating_add(SWEEP_MS) {
            return;
        }
        self.swept_at = now;
        let (holder, number, reporter) = (self.holder, self.number, &mut self.reporter);
        let called = self.roll.call(shared, self.number, now);
        self.counters.workers_lost += called.buried;
        // The main thread has a worker of its own, which has no connections.
        self.sources.share_among(called.living - 1);
        for (bucket, taken) in called.taken {
            self.touched.insert(bucket.key.clone(), bucket.clone());
            reporter.settled(&bucket, taken.window_start, taken.amount, taken.amount);
        }
        self.touched.retain(|key, bucket| {
            let swept = update(shared, key, now, |record| {
                let lease = Lease::decode(record);
                let (kept, release) = lease.clone().release_idle(now, holder);
                ((kept != lease).then(|| kept.encode()), (kept, release))
            });
            let Ok((lease, release)) = swept else {
                return true;
            };
            if let Some(release) = release {
                reporter.released(bucket, release);
            }
            // A request may run for long after it took tokens. The bucket stays on the roll until the ledger has heard
            // of them, so that whoever buries this worker finds them.
            lease.is_in_use(now) || lease.is_noted(number)
        });
    }
}

/// When this process began, in nanoseconds. 0: the main thread has not said yet.
fn epoch(shared: &dyn Shared) -> u64 {
    shared.get(EPOCH).map_or(0, |(epoch, _)| read_u64(&epoch))
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
