//! A lane: the same work, sent on one way, in every round.

use crate::bench::load::Request;
use crate::bench::peers::Peer;
use crate::bench::refusal::Refusal;
use crate::bench::sidecar::Filter;
use crate::bench::stats::Samples;

pub struct Lane {
    /// Whose way it is. Several lanes of a name do other work each.
    pub name: &'static str,
    pub work: Work,
    pub way: Way,
    /// What differs from the lane that it is compared with.
    pub means: &'static str,
    /// The name of the lane that it is compared with, which does the same work.
    pub over: Option<&'static str>,
    pub request: Request,
    pub connections: usize,
    /// In one round. A slow gateway gets fewer.
    pub requests: usize,
    pub rounds: Vec<Result<Turn, Refusal>>,
}

/// What is sent, and so what is learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Chats of 2 KB with an answer of 1 KB on 8 connections.
    Chats,
    /// The same with ten events as the answer.
    Events,
    /// Chats one after the other: the time of each.
    OneByOne,
    /// Streams one after the other: the time until each begins.
    FirstByte,
    /// Streams of 10 and of 210 events with a pause between them.
    Short,
    Long,
    /// Chats of 100 KB and of 1 MB.
    Prompt100K,
    Prompt1M,
}

/// Which listener of which process a lane's requests go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The backend itself.
    Direct,
    Plain,
    Noop,
    /// The listener of a Gateway without the filter.
    Bare(Build),
    Chain(Build),
    /// One of those that `--sidecar` starts.
    Sidecar(Filter),
    Peer(Peer),
}

/// Which Tollgate. Another one with other arguments is one more name here and one more line in `started.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    This,
    /// The same with the filter as a dynamic module.
    Native,
    /// That of `--against`.
    Other,
}

/// What one lane's work in one round has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Turn {
    /// CPU microseconds per request of Envoy.
    pub envoy: f64,
    /// The same of the gateway's other processes.
    pub beside: f64,
    pub per_second: f64,
    /// The part of one CPU that the gateway used.
    pub saturation: f64,
    /// Microseconds of a request.
    pub p50: f64,
    pub p99: f64,
    /// Microseconds until its answer's body began.
    pub first_byte_p99: f64,
}

// === impl Lane ===

impl Lane {
    pub fn new(name: &'static str, work: Work, way: Way, request: Request) -> Self {
        let (connections, requests) = work.amount();
        Self { name, work, way, means: "", over: None, request, connections, requests, rounds: Vec::new() }
    }

    #[must_use]
    pub fn over(mut self, name: &'static str, means: &'static str) -> Self {
        self.over = Some(name);
        self.means = means;
        self
    }

    /// One number of each round.
    pub fn samples(&self, number: impl Fn(&Turn) -> f64) -> Result<Samples, Refusal> {
        samples(&self.numbers(number))
    }

    /// What Envoy used in the rounds of each start that were not refused.
    pub fn starts(&self, rounds: usize) -> impl Iterator<Item = Samples> {
        self.rounds.chunks(rounds.max(1)).map(|start| start.iter().flatten().map(|turn| turn.envoy).collect())
    }

    /// The differences of the same rounds.
    pub fn minus(&self, other: &Self, number: impl Fn(&Turn) -> f64) -> Result<Samples, Refusal> {
        samples(&differences(&self.numbers(&number), &other.numbers(&number)))
    }

    /// One number of each round, or why that has none.
    pub fn numbers(&self, number: impl Fn(&Turn) -> f64) -> Vec<Result<f64, Refusal>> {
        self.rounds.iter().map(|turn| turn.as_ref().map(&number).map_err(Clone::clone)).collect()
    }
}

/// Round by round.
pub fn differences(these: &[Result<f64, Refusal>], others: &[Result<f64, Refusal>]) -> Vec<Result<f64, Refusal>> {
    let both = these.iter().cloned().zip(others.iter().cloned());
    both.map(|(this, other)| Ok(this? - other?)).collect()
}

/// Those of the rounds that were not refused, if there are enough.
pub fn samples(numbers: &[Result<f64, Refusal>]) -> Result<Samples, Refusal> {
    Ok(Refusal::unless_half(numbers)?.into_iter().collect())
}

/// The lane of this name that does this work.
pub fn find<'a>(lanes: &'a [Lane], name: &str, work: Work) -> Option<&'a Lane> {
    lanes.iter().find(|lane| lane.name == name && lane.work == work)
}

// === impl Work ===

impl Work {
    /// Connections, and requests in a round.
    fn amount(self) -> (usize, usize) {
        match self {
            Self::Chats | Self::Events => (CONNECTIONS, 1_000),
            Self::OneByOne => (1, 500),
            Self::FirstByte => (1, 300),
            Self::Short => (STREAMS, 5 * STREAMS),
            Self::Long => (STREAMS, STREAMS),
            Self::Prompt100K => (CONNECTIONS, 20 * CONNECTIONS),
            Self::Prompt1M => (CONNECTIONS, 4 * CONNECTIONS),
        }
    }

    /// So many requests are enough, if the gateway is slow. A 99th percentile needs a hundred.
    pub fn at_least(self) -> usize {
        match self {
            Self::OneByOne | Self::FirstByte => 100,
            Self::Chats | Self::Events => 5 * CONNECTIONS,
            Self::Short | Self::Long => STREAMS,
            Self::Prompt100K | Self::Prompt1M => CONNECTIONS,
        }
    }
}

pub const CONNECTIONS: usize = 8;
/// Streams at a time, to see what a chunk costs. A report of the filter comes four times a second, however many chunks
/// there are, so that with a few streams its cost would be taken for theirs.
const STREAMS: usize = 32;

// === impl Turn ===

impl Turn {
    /// CPU microseconds per request of all processes.
    pub fn cpu(&self) -> f64 {
        self.envoy + self.beside
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::load::Entry;
    use crate::bench::responder::Answer;

    fn lane(rounds: &[Option<f64>]) -> Lane {
        let request = Entry::new("/", "smol", &[]).request(2_000, Answer::Whole);
        let mut lane = Lane::new("a", Work::Chats, Way::Plain, request);
        let turn = |envoy: &f64| Turn { envoy: *envoy, ..Turn::default() };
        let busy = Refusal::Busy { percent: 50.0, most: None };
        lane.rounds = rounds.iter().map(|envoy| envoy.as_ref().map(turn).ok_or(busy.clone())).collect();
        lane
    }

    #[test]
    fn differences_are_of_the_same_round() {
        let (a, b) =
            (lane(&[Some(5.0), None, Some(9.0), Some(7.0)]), lane(&[Some(1.0), Some(1.0), Some(2.0), Some(3.0)]));
        assert_eq!(a.minus(&b, Turn::cpu).unwrap(), [4.0, 7.0, 4.0].into_iter().collect());
    }

    #[test]
    fn a_lane_whose_rounds_are_refused_has_no_figure() {
        let (refused, good) = (lane(&[Some(5.0), None, None]), lane(&[Some(1.0), Some(1.0), Some(2.0)]));
        assert!(matches!(refused.samples(Turn::cpu), Err(Refusal::Rounds { refused: 2, of: 3, .. })));
        assert!(refused.minus(&good, Turn::cpu).is_err() && good.minus(&refused, Turn::cpu).is_err());
        assert!(good.samples(Turn::cpu).is_ok());
    }
}
