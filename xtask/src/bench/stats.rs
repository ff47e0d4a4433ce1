//! CPU time and memory of a process, and what can be said about a series of measurements.
//!
//! This file is part of the program `cluster-bench` of the tests as well, so it uses nothing else of this one.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use anyhow::Context;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(Vec<f64>);

// === impl Samples ===

impl Samples {
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The sample at this part of their order: 0 is the lowest, 0.5 the median.
    pub fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = part * sorted.len().saturating_sub(1) as f64;
        let (low, high) = (at.floor(), at.ceil());
        let value = |index: f64| sorted.get(index as usize).copied().unwrap_or(f64::NAN);
        value(low) + (value(high) - value(low)) * (at - low)
    }

    pub fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Self {
        Self(values.into_iter().collect())
    }
}

/// CPU time of each thread of a process, to the nanosecond where the kernel tells it.
#[derive(Default)]
pub struct Threads(BTreeMap<OsString, Duration>);

// === impl Threads ===

impl Threads {
    pub fn of(process: u32) -> anyhow::Result<Self> {
        let mut threads = BTreeMap::new();
        for thread in std::fs::read_dir(format!("/proc/{process}/task"))?.flatten() {
            let text = match std::fs::read_to_string(thread.path().join("schedstat")) {
                Ok(text) => text,
                // The thread has ended meanwhile.
                Err(_) if !thread.path().exists() => continue,
                Err(error) => {
                    return Err(error).context("this kernel does not tell threads' CPU time (schedstat)");
                }
            };
            let nanos = text.split_whitespace().next().and_then(|word| word.parse().ok());
            let nanos = nanos.context("schedstat is not as expected")?;
            threads.insert(thread.file_name(), Duration::from_nanos(nanos));
        }
        Ok(Self(threads))
    }

    /// What these threads have used since. A thread that has ended takes only what it used since with it, and not all
    /// that it ever used.
    pub fn since(&self, before: &Self) -> Duration {
        let of = |(id, time): (_, &Duration)| time.saturating_sub(before.0.get(id).copied().unwrap_or_default());
        self.0.iter().map(of).sum()
    }
}

/// Memory of a process that is not swapped out, in MiB.
pub fn memory(process: u32) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: f64 = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).context("no VmRSS")?;
    Ok(kilobytes / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        let samples = Samples(vec![4.0, 1.0, 3.0, 2.0]);
        assert!((samples.quantile(0.0) - 1.0).abs() < 1e-9);
        assert!((samples.quantile(0.5) - 2.5).abs() < 1e-9);
        assert!((samples.quantile(1.0) - 4.0).abs() < 1e-9);
        assert!((samples.mean() - 2.5).abs() < 1e-9);
    }

    #[test]
    fn threads_that_begin_count_and_threads_that_end_take_nothing_away() {
        let threads = |all: &[(&str, u64)]| {
            Threads(all.iter().map(|(id, millis)| (OsString::from(id), Duration::from_millis(*millis))).collect())
        };
        let before = threads(&[("1", 100), ("2", 5_000)]);
        let after = threads(&[("1", 130), ("3", 7)]);
        assert_eq!(after.since(&before), Duration::from_millis(37));
    }

    #[test]
    fn this_process_has_memory_and_time() {
        let id = std::process::id();
        assert!(memory(id).unwrap() > 1.0);
        assert!(Threads::of(id).unwrap().since(&Threads::default()) > Duration::ZERO);
    }
}
