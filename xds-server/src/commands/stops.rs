//! The signals that stop a command in order.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C, SIGTERM and a closed terminal all stop the run in order. If they only ended us, Envoy would live on.
pub struct Stops {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

// === impl Stops ===

impl Stops {
    /// # Errors
    /// When signals cannot be handled.
    pub fn new() -> anyhow::Result<Self> {
        let of = |kind| signal(kind).context("signals cannot be handled");
        Ok(Self {
            interrupt: of(SignalKind::interrupt())?,
            terminate: of(SignalKind::terminate())?,
            hangup: of(SignalKind::hangup())?,
        })
    }

    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
