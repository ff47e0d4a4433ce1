//! The time, on both clocks that the ledger uses.

use std::fmt::Debug;
use std::time::Instant;

use jiff::Timestamp;
use tollgate_core::ledger::Now;

/// The edge to time.
pub trait Clock: Debug + Send + Sync {
    fn now(&self) -> Now;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

// === impl SystemClock ===

impl SystemClock {
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        Now { wall: Timestamp::now(), steady: self.started.elapsed() }
    }
}
