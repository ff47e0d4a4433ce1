//! A thousand streams at once, as long answers of a busy day are: slow, and all open at the same time. What the gateway
//! holds for each of them must not grow while they last.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Builder;
use std::time::{Duration, Instant};

use crate::bench::load::{Entry, Request};
use crate::bench::parts::PROMPT;
use crate::bench::refusal::Refusal;
use crate::bench::responder::Answer;
use crate::bench::started::Place;

pub const STREAMS: usize = 1_000;
const ANSWER: Answer = Answer::Events { count: 16, every: Duration::from_millis(500) };

/// They are opened one after the other, so that no queue of connections overflows.
const BETWEEN: Duration = Duration::from_millis(2);
const READ_EVERY: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(20);
/// Each has a thread that does little.
const STACK: usize = 128 * 1024;
/// Memory may grow by so many percent of all that is used, and is still flat.
pub const FLAT: f64 = 2.0;

/// MiB of all processes of a gateway.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    /// Before the streams.
    pub before: f64,
    /// When all were open for the first time.
    pub all_open: f64,
    /// When all were open for the last time.
    pub at_last: f64,
}

/// How many streams have begun and are not at their end.
#[derive(Default)]
struct Open {
    now: AtomicUsize,
    most: AtomicUsize,
    over: AtomicBool,
}

pub fn run(place: Place, entry: &Entry) -> Result<Memory, Refusal> {
    let request = entry.request(PROMPT, ANSWER);
    let before = place.tree.memory()?;
    let open = Open::default();
    let began = Instant::now();
    let (readings, failed) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| open.read(place));
        let streams: Vec<_> = (0..STREAMS)
            .map(|_| {
                std::thread::sleep(BETWEEN);
                Builder::new().stack_size(STACK).spawn_scoped(scope, || open.stream(place.port, &request))
            })
            .collect();
        let failed: Vec<anyhow::Error> = streams
            .into_iter()
            .filter_map(|stream| match stream.map(std::thread::ScopedJoinHandle::join) {
                Ok(Ok(result)) => result.err(),
                Ok(Err(_)) => Some(anyhow::anyhow!("a stream's thread ended")),
                Err(error) => Some(error.into()),
            })
            .collect();
        open.over.store(true, Ordering::SeqCst);
        (reader.join().unwrap_or_else(|_| Ok(Vec::new())), failed)
    });
    if let Some(first) = failed.first() {
        return Err(Refusal::Failed { connections: failed.len(), of: STREAMS, first: format!("{first:#}") });
    }
    Memory::of(before, &readings?, open.most.load(Ordering::SeqCst), began.elapsed())
}

// === impl Open ===

impl Open {
    fn stream(&self, port: u16, request: &Request) -> anyhow::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut begun = false;
        let result = request.ask(&mut stream, &mut Vec::new(), || {
            begun = true;
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
        });
        if begun {
            self.now.fetch_sub(1, Ordering::SeqCst);
        }
        result.map(drop)
    }

    /// What the gateway has while all are open.
    fn read(&self, place: Place) -> Result<Vec<f64>, Refusal> {
        let mut readings = Vec::new();
        while !self.over.load(Ordering::SeqCst) {
            std::thread::sleep(READ_EVERY);
            if self.now.load(Ordering::SeqCst) == STREAMS {
                readings.push(place.tree.memory()?);
            }
        }
        Ok(readings)
    }
}

// === impl Memory ===

impl Memory {
    fn of(before: f64, readings: &[f64], most: usize, took: Duration) -> Result<Self, Refusal> {
        match readings {
            [all_open, .., at_last] => Ok(Self { before, all_open: *all_open, at_last: *at_last }),
            _ => {
                let what =
                    format!("{most} of {STREAMS} streams at most were open at once, in {:.0} s", took.as_secs_f64());
                Err(Refusal::Gone { what })
            }
        }
    }

    /// KiB of one stream.
    pub fn per_stream(&self) -> f64 {
        (self.at_last - self.before) * 1024.0 / STREAMS as f64
    }

    /// By how many percent it grew while all were open.
    pub fn growth(&self) -> f64 {
        (self.at_last - self.all_open) / self.all_open * 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_flat_if_it_does_not_grow_while_all_are_open() {
        let of = |readings: &[f64]| Memory::of(50.0, readings, STREAMS, Duration::from_secs(9));
        assert!(of(&[100.0, 300.0, 101.0]).unwrap().growth() <= FLAT);
        assert!(of(&[100.0, 101.0, 103.0]).unwrap().growth() > FLAT);
        let refused = Memory::of(50.0, &[100.0], 998, Duration::from_secs(9)).unwrap_err();
        assert_eq!(refused.to_string(), "998 of 1000 streams at most were open at once, in 9 s");
    }
}
