//! Threads that ask all the time, and what they were answered: one asks for the route that changes, one for a route that
//! never does.

use std::ops::AddAssign;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::changes::Change;
use super::client::{Answer, Client, Probe};

/// The time between two questions for the route that changes.
pub const PACE: Duration = Duration::from_millis(1);
/// The time between two questions for the route that never changes.
const WITNESS_PACE: Duration = Duration::from_millis(5);
/// A change that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(120);
/// So often is asked on after the change was seen, whether the old version comes back.
const AFTERWARDS: u32 = 100;
/// So many answers are shown as they come.
const SHOWN: usize = 5;

/// What was not answered as it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Another route's answer, an old version after the new one, no answer.
    pub wrong: usize,
    /// Answers with a status from 500 on.
    pub errors: usize,
}

/// A change as traffic shows it.
pub struct Watch(JoinHandle<(Client, Watched)>);

pub struct Watched {
    pub seen: Option<Instant>,
    pub questions: u32,
    pub faults: Faults,
}

/// Asks for the route that never changes until it is told to end.
pub struct Witness {
    thread: JoinHandle<Witnessed>,
    /// The thread ends when this is dropped.
    ends: Sender<()>,
}

#[derive(Default)]
pub struct Witnessed {
    pub questions: u32,
    pub faults: Faults,
}

// === impl Faults ===

impl Faults {
    /// Counts an answer that is none of the right ones.
    pub fn judge(&mut self, answer: &Answer, right: &[Answer]) {
        if right.contains(answer) {
            return;
        }
        match answer {
            Answer::Other(500..) => self.errors += 1,
            _ => self.wrong += 1,
        }
        if self.wrong + self.errors <= SHOWN {
            eprintln!("    not right: {answer:?} instead of {right:?}");
        }
    }
}

impl AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.wrong += other.wrong;
        self.errors += other.errors;
    }
}

// === impl Watch ===

impl Watch {
    /// Returns when the first question is answered, so that the connection is there.
    pub fn start(client: Client, change: &Change) -> anyhow::Result<Self> {
        let (begun, begins) = mpsc::channel();
        let (before, after) = (change.before.clone(), change.after.clone());
        let thread = std::thread::spawn(move || watch(client, before, &after, &begun));
        begins.recv().context("the thread that asks has ended")?;
        Ok(Self(thread))
    }

    /// Waits until traffic has shown the change. Returns the client too.
    pub fn end(self) -> anyhow::Result<(Client, Watched)> {
        self.0.join().map_err(|_| anyhow::anyhow!("the thread that asks has panicked"))
    }
}

fn watch(mut client: Client, before: Answer, after: &Probe, begun: &Sender<()>) -> (Client, Watched) {
    let mut watched = Watched { seen: None, questions: 0, faults: Faults::default() };
    let mut right = vec![before, after.answer.clone()];
    let (started, mut afterwards) = (Instant::now(), 0);
    while afterwards < AFTERWARDS && (watched.seen.is_some() || started.elapsed() < PATIENCE) {
        let answer = client.ask(&after.request);
        watched.questions += 1;
        watched.faults.judge(&answer, &right);
        match watched.seen {
            Some(_) => afterwards += 1,
            None if answer == after.answer => {
                watched.seen = Some(Instant::now());
                // From now on the old version is wrong.
                right.remove(0);
            }
            None => {}
        }
        // Nobody waits for it any more after the first time.
        let _ = begun.send(());
        std::thread::sleep(PACE);
    }
    (client, watched)
}

// === impl Witness ===

impl Witness {
    pub fn start(mut client: Client, probe: Probe) -> Self {
        let (ends, ended) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut witnessed = Witnessed::default();
            while pause(&ended) {
                let answer = client.ask(&probe.request);
                witnessed.questions += 1;
                witnessed.faults.judge(&answer, std::slice::from_ref(&probe.answer));
            }
            witnessed
        });
        Self { thread, ends }
    }

    pub fn end(self) -> anyhow::Result<Witnessed> {
        drop(self.ends);
        self.thread.join().map_err(|_| anyhow::anyhow!("the thread that asks has panicked"))
    }
}

/// False when the other end is gone.
fn pause(ended: &Receiver<()>) -> bool {
    ended.recv_timeout(WITNESS_PACE) == Err(RecvTimeoutError::Timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_other_routes_and_errors_are_counted_apart() {
        let right = [Answer::Redirect { route: 1, version: 1 }, Answer::Redirect { route: 1, version: 2 }];
        let mut faults = Faults::default();
        right.iter().for_each(|answer| faults.judge(answer, &right));
        assert_eq!(faults, Faults::default());
        for answer in [Answer::Redirect { route: 2, version: 1 }, Answer::Other(404), Answer::Other(503)] {
            faults.judge(&answer, &right);
        }
        assert_eq!(faults, Faults { wrong: 2, errors: 1 });
    }
}
