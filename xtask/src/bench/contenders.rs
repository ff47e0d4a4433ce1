//! The gateways that are compared, and the lanes of each: the same work through every one of them.

use std::time::Duration;

use crate::bench::lane::{Build, Lane, Turn, Way, Work, differences, find, samples};
use crate::bench::load::Entry;
use crate::bench::parts::{self, PROMPT, TEN_EVENTS};
use crate::bench::peers::Peer;
use crate::bench::refusal::Refusal;
use crate::bench::responder::Answer;
use crate::bench::stats::Samples;

/// A gateway, and how it wants to be asked.
#[derive(Clone)]
pub struct Contender {
    /// The name of its lanes.
    pub name: &'static str,
    /// Its name in tables.
    pub title: &'static str,
    pub way: Way,
    pub entry: Entry,
}

/// Events of a short and of a long stream, and the pause between two. Their difference is what chunks cost.
const SHORT: usize = 10;
const LONG: usize = 210;
const EVERY: Duration = Duration::from_millis(1);

/// KB of the prompts.
pub const SIZES: [f64; 3] = [2.0, 100.0, 1024.0];

pub const DIRECT: &str = "the backend itself";

pub fn all(peers: &[Peer], backend: u16) -> Vec<Contender> {
    let contender = |name, title, way, entry| Contender { name, title, way, entry };
    let mut all = vec![
        contender(parts::PLAIN, "plain Envoy", Way::Plain, parts::unguarded()),
        contender(parts::NOOP, "no-op wasm", Way::Noop, parts::unguarded()),
        contender(parts::BUDGET, "Tollgate, key and budget", Way::Chain(Build::This), parts::budget()),
        contender(parts::NATIVE, "Tollgate, native", Way::Chain(Build::Native), parts::budget()),
    ];
    all.extend(peers.iter().map(|peer| contender(peer.name(), peer.title(), Way::Peer(*peer), peer.entry(backend))));
    all
}

/// The lanes of these, besides those that are there already.
pub fn lanes(contenders: &[Contender], there: &[Lane]) -> Vec<Lane> {
    let direct = Contender { name: DIRECT, title: DIRECT, way: Way::Direct, entry: parts::unguarded() };
    let mut lanes = vec![direct.lane(Work::FirstByte)];
    for contender in contenders {
        let works =
            [Work::Chats, Work::OneByOne, Work::FirstByte, Work::Short, Work::Long, Work::Prompt100K, Work::Prompt1M];
        let missing = works.into_iter().filter(|work| find(there, contender.name, *work).is_none());
        lanes.extend(missing.map(|work| contender.lane(work)));
    }
    lanes
}

// === impl Contender ===

impl Contender {
    fn lane(&self, work: Work) -> Lane {
        let events = |count| Answer::Events { count, every: EVERY };
        let (bytes, answer) = match work {
            Work::Chats | Work::OneByOne => (PROMPT, Answer::Whole),
            Work::Events | Work::FirstByte => (PROMPT, TEN_EVENTS),
            Work::Short => (PROMPT, events(SHORT)),
            Work::Long => (PROMPT, events(LONG)),
            Work::Prompt100K => (100 * 1024, Answer::Whole),
            Work::Prompt1M => (1024 * 1024, Answer::Whole),
        };
        Lane::new(self.name, work, self.way, self.entry.request(bytes, answer))
    }
}

/// CPU microseconds of each event of a stream.
pub fn per_event(lanes: &[Lane], name: &str) -> Result<Samples, Refusal> {
    samples(&events(lanes, name)?)
}

/// The same over another contender, round by round.
pub fn per_event_over(lanes: &[Lane], name: &str, base: &str) -> Result<Samples, Refusal> {
    samples(&differences(&events(lanes, name)?, &events(lanes, base)?))
}

/// CPU microseconds of each KB of a prompt: between the first two sizes, and between the last two.
pub fn per_kilobyte(lanes: &[Lane], name: &str) -> [Result<Samples, Refusal>; 2] {
    let [small, medium, large] = SIZES;
    let steps = [(Work::Chats, small), (Work::Prompt100K, medium), (Work::Prompt1M, large)];
    let [first, second, third] = steps;
    [[first, second], [second, third]].map(|step| samples(&per_step(lanes, name, step)?))
}

type Rounds = Vec<Result<f64, Refusal>>;

fn events(lanes: &[Lane], name: &str) -> Result<Rounds, Refusal> {
    per_step(lanes, name, [(Work::Short, SHORT as f64), (Work::Long, LONG as f64)])
}

/// How much more of a thing costs, per thing.
fn per_step(lanes: &[Lane], name: &str, [from, to]: [(Work, f64); 2]) -> Result<Rounds, Refusal> {
    let costs = |work| Ok(find(lanes, name, work).ok_or_else(not_measured)?.numbers(Turn::cpu));
    let more = differences(&costs(to.0)?, &costs(from.0)?);
    Ok(more.into_iter().map(|more| Ok(more? / (to.1 - from.1))).collect())
}

pub fn not_measured() -> Refusal {
    Refusal::Skipped { reason: "it is not part of this run".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(name: &'static str, work: Work, cost: f64) -> Lane {
        let contender = Contender { name, title: name, way: Way::Plain, entry: parts::unguarded() };
        let mut lane = contender.lane(work);
        lane.rounds = vec![Ok(Turn { envoy: cost, ..Turn::default() }); 3];
        lane
    }

    #[test]
    fn chunks_and_kilobytes_cost_what_the_longer_one_costs_more() {
        let lanes = [
            measured("a", Work::Short, 100.0),
            measured("a", Work::Long, 500.0),
            measured("a", Work::Chats, 100.0),
            measured("a", Work::Prompt100K, 296.0),
        ];
        assert!((per_event(&lanes, "a").unwrap().median() - 2.0).abs() < 1e-9);
        let [small, large] = per_kilobyte(&lanes, "a");
        assert!((small.unwrap().median() - 2.0).abs() < 1e-9);
        assert_eq!(large, Err(not_measured()));
    }

    #[test]
    fn every_contender_does_the_same_work_and_nothing_twice() {
        let there = parts::lanes(&[Build::This]);
        let contenders = all(&Peer::ALL, 1);
        let mut lanes = lanes(&contenders, &there);
        lanes.extend(there);
        for contender in &contenders {
            for work in [Work::Chats, Work::OneByOne, Work::Long, Work::Prompt1M] {
                let count = lanes.iter().filter(|lane| lane.name == contender.name && lane.work == work).count();
                assert_eq!(count, 1, "{} {work:?}", contender.name);
            }
        }
    }
}
