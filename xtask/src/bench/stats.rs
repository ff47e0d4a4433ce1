//! CPU time of a process, and what can be said about a series of measurements.

use std::time::Duration;

use anyhow::Context;

#[derive(Default)]
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

    /// Splits the samples into parts of this size, in order.
    pub fn parts(&self, size: usize) -> impl Iterator<Item = Self> {
        self.0.chunks(size.max(1)).map(|part| Self(part.to_vec()))
    }

    /// The differences, round by round.
    pub fn minus(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a - b).collect())
    }
}

/// CPU time of all threads of a process so far, to the nanosecond where the kernel tells it.
pub fn cpu_time(process: u32) -> anyhow::Result<Duration> {
    let mut sum = Duration::ZERO;
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))?.flatten() {
        let text = std::fs::read_to_string(thread.path().join("schedstat"))
            .context("this kernel does not tell threads' CPU time (schedstat)")?;
        let nanos = text.split_whitespace().next().and_then(|word| word.parse().ok());
        sum += Duration::from_nanos(nanos.context("schedstat is not as expected")?);
    }
    Ok(sum)
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
    }
}
