//! What other processes use of this machine while we measure.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Context;

use crate::bench::proc::{Entry, TICKS};
use crate::bench::refusal::Refusal;
use crate::interrupt;

/// A time in which others are watched.
pub struct Watch {
    since: Instant,
    machine: Machine,
    processes: Processes,
}

/// What all processes had used at a time.
struct Processes {
    ours: u64,
    /// By their ids, with their names.
    others: BTreeMap<u32, (String, u64)>,
}

/// What the machine's first line of `/proc/stat` says: ticks of all CPUs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Machine {
    /// By programs and by the kernel for them, and what the host took away. Interrupts are no program's.
    used: u64,
    cpus: usize,
}

// === impl Watch ===

impl Watch {
    pub fn start() -> anyhow::Result<Self> {
        Ok(Self { since: Instant::now(), machine: Machine::read()?, processes: Processes::read()? })
    }

    /// An error if others used more than so many percent of all CPUs.
    pub fn end(&self, at_most: f64) -> Result<(), Refusal> {
        let now = Self::start().map_err(|error| Refusal::Gone { what: format!("/proc cannot be read: {error:#}") })?;
        let machine = now.machine.used.saturating_sub(self.machine.used);
        let ours = now.processes.ours.saturating_sub(self.processes.ours);
        let capacity = now.since.duration_since(self.since).as_secs_f64() * now.machine.cpus as f64;
        let most = || now.processes.busiest_since(&self.processes);
        Refusal::if_busy(machine.saturating_sub(ours) as f64 / TICKS, capacity, at_most, most)
    }
}

// === impl Processes ===

impl Processes {
    /// Ours are this program and all that it has started, be it below it or not.
    fn read() -> anyhow::Result<Self> {
        let all = Entry::all()?;
        let roots = std::iter::once(std::process::id()).chain(interrupt::running());
        let ours: BTreeMap<u32, u64> =
            roots.flat_map(|root| Entry::below(root, &all)).map(|entry| (entry.id, entry.ticks)).collect();
        let others = all.into_iter().filter(|entry| !ours.contains_key(&entry.id));
        let others = others.map(|entry| (entry.id, (entry.name, entry.ticks))).collect();
        Ok(Self { ours: ours.values().sum(), others })
    }

    /// The name of the other process that used most since, if it can be told.
    fn busiest_since(&self, before: &Self) -> Option<String> {
        let used = |(id, (name, ticks)): (&u32, &(String, u64))| {
            let earlier = before.others.get(id).map_or(0, |(_, ticks)| *ticks);
            (ticks.saturating_sub(earlier), name.clone())
        };
        let (ticks, name) = self.others.iter().map(used).max()?;
        (ticks > 0).then_some(name)
    }
}

// === impl Machine ===

impl Machine {
    fn read() -> anyhow::Result<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat")?).context("/proc/stat is not as expected")
    }

    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let fields: Vec<u64> = line.split_whitespace().map(|word| word.parse().ok()).collect::<Option<_>>()?;
        // user, nice, system, idle, iowait, irq, softirq, steal
        let used = [0, 1, 2, 7].into_iter().map(|index| fields.get(index).copied()).sum::<Option<u64>>()?;
        let cpus = text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
        Some(Self { used, cpus })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_what_the_host_took_count() {
        let text = "cpu  10 1 5 900 7 3 2 4 0 0\ncpu0 5 0 2 450 3 1 1 2 0 0\ncpu1 5 1 3 450 4 2 1 2 0 0\nintr 1\n";
        assert_eq!(Machine::parse(text), Some(Machine { used: 20, cpus: 2 }));
        assert_eq!(Machine::parse("cpu  10 1 five 900 7 3 2 4"), None);
        assert_eq!(Machine::parse("cpu  10 1"), None);
    }

    #[test]
    fn this_machine_is_watched() {
        let watch = Watch::start().unwrap();
        assert!(watch.machine.cpus > 0);
        assert!(!watch.processes.others.contains_key(&std::process::id()));
    }

    #[test]
    fn the_busiest_other_process_is_named() {
        let at = |ticks: [u64; 2]| {
            let others = [(7, ("rustc".to_owned(), ticks[0])), (8, ("sh".to_owned(), ticks[1]))];
            Processes { ours: 0, others: others.into_iter().collect() }
        };
        assert_eq!(at([9, 100]).busiest_since(&at([1, 99])).as_deref(), Some("rustc"));
        assert_eq!(at([9, 100]).busiest_since(&at([9, 100])), None);
    }
}
