//! How long leases are valid, and by which clock windows end. There is one record for all buckets and workers.

use crate::host::{Shared, read_u64};

/// How long the leases of this process are valid. There is one record for all buckets and workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holder {
    pub expires_at: u64,
    /// Grants of calls that were sent before this are void. They expired before the ledger heard of us again.
    pub valid_since: u64,
    /// The ledger's clock minus ours, in milliseconds. Windows end by the ledger's clock.
    pub ahead_ms: i64,
}

// === impl Holder ===

impl Holder {
    pub const RECORD: &'static str = "holder";

    pub fn decode(record: &[u8]) -> Self {
        let mut words = record.chunks_exact(8).map(read_u64);
        let mut next = || words.next().unwrap_or(0);
        Self { expires_at: next(), valid_since: next(), ahead_ms: next().cast_signed() }
    }

    pub fn encode(self) -> Vec<u8> {
        [self.expires_at.to_le_bytes(), self.valid_since.to_le_bytes(), self.ahead_ms.to_le_bytes()].concat()
    }

    /// What the ledger's clock shows when ours shows `now`. Both are unix milliseconds.
    pub fn ledger_time(self, now: u64) -> u64 {
        now.saturating_add_signed(self.ahead_ms)
    }

    pub fn read(shared: &dyn Shared) -> Self {
        shared.get(Self::RECORD).map_or_else(Self::default, |(record, _)| Self::decode(&record))
    }

    /// Between the sending of a call and its answer, the ledger's clock showed `ledger` (unix milliseconds; 0: it does
    /// not say). A difference that the time on the way can explain does not count.
    pub fn told(self, ledger: u64, sent_at: u64, now: u64) -> Self {
        let ahead_ms = if ledger == 0 || (sent_at..=now).contains(&ledger) {
            0
        } else {
            let nearest = if ledger < sent_at { sent_at } else { now };
            i64::try_from(i128::from(ledger) - i128::from(nearest)).unwrap_or(0)
        };
        Self { ahead_ms, ..self }
    }

    /// A call that was sent at `sent_at` has succeeded, so the leases are valid for longer.
    pub fn extended(self, sent_at: u64, ttl_ms: u64) -> Self {
        Self {
            expires_at: self.expires_at.max(sent_at.saturating_add(ttl_ms)),
            valid_since: if sent_at >= self.expires_at { sent_at } else { self.valid_since },
            ..self
        }
    }
}
