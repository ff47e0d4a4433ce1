//! What each process has of memory (RSS) while the load runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tollgate_tests::cluster_bench::stats;
use tollgate_tests::lab::Lab;
use tollgate_tests::soak::memory::{Process, Samples, judge};

use super::{GATEWAY, PLACE};
use crate::faults::{envoy_of, process_of};
use crate::replicas::{proxies, replicas};

/// Shorter runs say nothing about memory.
const LEAST_MINUTES: f64 = 10.0;
const EVERY: Duration = Duration::from_secs(15);
const ENVOY: &str = "Envoy";
const CONTROL_PLANE: &str = "control plane";

pub struct Memory {
    began: Instant,
    samples: Arc<Mutex<BTreeMap<Process, Samples>>>,
    watcher: JoinHandle<()>,
}

// === impl Memory ===

impl Memory {
    pub fn watch(lab: &Arc<Lab>) -> Self {
        let (began, samples) = (Instant::now(), Arc::<Mutex<BTreeMap<Process, Samples>>>::default());
        let (lab, noted) = (Arc::clone(lab), Arc::clone(&samples));
        let watcher = tokio::spawn(async move {
            loop {
                // While something is disturbed it may not be known what there is.
                for process in processes(&lab).await.unwrap_or_default() {
                    if let Ok(memory) = stats::memory(process.1) {
                        lock(&noted).entry(process).or_default().push((began.elapsed(), memory));
                    }
                }
                sleep(EVERY).await;
            }
        });
        Self { began, samples, watcher }
    }

    /// What those have that were there a moment ago.
    pub fn now(&self) -> String {
        let now = self.began.elapsed();
        let samples = lock(&self.samples);
        let last = samples.iter().filter_map(|(Process(what, _), samples)| {
            let (at, memory) = samples.last()?;
            (now.saturating_sub(*at) < EVERY * 2).then(|| format!("{what} {memory:.0}"))
        });
        last.collect::<Vec<_>>().join(", ") + " MiB"
    }

    /// Prints all, and returns what is wrong.
    pub fn judge(&self, minutes: Option<f64>) -> Vec<String> {
        let (lives, wrong) = judge(&[ENVOY, CONTROL_PLANE], &lock(&self.samples));
        lives.iter().for_each(|life| println!("    {life}"));
        if minutes.is_some_and(|minutes| minutes >= LEAST_MINUTES) {
            return wrong;
        }
        println!("    memory is not judged: that takes {LEAST_MINUTES} minutes");
        Vec::new()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

async fn processes(lab: &Lab) -> anyhow::Result<Vec<Process>> {
    let mut all = Vec::new();
    for (name, _) in proxies(lab, PLACE, GATEWAY).await? {
        all.extend(envoy_of(&name).ok().map(|id| Process(ENVOY, id)));
    }
    for pod in replicas(lab).await? {
        all.push(Process(CONTROL_PLANE, process_of(&pod)?.as_raw_nonzero().get().unsigned_abs()));
    }
    Ok(all)
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
