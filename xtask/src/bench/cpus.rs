//! Gateways have a CPU of their own, so that measurements do not vary, and all else runs on the other ones.

use anyhow::Context;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

pub struct Cpus {
    gateway: CpuSet,
    rest: CpuSet,
}

// === impl Cpus ===

impl Cpus {
    /// Takes the last CPU for gateways. The caller keeps the rest, and so does whatever it starts. With a single CPU all
    /// share it.
    pub fn divide() -> anyhow::Result<Self> {
        let mut rest = sched_getaffinity(None)?;
        let mut gateway = rest;
        if rest.count() > 1 {
            let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| rest.is_set(*cpu)).context("there is no CPU")?;
            rest.unset(last);
            gateway.clear();
            gateway.set(last);
        }
        sched_setaffinity(None, &rest)?;
        Ok(Self { gateway, rest })
    }

    /// Runs this on the gateways' CPU. What it starts stays there, and sees no other CPU.
    pub fn of_gateways<T>(&self, start: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        sched_setaffinity(None, &self.gateway)?;
        let started = start();
        sched_setaffinity(None, &self.rest)?;
        started
    }

    /// Moves all threads of a process that runs already.
    pub fn give(&self, process: u32) -> anyhow::Result<()> {
        for thread in std::fs::read_dir(format!("/proc/{process}/task"))?.flatten() {
            let id = thread.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            sched_setaffinity(Some(id.context("not a thread's id")?), &self.gateway)?;
        }
        Ok(())
    }
}

/// A thousand streams are two thousand connections of ours, and of what we start.
pub fn allow_many_connections() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(1 << 16);
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum })
        .context("the limit of open files cannot be raised")
}
