//! Questions to the ledger: what was used, what is left. Answered from what is committed.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tollgate_core::ir::{Limit, Mode, ScopePart};
use tollgate_core::ledger::{
    Bucket, BucketKey,
    usage::{Totals, UsageKey},
    window,
};

use super::{Ledger, StoreError};

/// Which usage is asked for; what is absent is not filtered by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageQuery {
    /// As rows name it; `default/name` is the same as `name`.
    pub consumer: Option<String>,
    pub model: Option<String>,
    /// How far back, to the minute.
    pub since: Option<Duration>,
}

/// Sums over all that is asked for, in one flat object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsageRow {
    #[serde(flatten)]
    pub key: UsageKey,
    #[serde(flatten)]
    pub totals: Totals,
}

/// One budget in its current window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BudgetRow {
    pub policy: String,
    pub limit: String,
    /// For example `{"Consumer": "research-app", "Model": "smol"}`; empty: one budget for all.
    pub scope: BTreeMap<String, String>,
    /// RFC 3339.
    pub window_start: String,
    /// Absent: the window never ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_end: Option<String>,
    pub tokens: u64,
    pub spent: u64,
    pub leased: u64,
    /// `Enforce` or `Shadow`.
    pub mode: &'static str,
}

// === impl Ledger ===

impl Ledger {
    /// Sorted by consumer, route, model, backend.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn usage(&self, query: UsageQuery) -> Result<Vec<UsageRow>, StoreError> {
        let since = query.since.map(|back| {
            let from =
                self.clock.now().wall.as_second().saturating_sub(i64::try_from(back.as_secs()).unwrap_or(i64::MAX));
            u64::try_from(from.div_euclid(60)).unwrap_or(0)
        });
        let reader = self.reader.clone();
        let sums = blocking(move || reader.usage(since)).await?;
        let consumer = query.consumer.map(|name| name.strip_prefix("default/").map(str::to_owned).unwrap_or(name));
        let asked = |key: &UsageKey| {
            consumer.as_ref().is_none_or(|name| *name == key.consumer)
                && query.model.as_ref().is_none_or(|model| *model == key.model)
        };
        Ok(sums.into_iter().filter(|(key, _)| asked(key)).map(|(key, totals)| UsageRow { key, totals }).collect())
    }

    /// The current windows of the limits that are configured, in their order.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn budgets(&self) -> Result<Vec<BudgetRow>, StoreError> {
        let (reader, configured, now) = (self.reader.clone(), self.configured.borrow().clone(), self.clock.now().wall);
        blocking(move || {
            let mut rows = Vec::new();
            for limit in &configured.limits {
                let Ok(span) = window::at(&limit.window, now) else {
                    continue;
                };
                let mut buckets = reader.buckets(&limit.id)?;
                buckets.retain(|(key, _)| key.window_start == span.start && key.scope.len() == limit.scope.len());
                if buckets.is_empty() && limit.scope.is_empty() {
                    // There is exactly one, which nobody has used yet.
                    let key = BucketKey { limit: limit.id.clone(), scope: Vec::new(), window_start: span.start };
                    buckets.push((key, Bucket { window_end: span.end, ..Bucket::default() }));
                }
                rows.extend(buckets.into_iter().map(|(key, bucket)| budget_row(limit, key, bucket, span)));
            }
            Ok(rows)
        })
        .await
    }
}

fn budget_row(limit: &Limit, key: BucketKey, bucket: Bucket, span: window::Span) -> BudgetRow {
    BudgetRow {
        policy: limit.policy.clone(),
        limit: limit.name.clone(),
        scope: limit.scope.iter().map(part_name).zip(key.scope).collect(),
        window_start: rfc3339(span.start),
        window_end: (span.end != 0).then(|| rfc3339(span.end)),
        tokens: limit.tokens,
        spent: bucket.spent,
        leased: bucket.leased,
        mode: match limit.mode {
            Mode::Enforce => "Enforce",
            Mode::Shadow => "Shadow",
        },
    }
}

fn part_name(part: &ScopePart) -> String {
    match part {
        ScopePart::Consumer => "Consumer".to_owned(),
        ScopePart::Model => "Model".to_owned(),
        ScopePart::Route => "Route".to_owned(),
        ScopePart::Label(key) => format!("Label/{key}"),
    }
}

fn rfc3339(second: i64) -> String {
    Timestamp::from_second(second).map_or_else(|_| second.to_string(), |moment| moment.to_string())
}

/// Reading a large table is no work for a thread that serves others.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(read).await.unwrap_or(Err(StoreError::Closed))
}
