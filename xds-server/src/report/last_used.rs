//! When consumers were used last, as their usage is settled. It comes in batches, and nothing is written for a request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tollgate_core::objects::Key;
use tollgate_core::status::{ObjectStatus, StatusKind, coarse};

use super::Whose;

/// Clones are the same list.
#[derive(Debug, Clone, Default)]
pub struct LastUsed {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    uses: Mutex<Uses>,
    woken: Notify,
}

/// By Consumer. Times are Unix seconds.
#[derive(Debug, Default)]
struct Uses {
    last: BTreeMap<Key, i64>,
    /// What was told of. It is behind by less than what a status may be behind.
    told: BTreeMap<Key, i64>,
    due: BTreeSet<Key>,
}

// === impl LastUsed ===

impl LastUsed {
    /// A request of this consumer, by its display name, was settled. `ended` is in Unix seconds.
    pub fn used(&self, consumer: &str, ended: i64) {
        let (namespace, name) = consumer.split_once('/').unwrap_or(("default", consumer));
        let key = Key::new(namespace, name);
        let mut uses = self.uses();
        let last = uses.last.entry(key.clone()).or_insert(ended);
        *last = (*last).max(ended);
        let (last, told) = (*last, uses.told.get(&key).copied());
        if coarse(told, Some(last)) != told {
            uses.told.insert(key.clone(), last);
            uses.due.insert(key);
            drop(uses);
            self.inner.woken.notify_one();
        }
    }

    /// Unix seconds.
    pub fn of(&self, consumer: &Key) -> Option<i64> {
        self.uses().last.get(consumer).copied()
    }

    /// Puts it into the status of a Consumer. `said` is what the cluster says, if that is to be coarse.
    pub fn tell(&self, object: &mut ObjectStatus, said: Option<i64>) {
        if object.kind == StatusKind::Consumer {
            let last = self.of(&Key::new(object.namespace.as_str(), object.name.as_str()));
            let last = coarse(said, last).and_then(|last| jiff::Timestamp::from_second(last).ok());
            object.status.last_used = last.map(|last| last.to_string());
        }
    }

    /// Whose status is to be looked at since this was asked last.
    pub fn take(&self) -> Vec<Whose> {
        let due = std::mem::take(&mut self.uses().due);
        due.into_iter().map(|key| (StatusKind::Consumer, key)).collect()
    }

    /// Waits until there is something to look at.
    pub async fn woken(&self) {
        self.inner.woken.notified().await;
    }

    fn uses(&self) -> MutexGuard<'_, Uses> {
        self.inner.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_requests_are_told_of_once_in_some_minutes() {
        let used = LastUsed::default();
        let mut told = 0;
        for second in 0..3600 {
            used.used("app", 1_000_000 + second);
            used.used("team/app", 1_000_000);
            told += used.take().iter().filter(|(_, key)| &*key.namespace == "default").count();
        }
        assert_eq!(told, 12);
        assert_eq!(used.of(&Key::new("default", "app")), Some(1_003_599));
        assert_eq!(used.of(&Key::new("team", "app")), Some(1_000_000));
        used.used("app", 7);
        assert_eq!((used.of(&Key::new("default", "app")), used.take()), (Some(1_003_599), Vec::new()));
    }
}
