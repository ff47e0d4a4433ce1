//! The audit log: who may do what, who did it, and what was refused, as lines of JSON (docs/audit.md). No line has a secret:
//! keys are named by eight digits of their hash, and specifications by a hash of what we show of them.
//!
//! Stages record events and wait for nobody. One thread writes them; if it is too slow, events are dropped and counted.

mod recent;
mod writer;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::{counter::Counter, family::Family};
use prometheus_client::registry::Registry;
use serde::Serialize;

use self::recent::Recent;
use self::writer::{Job, Place, Writer};

/// So many lines may wait for the disk.
const QUEUE: usize = 8192;
/// At the end the disk has this long.
const LAST: Duration = Duration::from_secs(2);

/// Clones record into the same log. The default one records nothing.
#[derive(Debug, Clone, Default)]
pub struct Audit {
    jobs: Option<SyncSender<Job>>,
    lines: Family<Labels, Counter>,
    /// Whose calls were refused a moment ago.
    refused: Arc<Mutex<Recent>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    result: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Outcome {
    Written,
    /// The disk was too slow.
    Dropped,
    /// The disk did not take it.
    Failed,
}

/// What has happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Event<'a> {
    /// An object of the configuration.
    Configuration {
        action: Action,
        kind: &'a str,
        namespace: &'a str,
        name: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        generation: Option<i64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        resource_version: Option<&'a str>,
        /// `path:line`.
        #[serde(skip_serializing_if = "Option::is_none")]
        file: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        spec: Option<String>,
    },
    /// A key, an identity or claims that stand for a Consumer.
    Key {
        action: Action,
        key: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        consumer: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        not_after: Option<String>,
    },
    /// What requests used that ended in this minute, as far as it was settled.
    Usage {
        minute: String,
        consumer: &'a str,
        route: &'a str,
        model: &'a str,
        requests: u64,
        input_tokens: u64,
        output_tokens: u64,
        estimated_requests: u64,
    },
    TlsRefused {
        port: &'a str,
        reason: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        peer: Option<SocketAddr>,
    },
    /// A proxy has asked for a certificate by the token of its Pod.
    CertificateIssued {
        identity: &'a str,
        account: &'a str,
    },
    CertificateRefused {
        reason: &'a str,
    },
    /// A certificate that is kept here has a successor: a proxy's that reads it from our files, or our own (`server`).
    CertificateRenewed {
        identity: &'a str,
        until: Timestamp,
    },
    /// Another CA signs from now on.
    AuthorityReplaced {
        until: Timestamp,
    },
    /// A certificate that TLS took, and whose bearer may not have what it asks for.
    CallRefused {
        identity: &'a str,
        reason: &'a str,
    },
    /// Entries of a proxy's call that did not count.
    LedgerRefused {
        identity: &'a str,
        entry: &'a str,
        reason: &'a str,
        count: u64,
    },
    BudgetThreshold {
        policy: &'a str,
        limit: &'a str,
        scope: &'a [String],
        threshold: u16,
        spent: u64,
        tokens: u64,
    },
    /// Which of several control planes leads.
    Leadership {
        leads: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        leader: Option<SocketAddr>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    Added,
    Changed,
    Removed,
    /// It is not in force. What was before stays, if there was something.
    Refused,
    Expired,
}

#[derive(Serialize)]
struct Line<'a> {
    time: Timestamp,
    #[serde(flatten)]
    event: Event<'a>,
}

// === impl Audit ===

impl Audit {
    /// Appends to the file, or to standard output (`-`).
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (jobs, queue) = sync_channel(QUEUE);
        let lines = Family::default();
        for result in [Outcome::Written, Outcome::Dropped, Outcome::Failed] {
            drop(lines.get_or_create(&Labels { result }));
        }
        let audit = Self { jobs: Some(jobs), lines, refused: Arc::default() };
        let writer = Writer::open(Place::of(path), audit.lines.clone())?;
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(&queue))?;
        Ok(audit)
    }

    pub fn register(&self, registry: &mut Registry) {
        let help = "Lines of the audit log (--audit-log), by what became of them";
        registry.register("audit_lines", help, self.lines.clone());
    }

    /// Whether anybody reads what is recorded.
    pub fn is_on(&self) -> bool {
        self.jobs.is_some()
    }

    /// Records what has happened just now.
    pub fn record(&self, event: Event<'_>) {
        let Some(jobs) = &self.jobs else { return };
        let line = serde_json::to_string(&Line { time: Timestamp::now(), event });
        let sent = line.is_ok_and(|line| jobs.try_send(Job::Line(line)).is_ok());
        if !sent {
            self.lines.get_or_create(&Labels { result: Outcome::Dropped }).inc();
        }
    }

    /// Records that a call was refused, once a minute for each identity: whoever is refused comes again.
    pub fn refused(&self, identity: &str, reason: &str) {
        if self.is_on() && self.refused.lock().unwrap_or_else(PoisonError::into_inner).is_news(identity, Instant::now())
        {
            self.record(Event::CallRefused { identity, reason });
        }
    }

    /// Waits until all that was recorded is written, for a while.
    pub fn finish(&self) {
        let Some(jobs) = &self.jobs else { return };
        let (done, written) = sync_channel(1);
        if jobs.send(Job::Flush(done)).is_ok() {
            // An error says that the disk takes too long.
            let _ = written.recv_timeout(LAST);
        }
    }
}

/// A minute since the epoch.
pub fn minute(minute: u64) -> String {
    let second = i64::try_from(minute.saturating_mul(60)).ok();
    second.and_then(|second| Timestamp::from_second(second).ok()).unwrap_or_default().to_string()
}
