//! What both processes use while nothing changes, and what the questions cost. It is taken off what is measured during a
//! change.

use std::time::{Duration, Instant};

use super::asker::PACE;
use super::client::Probe;
use super::cluster::{Cluster, Used};

/// How long nothing happens.
const QUIET: Duration = Duration::from_secs(5);
const QUESTIONS: u32 = 1_000;

/// A process rests when it uses less than [`RESTING`] milliseconds, beyond what it always uses, in each of [`RESTING_STEPS`]
/// steps. The control plane writes the status of a route some time after it has changed, which belongs to the change.
const STEP: Duration = Duration::from_millis(50);
const RESTING: f64 = 2.0;
const RESTING_STEPS: u32 = 8;
/// What still works then works always.
const REST_AT_LATEST: Duration = Duration::from_secs(20);

/// Milliseconds of CPU time: first the control plane's, then Envoy's.
pub struct Rest {
    per_second: [f64; 2],
    per_question: [f64; 2],
}

// === impl Rest ===

impl Rest {
    pub fn measure(cluster: &mut Cluster, probe: &Probe) -> anyhow::Result<Self> {
        come_to_rest(cluster, [0.0; 2])?;
        let window = cluster.window()?;
        std::thread::sleep(QUIET);
        let quiet = cluster.used_since(&window)?;
        let per_second = quiet.cpu.map(|used| used / quiet.elapsed.as_secs_f64());

        let window = cluster.window()?;
        let end = Instant::now() + Duration::from_secs(60);
        for _ in 0..QUESTIONS {
            anyhow::ensure!(cluster.client.gets(probe), "at rest, an answer is wrong");
            anyhow::ensure!(Instant::now() < end, "at rest, answers take longer than a minute");
            std::thread::sleep(PACE);
        }
        let alone = Self { per_second, per_question: [0.0; 2] };
        let asked = alone.without(cluster.used_since(&window)?, 0);
        Ok(Self { per_question: asked.map(|used| used / f64::from(QUESTIONS)), ..alone })
    }

    /// Waits until both processes have done what there was to do.
    pub fn comes(&self, cluster: &Cluster) -> anyhow::Result<()> {
        come_to_rest(cluster, self.per_second)
    }

    /// What was used, without what would have been used anyway.
    pub fn without(&self, used: Used, questions: u32) -> [f64; 2] {
        let seconds = used.elapsed.as_secs_f64();
        let [server, envoy] = used.cpu;
        let [server_second, envoy_second] = self.per_second;
        let [server_question, envoy_question] = self.per_question;
        let questions = f64::from(questions);
        [
            (server - server_second * seconds - server_question * questions).max(0.0),
            (envoy - envoy_second * seconds - envoy_question * questions).max(0.0),
        ]
    }
}

/// `always` is what is used anyway, in milliseconds a second: the route that never changes is asked for all the time.
fn come_to_rest(cluster: &Cluster, always: [f64; 2]) -> anyhow::Result<()> {
    let end = Instant::now() + REST_AT_LATEST;
    let mut resting = 0;
    while resting < RESTING_STEPS && Instant::now() < end {
        let window = cluster.window()?;
        std::thread::sleep(STEP);
        let used = cluster.used_since(&window)?;
        let seconds = used.elapsed.as_secs_f64();
        let rests = used.cpu.into_iter().zip(always).all(|(used, always)| used - always * seconds < RESTING);
        resting = if rests { resting + 1 } else { 0 };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_have_been_used_anyway_is_taken_off() {
        let rest = Rest { per_second: [2.0, 4.0], per_question: [0.0, 0.1] };
        let used = Used { elapsed: Duration::from_millis(500), cpu: [11.0, 22.0] };
        let [server, envoy] = rest.without(used, 100);
        assert!((server - 10.0).abs() < 1e-9 && (envoy - 10.0).abs() < 1e-9, "{server} {envoy}");
    }
}
