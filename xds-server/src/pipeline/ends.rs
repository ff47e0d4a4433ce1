//! Tells when keys come near their end, and when they have ended. It sleeps until the next one does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tollgate_core::ir::{Key, Proof};
use tollgate_core::objects::hash_name;
use tollgate_core::status::{Horizon, Phase, StatusKind};
use tollgate_core::world::Ends;

use super::Published;
use crate::audit::{Action, Audit, Event};
use crate::report::{Due, Metrics, Whose};

/// A clock may be set. Nobody is told of a key later than this.
const LONGEST: Duration = Duration::from_secs(600);

/// What was told of each key, by its hash.
#[derive(Debug, Default)]
struct Told(BTreeMap<String, Phase>);

/// Runs until nothing is published any more. `warning` is how long before its end a key is told of.
pub async fn keep(
    mut published: watch::Receiver<Arc<Published>>,
    warning: Duration,
    due: Option<Due>,
    metrics: Metrics,
) {
    let mut told = Told::default();
    loop {
        let now = Timestamp::now();
        let ends = published.borrow_and_update().ends(Horizon::new(now, warning));
        metrics.keys(ends.ending.len(), ends.ended.len());
        let changed = told.tell(&ends, metrics.audit());
        if let Some(due) = due.as_ref().filter(|_| !changed.is_empty()) {
            due.note(changed);
        }
        let sleep = tokio::time::sleep(until(ends.next, now));
        tokio::select! {
            () = sleep => {}
            changed = published.changed() => if changed.is_err() { return },
        }
    }
}

fn until(next: Option<i64>, now: Timestamp) -> Duration {
    let next = next.and_then(|next| Timestamp::from_second(next).ok());
    let wait = next.and_then(|next| Duration::try_from(next.duration_since(now)).ok());
    wait.unwrap_or(LONGEST).min(LONGEST)
}

// === impl Told ===

impl Told {
    /// Writes a line for each key that is in another phase than before. Returns whose they are.
    fn tell(&mut self, ends: &Ends, audit: &Audit) -> BTreeSet<Whose> {
        let phases = |keys: &[Arc<Key>], phase| keys.iter().map(|key| (Arc::clone(key), phase)).collect::<Vec<_>>();
        let now = phases(&ends.ending, Phase::Ending).into_iter().chain(phases(&ends.ended, Phase::Ended));
        let mut changed = BTreeSet::new();
        let mut next = BTreeMap::new();
        for (key, phase) in now {
            if self.0.get(key.proof.name()) != Some(&phase) {
                changed.insert((StatusKind::Consumer, key.origin.key()));
                log(&key, phase);
                if phase == Phase::Ended {
                    record(&key, Action::Expired, audit);
                }
            }
            next.insert(key.proof.name().to_owned(), phase);
        }
        self.0 = next;
        changed
    }
}

/// Records that something happened to a key.
pub fn record(key: &Key, action: Action, audit: &Audit) {
    let not_after = key.not_after.and_then(|second| Timestamp::from_second(second).ok());
    let not_after = not_after.map(|time| time.to_string());
    audit.record(Event::Key { action, key: shown(&key.proof), consumer: Some(&key.consumer), not_after });
}

/// How people find it in its Consumer.
pub fn shown(proof: &Proof) -> String {
    match proof {
        Proof::Sha256(hash) => hash_name(hash),
        Proof::Identity(identity) => identity.clone(),
        Proof::Jwt(proof) => proof.label(),
    }
}

fn log(key: &Key, phase: Phase) {
    let sentence = key.not_after.and_then(|end| phase.sentence(&shown(&key.proof), end));
    let Some(sentence) = sentence else { return };
    let hint = match phase {
        Phase::Ended => "tollgate key rotate removes it",
        Phase::Lasting | Phase::Ending => "tollgate key rotate makes another one",
    };
    tracing::warn!("{}: {sentence} ({hint})", key.origin);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_look_is_when_the_next_key_turns() {
        let now: Timestamp = "2026-12-01T00:00:00.25Z".parse().unwrap();
        assert_eq!(until(Some(now.as_second() + 1), now), Duration::from_millis(750));
        assert_eq!(until(Some(now.as_second() + 86_400), now), LONGEST);
        assert_eq!(until(Some(now.as_second() - 1), now), LONGEST, "a turn that has passed was looked at");
        assert_eq!(until(None, now), LONGEST);
    }
}
