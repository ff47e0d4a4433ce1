//! All processes of a gateway: Envoy, and whatever it needs beside it. What a gateway costs is what all of them use.

use std::time::Duration;

use crate::bench::proc::Entry;
use crate::bench::refusal::Refusal;
use crate::bench::stats::{self, Threads};

/// Which processes a gateway has.
#[derive(Clone, Copy, Debug)]
pub enum Tree {
    /// None: requests go to the backend itself.
    Nothing,
    /// One process, whatever others it has started.
    One(u32),
    /// A process and all below it.
    Below(u32),
    /// The same, and an Envoy that is nobody's child.
    With { root: u32, envoy: u32 },
}

/// What the processes had used at a time.
pub struct Reading(Vec<(u32, Part, Threads)>);

/// What the processes have used since.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    pub envoy: Duration,
    /// A control plane or a sidecar: all that is no Envoy.
    pub beside: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Envoy,
    Beside,
}

// === impl Tree ===

impl Tree {
    pub fn read(self) -> Result<Reading, Refusal> {
        let read = || -> anyhow::Result<Reading> {
            let members = self.members()?.into_iter();
            Ok(Reading(
                members.map(|at| Ok((at.id, Part::of(at.id), Threads::of(at.id)?))).collect::<anyhow::Result<_>>()?,
            ))
        };
        read().map_err(|error| Refusal::Gone { what: format!("a process of it cannot be read: {error:#}") })
    }

    /// MiB of all processes. What they share counts for each of them.
    pub fn memory(self) -> Result<f64, Refusal> {
        let read = || self.members()?.iter().map(|at| stats::memory(at.id)).sum::<anyhow::Result<f64>>();
        read().map_err(|error| Refusal::Gone { what: format!("a process of it cannot be read: {error:#}") })
    }

    fn members(self) -> anyhow::Result<Vec<Entry>> {
        let (roots, alone) = match self {
            Self::Nothing => (Vec::new(), false),
            Self::One(root) => (vec![root], true),
            Self::Below(root) => (vec![root], false),
            Self::With { root, envoy } => (vec![root, envoy], false),
        };
        let all = Entry::all()?;
        let mut members = Vec::new();
        for root in roots {
            let mut found = Entry::below(root, &all);
            anyhow::ensure!(!found.is_empty(), "process {root} has ended");
            if alone {
                found.truncate(1);
            }
            members.append(&mut found);
        }
        Ok(members)
    }
}

// === impl Reading ===

impl Reading {
    /// A process that was not there before counts from its beginning. One that has ended refuses the round, because
    /// nobody knows what it used.
    pub fn since(&self, before: &Self) -> Result<Used, Refusal> {
        for (old, ..) in &before.0 {
            if !self.0.iter().any(|(at, ..)| at == old) {
                return Err(Refusal::Gone { what: format!("process {old} of it has ended") });
            }
        }
        let mut used = Used::default();
        for (at, part, threads) in &self.0 {
            let nothing = Threads::default();
            let before = before.0.iter().find(|(old, ..)| old == at).map_or(&nothing, |(_, _, threads)| threads);
            match part {
                Part::Envoy => used.envoy += threads.since(before),
                Part::Beside => used.beside += threads.since(before),
            }
        }
        Ok(used)
    }
}

// === impl Used ===

impl Used {
    pub fn all(&self) -> Duration {
        self.envoy + self.beside
    }
}

// === impl Part ===

impl Part {
    fn of(process: u32) -> Self {
        let program = std::fs::read_link(format!("/proc/{process}/exe"));
        if program.is_ok_and(|program| program.ends_with("envoy")) { Self::Envoy } else { Self::Beside }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_ended_refuses_the_round() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let tree = Tree::Below(std::process::id());
        let before = tree.read().unwrap();
        assert!(tree.read().unwrap().since(&before).is_ok());
        child.kill().unwrap();
        child.wait().unwrap();
        let after = tree.read().unwrap();
        assert!(matches!(after.since(&before), Err(Refusal::Gone { .. })));
        assert!(matches!(Tree::One(child.id()).read(), Err(Refusal::Gone { .. })));
    }
}
