//! Writes into the objects of a cluster what `/api/status` says of them. Steps of a change: due -> look -> queue -> write.
//!
//! ```text
//! report/due.rs (whose, and what the cluster says) -> judge.rs (what differs) -> queue.rs (when) -> write.rs (how)
//!                                                     leader/: which of several control planes writes
//! ```
//! Every replica looks, and only the leader writes. So whoever becomes the leader knows at once what is to be written. An
//! object that says the right thing already costs no request, however many there are.

mod judge;
mod queue;
mod write;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tollgate_core::status::{Definitions, Heard, Horizon, ObjectStatus, StatusKind, date_of};
use tollgate_core::written::Print;

use self::judge::{Judge, Verdict};
use self::queue::Queue;
use self::write::{Outcome, Writer};
use crate::leader::{Leads, Writes};
use crate::pipeline::Published;
use crate::report::board::Board;
use crate::report::{Due, LastUsed, Metrics, SpentToday, Whose};
use crate::serve::status::heard;
use crate::source::kubernetes::Reach;

/// Changes come in bursts, and an Envoy answers within milliseconds. What comes together is looked at once.
const TOGETHER: Duration = Duration::from_millis(50);
/// A GatewayClass is looked at again after this time, if its definitions are not known by then.
const DEFINITIONS: Duration = Duration::from_secs(5);
/// So many objects are looked at before others have their turn.
const CHUNK: usize = 256;
/// Days end at midnight, but a clock may be set.
const LOOK_FOR_MIDNIGHT: Duration = Duration::from_secs(30);

/// What the writer is told of.
pub struct Inputs {
    pub due: Due,
    pub published: watch::Receiver<Arc<Published>>,
    pub board: Board,
    pub last_used: LastUsed,
    pub spent_today: SpentToday,
    pub definitions: watch::Receiver<Definitions>,
    /// How long before its end a key is warned of.
    pub key_warning: Duration,
}

/// The running writer.
#[derive(Debug)]
pub struct Statuses {
    writer: JoinHandle<()>,
}

struct Looking {
    inputs: Inputs,
    /// What was heard when it was looked at last.
    heard: Heard,
    /// The day, when it was last looked for.
    day: Date,
    judge: Judge,
    queue: Queue,
    writer: Writer,
    counts: Writes,
    writes: JoinSet<(Whose, Outcome)>,
}

// === impl Statuses ===

impl Statuses {
    /// Begins to write, while we lead.
    pub fn start(reach: Reach, leads: Leads, inputs: Inputs, metrics: &Metrics) -> Self {
        let counts = Writes::new(metrics, Writes::STATUSES);
        let looking = Looking {
            inputs,
            heard: Heard::default(),
            day: date_of(Timestamp::now()),
            judge: Judge::default(),
            queue: Queue::new(Instant::now()),
            writer: Writer::new(reach.client),
            counts,
            writes: JoinSet::new(),
        };
        Self { writer: tokio::spawn(looking.run(leads)) }
    }

    /// Stops writing.
    pub async fn stop(self) {
        self.writer.abort();
        // What has begun to be written ends with it.
        let _ = self.writer.await;
    }
}

// === impl Looking ===

impl Looking {
    async fn run(mut self, mut leads: Leads) {
        let due = self.inputs.due.clone();
        let last_used = self.inputs.last_used.clone();
        let mut published = self.inputs.published.clone();
        let mut reports = self.inputs.board.reports();
        let spent_today = self.inputs.spent_today.clone();
        let mut definitions = self.inputs.definitions.clone();
        let mut look_at = Some(Instant::now());
        let mut midnight = tokio::time::interval(LOOK_FOR_MIDNIGHT);
        loop {
            let queue_at = self.queue.wakes_at().filter(|_| leads.leads(Instant::now()));
            let wakes_at = [look_at, queue_at].into_iter().flatten().min();
            let is_news = tokio::select! {
                () = due.woken() => true,
                () = last_used.woken() => true,
                () = spent_today.woken() => true,
                Ok(()) = definitions.changed() => {
                    let classes = self.inputs.published.borrow().gateway_classes();
                    due.note(classes);
                    true
                }
                _ = midnight.tick() => self.is_another_day(),
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

    /// A new day begins with nothing spent, so the Consumers are to be looked at that have spent something on the one
    /// before.
    fn is_another_day(&mut self) -> bool {
        let today = date_of(Timestamp::now());
        let is_another = std::mem::replace(&mut self.day, today) != today;
        if is_another {
            let due = &self.inputs.due;
            due.note(due.behind(today));
        }
        is_another
    }

    /// Finds out whose statuses differ from what the cluster says.
    async fn look(&mut self) {
        let published = Arc::clone(&self.inputs.published.borrow());
        if published.generation == 0 {
            return;
        }
        let heard = heard(&published, &self.inputs.board.reports().borrow());
        let mut due = self.inputs.due.take();
        due.extend(self.inputs.last_used.take());
        due.extend(self.inputs.spent_today.take());
        let of_heard = judge::heard_of(&self.heard, &heard);
        // A ListenerSet works where its Gateway does.
        let gateways = of_heard.iter().filter(|(kind, _)| *kind == StatusKind::Gateway);
        due.extend(gateways.flat_map(|(_, gateway)| published.listener_sets(gateway)));
        due.extend(of_heard);
        self.heard = heard;
        let due: Vec<Whose> = due.into_iter().collect();
        for chunk in due.chunks(CHUNK) {
            for (object, verdict) in self.judged(&published, chunk) {
                match verdict {
                    Verdict::Same => {
                        self.queue.drop(&object);
                        self.rests(&object);
                    }
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
        let definitions = self.inputs.definitions.borrow().clone();
        let time = Timestamp::now();
        let (horizon, today) = (Horizon::new(time, self.inputs.key_warning), date_of(time));
        let judge = |(object, mut status): (&Whose, Option<ObjectStatus>)| {
            let said = self.inputs.due.said(object);
            if object.0 == StatusKind::GatewayClass && definitions == Definitions::NotYet {
                return (object.clone(), Verdict::Wait(now + DEFINITIONS));
            }
            let mut more_at = None;
            if let Some(status) = &mut status {
                status.age(horizon);
                status.judge_definitions(&definitions);
                self.inputs.last_used.tell(status, said.and_then(Print::last_used));
                more_at = self.inputs.spent_today.tell(status, said.and_then(Print::spent_today), today, now);
            }
            let verdict = match (self.judge.judge((object, status), said, &self.heard, now), more_at) {
                (Verdict::Same, Some(more_at)) => Verdict::Wait(more_at),
                (verdict, _) => verdict,
            };
            (object.clone(), verdict)
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
                Verdict::Same => {
                    self.queue.done(&object);
                    self.rests(&object);
                }
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

    /// There is nothing to write of it.
    fn rests(&self, (kind, key): &Whose) {
        if *kind == StatusKind::Consumer {
            self.inputs.spent_today.rests(key);
        }
    }

    fn done(&mut self, object: Whose, outcome: Outcome) {
        let due = &self.inputs.due;
        match &outcome {
            Outcome::Written(print) | Outcome::SaysSo(print) if object.0 == StatusKind::Consumer => {
                self.inputs.spent_today.wrote(&object.1, print.spent_today(), Instant::now());
            }
            Outcome::Gone | Outcome::Newer => self.rests(&object),
            Outcome::Written(_) | Outcome::SaysSo(_) | Outcome::Fails(_) => {}
        }
        match outcome {
            Outcome::Written(print) => {
                self.counts.count(true);
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
                self.counts.count(false);
                self.writer.tell(&object, &trouble);
                self.queue.failed(object, Instant::now());
            }
        }
    }
}
