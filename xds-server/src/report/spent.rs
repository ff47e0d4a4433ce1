//! What consumers have spent today, as their usage is settled. A status says it to the minute: nothing is written for a
//! request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use tokio::sync::Notify;
use tokio::time::Instant;
use tollgate_core::ledger::usage::second_of;
use tollgate_core::objects::Key;
use tollgate_core::status::{ObjectStatus, Patience, Say, Spent, StatusKind, date_of};

use super::Whose;

/// The status of a Consumer is written no more often than this because of tokens.
const PAUSE: Duration = Duration::from_secs(60);

/// Clones are the same sums.
#[derive(Debug, Clone, Default)]
pub struct SpentToday {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    sums: Mutex<Sums>,
    woken: Notify,
}

/// By Consumer, of one day.
#[derive(Debug, Default)]
struct Sums {
    date: Date,
    tokens: BTreeMap<Key, u64>,
    /// What was written last, and when.
    written: BTreeMap<Key, (Option<Spent>, Instant)>,
    /// Those whose status is being looked after. They need not be told of again.
    pending: BTreeSet<Key>,
    due: BTreeSet<Key>,
}

// === impl SpentToday ===

impl SpentToday {
    /// This consumer, by its display name, has spent so much in a minute since the epoch.
    pub fn settled(&self, consumer: &str, minute: u64, tokens: u64) {
        let Ok(time) = Timestamp::from_second(second_of(minute)) else { return };
        let (namespace, name) = consumer.split_once('/').unwrap_or(("default", consumer));
        let key = Key::new(namespace, name);
        let mut sums = self.sums();
        if !sums.is_of(date_of(time)) {
            return;
        }
        let sum = sums.tokens.entry(key.clone()).or_default();
        *sum = sum.saturating_add(tokens);
        if sums.pending.insert(key.clone()) {
            sums.due.insert(key);
            drop(sums);
            self.inner.woken.notify_one();
        }
    }

    /// The ledger is read anew, and what was known of it is told again.
    pub fn begin(&self) {
        self.sums().tokens.clear();
    }

    /// What it has spent today.
    pub fn of(&self, consumer: &Key, today: Date) -> Option<Spent> {
        let sums = self.sums();
        let tokens = sums.tokens.get(consumer).filter(|_| sums.date == today)?;
        Some(Spent { date: today, tokens: *tokens })
    }

    /// Puts it into the status of a Consumer.
    pub fn tell_exactly(&self, object: &mut ObjectStatus, today: Date) {
        if object.kind == StatusKind::Consumer {
            let key = Key::new(object.namespace.as_str(), object.name.as_str());
            object.status.spent_today = self.of(&key, today);
        }
    }

    /// Puts into the status of a Consumer what a cluster is to say of it. `said` is what the cluster says. Returns when more is to be said.
    pub fn tell(&self, object: &mut ObjectStatus, said: Option<Spent>, today: Date, now: Instant) -> Option<Instant> {
        if object.kind != StatusKind::Consumer {
            return None;
        }
        let key = Key::new(object.namespace.as_str(), object.name.as_str());
        let again = self.sums().written.get(&key).map(|(_, at)| *at + PAUSE).filter(|again| *again > now);
        let patience = if again.is_some() { Patience::Waits } else { Patience::Writes };
        match Spent::say(said, self.of(&key, today), today, patience) {
            Say::Now(spent) => {
                object.status.spent_today = spent;
                None
            }
            Say::Later(said) => {
                object.status.spent_today = Some(said);
                again
            }
        }
    }

    /// The cluster says this of a Consumer since now, or said it already.
    pub fn wrote(&self, consumer: &Key, said: Option<Spent>, now: Instant) {
        let mut sums = self.sums();
        if sums.written.get(consumer).is_none_or(|(before, _)| *before != said) {
            sums.written.insert(consumer.clone(), (said, now));
        }
        sums.pending.remove(consumer);
        // More may have been settled while it was written.
        let date = sums.date;
        let is_more = |tokens: &u64| said.is_none_or(|said| said.date == date && said.tokens < *tokens);
        if sums.tokens.get(consumer).is_some_and(is_more) {
            sums.pending.insert(consumer.clone());
            sums.due.insert(consumer.clone());
            drop(sums);
            self.inner.woken.notify_one();
        }
    }

    /// Nothing is to be written of a Consumer, whose status says all or is gone.
    pub fn rests(&self, consumer: &Key) {
        self.sums().pending.remove(consumer);
    }

    /// Whose status is to be looked at since this was asked last.
    pub fn take(&self) -> Vec<Whose> {
        let due = std::mem::take(&mut self.sums().due);
        due.into_iter().map(|key| (StatusKind::Consumer, key)).collect()
    }

    /// Waits until there is something to look at.
    pub async fn woken(&self) {
        self.inner.woken.notified().await;
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.inner.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Sums ===

impl Sums {
    /// Whether the sums are of this day. A new day begins with nothing, and usage of a day that is over comes too late.
    fn is_of(&mut self, date: Date) -> bool {
        if date > self.date {
            *self = Self { date, due: std::mem::take(&mut self.due), ..Self::default() };
        }
        date == self.date
    }
}

#[cfg(test)]
mod tests {
    use tollgate_core::status::{Brief, Status};

    use super::*;

    /// 2026-12-01T00:00:00Z, in minutes.
    const MIDNIGHT: u64 = 29_934_720;

    fn app() -> Key {
        Key::new("default", "app")
    }

    /// What the status says then, and when it says more.
    fn told(spent: &SpentToday, said: Option<Spent>, now: Instant) -> (Option<Spent>, Option<Instant>) {
        let (namespace, name) = ("default".to_owned(), "app".to_owned());
        let (brief, status) = (Brief::Refused {}, Status::default());
        let mut object = ObjectStatus { kind: StatusKind::Consumer, namespace, name, brief, status };
        let again = spent.tell(&mut object, said, Date::constant(2026, 12, 1), now);
        (object.status.spent_today, again)
    }

    fn of_today(tokens: u64) -> Option<Spent> {
        Some(Spent { date: Date::constant(2026, 12, 1), tokens })
    }

    #[test]
    fn many_requests_are_written_once_in_a_minute_and_the_last_of_them_counts() {
        let spent = SpentToday::default();
        let start = Instant::now();
        let (mut said, mut writes, mut later) = (None, 0, None);
        for second in 0..601_u64 {
            let now = start + Duration::from_secs(second);
            if second < 570 {
                spent.settled("app", MIDNIGHT + second / 60, 10);
            }
            if spent.take().is_empty() && later.is_none_or(|later| later > now) {
                continue;
            }
            let (next, again) = told(&spent, said, now);
            later = again;
            if next != said {
                (said, writes) = (next, writes + 1);
                spent.wrote(&app(), said, now);
            }
        }
        assert_eq!((said, writes), (of_today(5700), 11));
    }

    #[test]
    fn what_is_settled_while_a_status_is_written_is_told_of_later() {
        let spent = SpentToday::default();
        let now = Instant::now();
        spent.settled("app", MIDNIGHT, 10);
        assert_eq!(spent.take().len(), 1);
        assert_eq!(told(&spent, None, now), (of_today(10), None));
        spent.settled("app", MIDNIGHT, 5);
        assert_eq!(spent.take(), [], "it is being looked after");
        spent.wrote(&app(), of_today(10), now);
        assert_eq!(spent.take().len(), 1);
        assert_eq!(told(&spent, of_today(10), now), (of_today(10), Some(now + PAUSE)));
        assert_eq!(told(&spent, of_today(10), now + PAUSE), (of_today(15), None));
    }

    #[test]
    fn a_day_begins_with_nothing() {
        let spent = SpentToday::default();
        spent.settled("app", MIDNIGHT - 1, 10);
        let (before, today) = (Date::constant(2026, 11, 30), Date::constant(2026, 12, 1));
        assert_eq!(spent.of(&app(), before).map(|spent| spent.tokens), Some(10));
        assert_eq!(spent.of(&app(), today), None);
        let yesterday = Some(Spent { date: before, tokens: 10 });
        assert_eq!(told(&spent, yesterday, Instant::now()), (None, None));
        spent.settled("app", MIDNIGHT, 3);
        spent.settled("app", MIDNIGHT - 1, 7);
        assert_eq!(spent.of(&app(), today), of_today(3));
        spent.settled("team/app", MIDNIGHT, 4);
        assert_eq!(spent.of(&app(), today), of_today(3), "another Consumer");
    }
}
