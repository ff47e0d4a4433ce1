//! A second ledger, for tests only: a store that several control planes write to at the same time. It shows that the seam
//! carries one. It has no decisions of its own.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::sleep;
use tollgate_core::ledger::series::Row;
use tollgate_core::ledger::usage::{Totals, UsageKey};
use tollgate_core::ledger::{Batch, Bucket, BucketKey, Call, Committed, Configured, Now, Outcome, Reference, Rules};

use super::query::{Sums, Window};
use super::tests::*;
use super::*;

const ROUND_TRIP: Duration = Duration::from_millis(1);

/// One control plane. Clones are further ones at the same store.
#[derive(Debug, Clone)]
struct Shared {
    store: Arc<Mutex<Reference>>,
    configured: watch::Receiver<Arc<Configured>>,
    /// How often somebody else was faster.
    changed: Arc<Mutex<u64>>,
}

// === impl Shared ===

impl Shared {
    fn new(tokens: u64) -> Self {
        let configured = limits(vec![consumer_limit(tokens)]);
        Self { store: Arc::default(), configured, changed: Arc::default() }
    }

    fn store(&self) -> MutexGuard<'_, Reference> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The store's clock.
fn now() -> Now {
    let wall = Timestamp::now();
    Now { wall, steady: wall.duration_since(Timestamp::UNIX_EPOCH).unsigned_abs() }
}

#[tonic::async_trait]
impl Ledger for Shared {
    async fn sync(&self, identity: &str, request: SyncRequest) -> Result<SyncResponse, SyncError> {
        let call = Call::new(identity.to_owned(), request)?;
        let rules = Rules::new(&self.configured.borrow(), TTL);
        let mut batch = Batch::new(vec![call], &rules, now());
        loop {
            let excerpt = self.store().load(batch.load()?);
            // The way to a store and back. Others come in between.
            sleep(ROUND_TRIP).await;
            let Some(mut step) = batch.run(excerpt, &rules, now()) else { continue };
            let committed = self.store().commit(&step);
            match (committed, step.result.pop()) {
                (Committed::Yes, Some(Ok(Outcome::Applied(answer) | Outcome::Repeated(answer)))) => return Ok(answer),
                (Committed::Yes, Some(Err(past))) => return Err(SyncError::Past(past)),
                (Committed::Yes, None) => return Err(SyncError::Closed),
                (Committed::Changed, _) => *self.changed.lock().unwrap() += 1,
            }
        }
    }

    async fn usage(&self, query: UsageQuery) -> Result<Listed<UsageRow>, StoreError> {
        query::usage(query, now().wall, |asked: &Sums<'_>| {
            let store = self.store();
            let since = asked.since.unwrap_or(0);
            let mut sums: BTreeMap<UsageKey, Totals> = BTreeMap::new();
            for ((_, key), totals) in
                store.usage.iter().filter(|((minute, key), _)| *minute >= since && (asked.keep)(key))
            {
                *sums.entry(key.clone()).or_default() += *totals;
            }
            let after = |key: &UsageKey| asked.after.is_none_or(|after| key > after);
            Ok(sums.into_iter().filter(|(key, _)| after(key)).take(asked.most).collect())
        })
    }

    /// A store that several share has ways of its own.
    async fn backup(&self) -> Result<std::fs::File, StoreError> {
        Err(StoreError::NotHere)
    }

    async fn series(&self, query: SeriesQuery) -> Result<Vec<SeriesRow>, StoreError> {
        series::series(query, now().wall, |asked, take| {
            for ((minute, key), totals) in self.store().usage.iter().filter(|((minute, _), _)| *minute >= asked.since) {
                let UsageKey { consumer, model, backend, .. } = key;
                take(&Row { minute: *minute, consumer, model, backend, totals: *totals });
            }
            Ok(())
        })
    }

    async fn budgets(&self, page: Page) -> Result<Listed<BudgetRow>, StoreError> {
        let configured = self.configured.borrow().clone();
        query::budgets(&configured.limits, page, now().wall, |asked: &Window<'_>| {
            let wanted = |key: &BucketKey| {
                (key.limit.as_str(), key.window_start, key.scope.len()) == (asked.limit, asked.start, asked.scope_len)
                    && asked.after.is_none_or(|after| key.scope.as_slice() > after)
            };
            let all = &self.store().records.buckets;
            let found =
                all.iter().filter(|(key, _)| wanted(key)).map(|(key, bucket): (_, &Bucket)| (key.clone(), *bucket));
            Ok(found.take(asked.most).collect())
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_of_two_control_planes_cannot_overdraw_a_budget_and_every_token_is_in_the_books() {
    let ledger = Shared::new(1000);
    let addresses = [serve(&ledger).await, serve(&ledger.clone()).await];
    spend_all(addresses, &ledger).await;
    assert!(*ledger.changed.lock().unwrap() > 0, "nobody came in between");
}

#[tokio::test]
async fn a_call_that_is_sent_to_another_control_plane_counts_once() {
    let one = Shared::new(1000);
    let other = one.clone();
    let report = SyncRequest { usage: vec![used("app", "smol", 7)], wants: want(30, 30), ..request(1, 1) };
    let [first, again] = [sync(&one, report.clone()).await, sync(&other, report).await];
    assert_eq!((first.unwrap().grants[0].granted, again.unwrap().grants[0].granted), (30, 30));
    let late = sync(&other, request(1, 3)).await.and(sync(&one, request(1, 2)).await);
    assert!(matches!(late, Err(SyncError::Past(_))), "{late:?}");
    let budget = one.budgets(Page::default()).await.unwrap().rows.remove(0);
    let used = other.usage(UsageQuery::default()).await.unwrap().rows.remove(0);
    assert_eq!((budget.leased, used.totals.requests), (30, 1));
}

#[tokio::test]
async fn who_is_always_too_late_is_asked_to_send_the_call_again() {
    let status = tonic::Status::from(SyncError::from(tollgate_core::ledger::Contended));
    assert_eq!(status.code(), tonic::Code::Unavailable);
}
