//! The objects of a cluster, as its API server tells of them: a task per watch, and one place that knows what is in force.
//!
//! ```text
//! access.rs (which cluster) -> watch.rs (a task per kind) -> gathered.rs (what is in force) -> Changes, findings
//!   kinds.rs (of which kinds)    document.rs (one object)      needs.rs (what is to be got, got.rs gets it)
//!   definitions.rs (of which version they are, for the status of a GatewayClass)
//!   trouble.rs (what goes wrong, for the operator)             pace.rs (bursts)         listed.rs (once, no watch)
//!   denied.rs (what the API server refuses, counted)           refusals.rs (the same in one line each)
//! ```
//! A restart must not publish half a world. So nothing is read out of here before every kind that the API server has is
//! listed. After that, what was listed stays in force while the API server is away or refuses to answer.
//!
//! Secrets: a watch per Secret would be a connection per Secret, and ten thousand consumers have ten thousand. A watch of
//! all Secrets would bring the content of those that are nobody's business, and Helm keeps megabytes in them. So the watch
//! is of metadata alone. It says that a Secret changed, and the content of those that objects refer to is got by name. It
//! is the same with ConfigMaps.
//!
//! Pods: what matters of them is in their status, and most are nobody's business. So there is a watch for each selection of an
//! InferencePool, and it brings these Pods alone. In a mesh there is one for the Pods of the mesh besides.

mod access;
mod definitions;
mod denied;
mod document;
mod gathered;
#[cfg(test)]
mod gathered_test;
mod got;
pub(crate) mod kinds;
mod listed;
mod needs;
mod pace;
mod refusals;
mod trouble;
mod watch;

pub use access::{Access, AccessError, Reach};
pub use definitions::follow as follow_definitions;
pub use denied::Denied;
pub use listed::{ListError, list};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tollgate_core::objects::Changes;
use tollgate_core::status::{Finding, StatusKind};
use tollgate_core::written::Print;

use self::gathered::Gathered;
use self::got::Gets;
use self::pace::Pace;
use self::trouble::{Cause, Trouble};
use self::watch::{Seen, Tells, Told};
use crate::report::{Due, Metrics};

/// So many events may wait. If there are more, the watches wait.
const EVENTS: usize = 1024;
/// So many events are taken before the clock is looked at again.
const AT_ONCE: usize = 256;

/// The watches of a cluster. When it is dropped, they end.
pub struct Watches {
    gathered: Gathered,
    pace: Pace,
    client: Client,
    sender: mpsc::Sender<Tells>,
    events: mpsc::Receiver<Tells>,
    gets: Gets,
    metrics: Metrics,
    /// Who wants to know what statuses say. None: nobody.
    due: Option<Due>,
    synced: bool,
    /// What the log has told before there was a reading.
    warned: BTreeSet<Finding>,
    /// A task per watch.
    tasks: JoinSet<()>,
    /// Those of watches that may end.
    selecting: BTreeMap<usize, AbortHandle>,
}

/// What became of the objects since the reading before.
#[derive(Debug)]
pub struct Reading {
    pub changes: Changes,
    pub findings: Vec<Finding>,
}

// === impl Watches ===

impl Watches {
    /// Begins to watch. `mesh`: the Pods of the mesh as well.
    ///
    /// # Errors
    /// When it is not known which cluster, or who we are there. A cluster that does not answer is no error.
    pub async fn start(access: &Access, mesh: bool, metrics: Metrics, due: Option<Due>) -> Result<Self, AccessError> {
        let client = access.client().await?;
        let watched = kinds::all(&access.namespaces, mesh);
        let (sender, events) = mpsc::channel(EVENTS);
        // What nobody misses is asked for again and again, and is nothing to be alerted of.
        let unasked = Access { denied: Denied::default(), ..access.clone() }.client().await?;
        let mut tasks = JoinSet::new();
        for (id, watched) in watched.iter().enumerate() {
            metrics.watch(watched.kind);
            let client = if watched.is_optional { &unasked } else { &client };
            tasks.spawn(watch::run(id, watched.clone(), client.clone(), sender.clone()));
        }
        let gathered = Gathered::new(watched);
        let gets = Gets::new(client.clone());
        Ok(Self {
            gathered,
            pace: Pace::default(),
            client,
            sender,
            events,
            gets,
            metrics,
            due,
            synced: false,
            warned: BTreeSet::new(),
            tasks,
            selecting: BTreeMap::new(),
        })
    }

    /// Waits for the next change. It may be dropped at any time, and nothing is lost.
    pub async fn next(&mut self) -> Reading {
        loop {
            let due = if self.synced { self.pace.due() } else { self.gathered.settles_at() };
            tokio::select! {
                Some(tells) = self.events.recv() => {
                    self.take(tells);
                    for _ in 1..AT_ONCE {
                        let Ok(tells) = self.events.try_recv() else { break };
                        self.take(tells);
                    }
                }
                (needed, got) = self.gets.next() => {
                    let asks = self.gathered.take_got(&needed, got, Instant::now());
                    self.after(asks);
                }
                () = sleep_until(due.unwrap_or_else(far)), if due.is_some() => {
                    if let Some(reading) = self.read() {
                        return reading;
                    }
                }
            }
            if !self.synced
                && self.gathered.is_synced(Instant::now())
                && let Some(reading) = self.read()
            {
                return reading;
            }
        }
    }

    /// None: there is nothing new, or not everything is there yet.
    fn read(&mut self) -> Option<Reading> {
        if !self.synced && !self.gathered.is_synced(Instant::now()) {
            return None;
        }
        let is_first = !std::mem::replace(&mut self.synced, true);
        if is_first {
            self.gathered.close_what_is_unknown();
        }
        self.pace.rest();
        let reading = self.gathered.read();
        reading.is_some().then_some(()).or(is_first.then_some(()))?;
        Some(reading.unwrap_or_else(|| Reading { changes: Changes::default(), findings: self.gathered.findings() }))
    }

    fn take(&mut self, Tells { watch, told }: Tells) {
        let kind = self.gathered.kind(watch);
        match &told {
            Told::Lists => self.metrics.watch_lists(kind),
            Told::ListedAll => self.metrics.watch_synced(kind, true),
            Told::Fails(trouble) => {
                self.metrics.watch_fails(kind);
                match trouble.cause {
                    Cause::Gap => {}
                    Cause::NotServed => self.metrics.watch_not_there(kind),
                    _ if !self.gathered.misses(watch, &trouble.cause) => self.metrics.watch_not_there(kind),
                    _ => self.metrics.watch_synced(kind, false),
                }
                self.warn(trouble);
            }
            Told::Recovers => self.metrics.watch_synced(kind, true),
            Told::Listed(_) | Told::Applied(_) | Told::Deleted(_) => {}
        }
        self.look_at_status(kind, &told);
        let asks = self.gathered.take(watch, told, Instant::now());
        self.after(asks);
    }

    /// A status is no input, so nobody but the writer of statuses is told of it.
    fn look_at_status(&self, kind: &str, told: &Told) {
        let (Some(due), Some(kind)) = (&self.due, StatusKind::parse(kind)) else { return };
        match told {
            Told::Listed(Seen::Object { key, document }) | Told::Applied(Seen::Object { key, document }) => {
                due.saw((kind, key.clone()), Print::of(kind, document.get("status")));
            }
            Told::Deleted(key) => due.forget(&(kind, key.clone())),
            _ => {}
        }
    }

    /// What holds up the first reading is told at once. Later it is a finding.
    fn warn(&mut self, trouble: &Trouble) {
        if self.synced || trouble.cause == Cause::NotServed {
            return;
        }
        if let Some(finding) = trouble.finding()
            && self.warned.insert(finding.clone())
        {
            tracing::warn!("nothing is served before everything is read: {}", finding.text());
        }
    }

    /// An event was taken. What it refers to is to be got or watched, and what nobody refers to any more is not.
    fn after(&mut self, asks: gathered::Asks) {
        for (id, watched) in asks.watch {
            self.metrics.watch(watched.kind);
            let task = watch::run(id, watched, self.client.clone(), self.sender.clone());
            self.selecting.insert(id, self.tasks.spawn(task));
        }
        asks.end.iter().filter_map(|id| self.selecting.remove(id)).for_each(|task| task.abort());
        while self.tasks.try_join_next().is_some() {}
        asks.get.into_iter().for_each(|needed| self.gets.ask(needed));
        asks.forget.iter().for_each(|needed| self.gets.forget(needed));
        if asks.is_news {
            self.pace.note(Instant::now());
        }
    }
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

impl std::fmt::Debug for Watches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[the watches of a cluster]")
    }
}

/// A name that objects, watches and findings share.
type Name = Arc<str>;
