//! Envoy has a CPU of its own, so that measurements do not vary, and all else runs on the other ones.

use anyhow::Context;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

pub struct Cpus {
    envoy: CpuSet,
}

// === impl Cpus ===

impl Cpus {
    /// Takes the last CPU for Envoy. The caller keeps the rest, and so does whatever it starts. With a single CPU all
    /// share it.
    pub fn divide() -> anyhow::Result<Self> {
        let mut rest = sched_getaffinity(None)?;
        let mut envoy = rest;
        if rest.count() > 1 {
            let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| rest.is_set(*cpu)).context("there is no CPU")?;
            rest.unset(last);
            envoy.clear();
            envoy.set(last);
        }
        sched_setaffinity(None, &rest)?;
        Ok(Self { envoy })
    }

    /// Moves all threads of this Envoy to its CPU.
    pub fn give(&self, envoy: u32) -> anyhow::Result<()> {
        for thread in std::fs::read_dir(format!("/proc/{envoy}/task"))?.flatten() {
            let id = thread.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            sched_setaffinity(Some(id.context("not a thread's id")?), &self.envoy)?;
        }
        Ok(())
    }
}
