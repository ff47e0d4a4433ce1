//! Thresholds that budgets crossed, from the ledger's thread to whoever tells people of them. The thread waits for nobody:
//! who is too slow misses the oldest ones.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::broadcast;
use tollgate_core::ledger::{BucketKey, Crossing};

/// So many wait for those who tell of them.
const QUEUE: usize = 1024;

/// Clones are the same.
#[derive(Debug, Clone)]
pub struct Crossings {
    notices: broadcast::Sender<Notice>,
    receipts: Receipts,
}

/// Whether the ledger is told that somebody was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipts {
    /// Each crossing is told of once, as it comes.
    None,
    /// What has no receipt yet is told of again when the ledger is opened.
    Given,
}

#[derive(Debug, Clone)]
pub struct Notice {
    pub crossing: Arc<Crossing>,
    pub news: News,
    inbox: Weak<Inbox>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It was crossed just now.
    New,
    /// It was crossed before the ledger was opened, and nobody has said since that it was told.
    Again,
}

/// Receipts that the ledger's thread has not seen yet.
#[derive(Debug, Default)]
pub(super) struct Inbox(Mutex<Vec<(BucketKey, u16)>>);

// === impl Crossings ===

impl Crossings {
    pub fn new(receipts: Receipts) -> Self {
        Self { notices: broadcast::Sender::new(QUEUE), receipts }
    }

    /// What is told from now on.
    pub fn follow(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    pub(super) fn receipts(&self) -> Receipts {
        self.receipts
    }

    pub(super) fn tell(&self, crossing: Crossing, news: News, inbox: &Arc<Inbox>) {
        let notice = Notice { crossing: Arc::new(crossing), news, inbox: Arc::downgrade(inbox) };
        // An error says that nobody follows.
        let _ = self.notices.send(notice);
    }
}

impl Default for Crossings {
    fn default() -> Self {
        Self::new(Receipts::None)
    }
}

// === impl Notice ===

impl Notice {
    /// Whether the ledger that it is from is open. If not, whoever opens it next tells the same again.
    pub fn is_wanted(&self) -> bool {
        self.inbox.strong_count() > 0
    }

    /// Somebody was told. It is durable within about a second.
    pub fn give_receipt(&self) {
        if let Some(inbox) = self.inbox.upgrade() {
            let mut receipts = inbox.0.lock().unwrap_or_else(PoisonError::into_inner);
            receipts.push((self.crossing.key.clone(), self.crossing.threshold));
        }
    }
}

// === impl Inbox ===

impl Inbox {
    pub fn take(&self) -> Vec<(BucketKey, u16)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
