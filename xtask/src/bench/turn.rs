//! One lane's work in one round, measured from outside: what the processes used, and what the client saw.

use std::time::{Duration, Instant};

use crate::bench::busy::Watch;
use crate::bench::lane::{Lane, Turn, Work};
use crate::bench::load::Seen;
use crate::bench::refusal::Refusal;
use crate::bench::started::Place;
use crate::bench::stats::Samples;
use crate::bench::tree::Used;

/// A gateway that answers nothing right for so long does not work.
const PATIENCE: Duration = Duration::from_secs(15);
/// What is compiled or learnt while it runs is, after so many requests or so much time.
const WARM_UP: usize = 2_000;
const WARM_UP_AT_MOST: Duration = Duration::from_millis(1_500);
/// A round of one lane takes no longer, if the gateway is slow.
const TURN_AT_MOST: Duration = Duration::from_millis(500);

// === impl Lane ===

impl Lane {
    /// Sends requests until they are answered right and the gateway has its speed. Says how many of them are a turn.
    /// The first answers may be refusals, until workers have taken up what the main thread has acknowledged.
    pub fn warm_up(&mut self, place: Place) -> Result<(), Refusal> {
        let end = Instant::now() + PATIENCE;
        while let Err(refusal) = self.request.send(place.port, self.connections, self.connections) {
            if Instant::now() > end {
                return Err(refusal);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        // Other work than this runs warm code.
        let enough = if matches!(self.work, Work::Chats | Work::Events) { WARM_UP } else { 0 };
        let few = self.connections.max(self.requests / 20);
        let began = Instant::now();
        let mut sent = 0;
        let mut took = Duration::ZERO;
        while sent == 0 || sent < enough && began.elapsed() < WARM_UP_AT_MOST {
            took = self.request.send(place.port, self.connections, few)?.elapsed;
            sent += few;
        }
        let fit = few as f64 * TURN_AT_MOST.as_secs_f64() / took.as_secs_f64().max(1e-6);
        let whole = (fit as usize / self.connections) * self.connections;
        self.requests = self.requests.min(whole.max(self.work.at_least()));
        Ok(())
    }

    /// Others may use so many percent of all CPUs meanwhile.
    pub fn measure(&self, place: Place, others: f64) -> Result<Turn, Refusal> {
        let gone = |error: anyhow::Error| Refusal::Gone { what: format!("/proc cannot be read: {error:#}") };
        let watch = Watch::start().map_err(gone)?;
        let before = place.tree.read()?;
        let seen = self.request.send(place.port, self.connections, self.requests)?;
        let used = place.tree.read()?.since(&before)?;
        watch.end(others)?;
        Ok(Turn::of(&seen, used))
    }
}

// === impl Turn ===

impl Turn {
    fn of(seen: &Seen, used: Used) -> Self {
        let requests = seen.whole.len() as f64;
        let micros = |time: &Duration| time.as_secs_f64() * 1e6;
        let whole: Samples = seen.whole.iter().map(micros).collect();
        let first_byte: Samples = seen.first_byte.iter().map(micros).collect();
        let elapsed = seen.elapsed.as_secs_f64();
        Self {
            envoy: micros(&used.envoy) / requests,
            beside: micros(&used.beside) / requests,
            per_second: requests / elapsed,
            saturation: used.all().as_secs_f64() / elapsed,
            p50: whole.median(),
            p99: whole.quantile(0.99),
            first_byte_p99: first_byte.quantile(0.99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::lane::Way;
    use crate::bench::load::Entry;
    use crate::bench::responder::{self, Answer};
    use crate::bench::tree::Tree;

    #[test]
    fn a_turn_says_what_a_request_cost() {
        let seen = Seen {
            elapsed: Duration::from_millis(10),
            whole: vec![Duration::from_micros(50); 100],
            first_byte: vec![Duration::from_micros(40); 100],
        };
        let used = Used { envoy: Duration::from_millis(8), beside: Duration::from_millis(1) };
        let turn = Turn::of(&seen, used);
        assert!((turn.envoy - 80.0).abs() < 1e-6 && (turn.beside - 10.0).abs() < 1e-6);
        assert!((turn.per_second - 10_000.0).abs() < 1e-6 && (turn.saturation - 0.9).abs() < 1e-6);
        assert!((turn.p99 - 50.0).abs() < 1e-6 && (turn.first_byte_p99 - 40.0).abs() < 1e-6);
    }

    #[test]
    fn a_slow_gateway_has_fewer_requests_in_a_turn() {
        let place = Place { port: responder::start().unwrap(), tree: Tree::Nothing };
        let slow = Answer::Events { count: 1, every: Duration::from_millis(100) };
        let request = Entry::new("/", "smol", &[]).request(2_000, slow);
        let mut lane = Lane::new("slow", Work::Prompt100K, Way::Direct, request);
        lane.warm_up(place).unwrap();
        assert!(lane.requests < 100, "{}", lane.requests);
        assert_eq!(lane.requests % lane.connections, 0);
    }
}
