//! Whether the memory of a process stays as it is, from what it had every few seconds.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What a process takes until then is what it needs to begin with.
const WARM: Duration = Duration::from_secs(120);
/// Only a process that lived for so long after that is judged.
const LONG: Duration = Duration::from_secs(6 * 60);
/// The last third may have so much of the first.
const MOST: f64 = 1.10;

/// A process: what it is, and its id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process(pub &'static str, pub u32);

/// When, since the run began, and how many MiB.
pub type Samples = Vec<(Duration, f64)>;

/// A process after its start.
#[derive(Clone, Debug)]
pub struct Life {
    what: &'static str,
    id: u32,
    time: Duration,
    /// Medians of the first and of the last third.
    first: f64,
    last: f64,
    most: f64,
}

// === impl Life ===

impl Life {
    /// None: it ended before it was warm.
    fn of(Process(what, id): &Process, samples: &Samples) -> Option<Self> {
        let (born, _) = *samples.first()?;
        let warm: Vec<_> = samples.iter().filter(|(at, _)| at.saturating_sub(born) >= WARM).collect();
        let (from, to) = (warm.first()?.0, warm.last()?.0);
        let third = warm.len().div_ceil(3);
        let first = median(warm.get(..third)?.iter().map(|(_, memory)| *memory).collect())?;
        let last = median(warm.get(warm.len() - third..)?.iter().map(|(_, memory)| *memory).collect())?;
        let most = warm.iter().map(|(_, memory)| *memory).fold(0.0, f64::max);
        Some(Self { what, id: *id, time: to.saturating_sub(from), first, last, most })
    }

    fn is_long(&self) -> bool {
        self.time >= LONG
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, id, time, first, last, most } = self;
        let seconds = time.as_secs();
        write!(f, "{what} ({id}), {seconds} s after its start: {first:.1} MiB in the first third, ")?;
        write!(f, "{last:.1} in the last, {most:.1} at most")?;
        if self.is_long() { Ok(()) } else { f.write_str(" (not judged: too short)") }
    }
}

/// The lives of these processes, and what is wrong: which have grown, and of what kind none lived for long enough.
pub fn judge(kinds: &[&'static str], samples: &BTreeMap<Process, Samples>) -> (Vec<Life>, Vec<String>) {
    let lives: Vec<Life> = samples.iter().filter_map(|(process, samples)| Life::of(process, samples)).collect();
    let grown = lives.iter().filter(|life| life.is_long() && life.last > life.first * MOST);
    let mut wrong: Vec<String> = grown.map(|life| format!("memory has grown: {life}")).collect();
    let unknown = kinds.iter().filter(|kind| !lives.iter().any(|life| life.what == **kind && life.is_long()));
    wrong.extend(unknown.map(|kind| format!("no {kind} lived for long enough to judge its memory")));
    (lives, wrong)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every 15 s for so many minutes.
    fn wrong(minutes: u64, memory: impl Fn(u64) -> f64) -> usize {
        let samples = (0..minutes * 4).map(|n| (Duration::from_secs(n * 15), memory(n))).collect();
        judge(&["Envoy"], &BTreeMap::from([(Process("Envoy", 1), samples)])).1.len()
    }

    #[test]
    fn a_leak_is_seen_and_a_start_is_none() {
        assert_eq!(wrong(12, |_| 100.0), 0);
        assert_eq!(wrong(12, |n| 100.0 + n as f64), 1, "it grows all the time");
        assert_eq!(wrong(12, |n| 50.0 + 6.0 * n.min(8) as f64), 0, "it grows until it is warm");
        assert_eq!(wrong(12, |n| if n % 7 == 0 { 300.0 } else { 100.0 }), 0, "for a moment");
    }

    #[test]
    fn what_nothing_is_known_of_is_wrong() {
        assert_eq!(wrong(7, |_| 100.0), 1);
        assert_eq!(judge(&["Envoy", "control plane"], &BTreeMap::new()).1.len(), 2);
    }
}
