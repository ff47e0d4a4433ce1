//! Writes into the objects of a cluster what `/api/status` says of them. Steps of a change: due -> look -> queue -> write.
//!
//! ```text
//! report/due.rs (whose, and what the cluster says) -> judge.rs (what differs) -> queue.rs (when) -> write.rs (how)
//!                                                     elector.rs, lease.rs: which of several control planes writes
//! ```
//! Every replica looks, and only the leader writes. So whoever becomes the leader knows at once what is to be written. An
//! object that says the right thing already costs no request, however many there are.

mod elector;
mod judge;
mod lease;
mod metrics;
mod queue;
mod write;

pub use elector::LeasePlace;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tollgate_core::status::Heard;

use self::elector::{Elector, Leads};
use self::judge::{Judge, Verdict};
use self::metrics::Counts;
use self::queue::Queue;
use self::write::{Outcome, Writer};
use crate::pipeline::Published;
use crate::report::board::Board;
use crate::report::{Due, Metrics, Whose};
use crate::serve::status::heard;
use crate::source::kubernetes::{Access, AccessError};

/// Changes come in bursts, and an Envoy answers within milliseconds. What comes together is looked at once.
const TOGETHER: Duration = Duration::from_millis(50);
/// So many objects are looked at before others have their turn.
const CHUNK: usize = 256;
/// No request takes longer.
const REQUEST: Duration = Duration::from_secs(5);

/// Which of several control planes writes.
#[derive(Debug, Clone)]
pub enum Election {
    /// There is no other.
    Always,
    ByLease(LeasePlace),
}

/// What the writer is told of.
pub struct Inputs {
    pub due: Due,
    pub published: watch::Receiver<Arc<Published>>,
    pub board: Board,
}

/// The running writer.
#[derive(Debug)]
pub struct Statuses {
    writer: JoinHandle<()>,
    elector: Elector,
}

struct Looking {
    inputs: Inputs,
    /// What was heard when it was looked at last.
    heard: Heard,
    judge: Judge,
    queue: Queue,
    writer: Writer,
    counts: Counts,
    writes: JoinSet<(Whose, Outcome)>,
}

// === impl Statuses ===

impl Statuses {
    /// Begins to write.
    ///
    /// # Errors
    /// When it is not known which cluster, or who we are there. A cluster that does not answer is no error.
    pub async fn start(
        access: &Access,
        election: Election,
        inputs: Inputs,
        metrics: &Metrics,
    ) -> Result<Self, AccessError> {
        let reach = access.reach(Some(REQUEST)).await?;
        let counts = Counts::new(metrics);
        let (elector, leads) = Elector::start(&reach, election, counts.clone());
        let looking = Looking {
            inputs,
            heard: Heard::default(),
            judge: Judge::default(),
            queue: Queue::new(Instant::now()),
            writer: Writer::new(reach.client),
            counts,
            writes: JoinSet::new(),
        };
        Ok(Self { writer: tokio::spawn(looking.run(leads)), elector })
    }

    /// Stops writing, then lets another one lead at once.
    pub async fn stop(self) {
        self.writer.abort();
        // What has begun to be written ends with it.
        let _ = self.writer.await;
        self.elector.stop().await;
    }
}

// === impl Looking ===

impl Looking {
    async fn run(mut self, mut leads: Leads) {
        let due = self.inputs.due.clone();
        let mut published = self.inputs.published.clone();
        let mut reports = self.inputs.board.reports();
        let mut look_at = Some(Instant::now());
        loop {
            let queue_at = self.queue.wakes_at().filter(|_| leads.leads(Instant::now()));
            let wakes_at = [look_at, queue_at].into_iter().flatten().min();
            let is_news = tokio::select! {
                () = due.woken() => true,
                changed = published.changed() => changed.is_ok(),
                changed = reports.changed() => changed.is_ok(),
                () = leads.changed() => false,
                Some(done) = self.writes.join_next(), if !self.writes.is_empty() => {
                    if let Ok((object, outcome)) = done {
                        self.done(object, outcome);
                    }
                    false
                }
                () = sleep_until(wakes_at.unwrap_or_else(Instant::now)), if wakes_at.is_some() => false,
            };
            let now = Instant::now();
            if is_news {
                look_at.get_or_insert(now + TOGETHER);
            }
            if look_at.is_some_and(|at| at <= now) {
                look_at = None;
                self.look().await;
            }
            self.write(&leads);
        }
    }

    /// Finds out whose statuses differ from what the cluster says.
    async fn look(&mut self) {
        let published = Arc::clone(&self.inputs.published.borrow());
        if published.generation == 0 {
            return;
        }
        let heard = heard(&published, &self.inputs.board.reports().borrow());
        let mut due = self.inputs.due.take();
        due.extend(judge::heard_of(&self.heard, &heard));
        self.heard = heard;
        let due: Vec<Whose> = due.into_iter().collect();
        for chunk in due.chunks(CHUNK) {
            for (object, verdict) in self.judged(&published, chunk) {
                match verdict {
                    Verdict::Same => self.queue.drop(&object),
                    Verdict::Wait(until) => self.queue.add_later(object, until),
                    Verdict::Write(_) => self.queue.add(object),
                }
            }
            tokio::task::yield_now().await;
        }
    }

    fn judged(&mut self, published: &Published, objects: &[Whose]) -> Vec<(Whose, Verdict)> {
        let statuses = published.statuses_of(objects);
        let now = Instant::now();
        let judge = |(object, status): (&Whose, _)| {
            let said = self.inputs.due.said(object);
            (object.clone(), self.judge.judge((object, status), said, &self.heard, now))
        };
        objects.iter().zip(statuses).map(judge).collect()
    }

    /// Begins to write what is due, as far as it may.
    fn write(&mut self, leads: &Leads) {
        let now = Instant::now();
        let next: BTreeSet<Whose> =
            std::iter::from_fn(|| if leads.leads(now) { self.queue.next(now) } else { None }).collect();
        if next.is_empty() {
            return;
        }
        let published = Arc::clone(&self.inputs.published.borrow());
        let next: Vec<Whose> = next.into_iter().collect();
        // It may say something else by now.
        for (object, verdict) in self.judged(&published, &next) {
            match verdict {
                Verdict::Same => self.queue.done(&object),
                Verdict::Wait(until) => {
                    self.queue.done(&object);
                    self.queue.add_later(object, until);
                }
                Verdict::Write(wanted) => {
                    let writer = self.writer.clone();
                    self.writes.spawn(async move {
                        let outcome = writer.write(&object, wanted).await;
                        (object, outcome)
                    });
                }
            }
        }
    }

    fn done(&mut self, object: Whose, outcome: Outcome) {
        let due = &self.inputs.due;
        match outcome {
            Outcome::Written(print) => {
                self.counts.written();
                due.knows(object.clone(), print);
                self.queue.done(&object);
            }
            Outcome::SaysSo(print) => {
                due.knows(object.clone(), print);
                self.queue.done(&object);
            }
            Outcome::Gone => {
                due.forget(&object);
                self.queue.done(&object);
            }
            // Its watch tells of the new one.
            Outcome::Newer => self.queue.done(&object),
            Outcome::Fails(trouble) => {
                self.counts.failed();
                self.writer.tell(&object, &trouble);
                self.queue.failed(object, Instant::now());
            }
        }
    }
}
