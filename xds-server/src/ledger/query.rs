//! Questions to a ledger: what was used, and what is left. They are answered from what is committed. A store only reads
//! sums and budgets; which ones, and what rows and pages they make, is decided here for all stores.

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

use super::StoreError;

/// Which usage is asked for. Fields that are absent do not filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageQuery {
    /// The consumer as rows name it. `default/name` is the same as `name`.
    pub consumer: Option<String>,
    pub model: Option<String>,
    /// How far back, to the minute.
    pub since: Option<Duration>,
    pub page: Page,
}

/// How [`BudgetRow`] spells [`Mode`].
pub const ENFORCE: &str = "Enforce";
pub const SHADOW: &str = "Shadow";

/// How many rows an answer has, unless another number is asked for.
pub const ROWS: usize = 1000;
/// The most rows of one answer. So many are a few megabytes.
pub const MAX_ROWS: usize = 10_000;

/// Which part of a list is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub limit: usize,
    /// The names of the last row on the page before.
    pub after: Option<Vec<String>>,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    pub rows: Vec<T>,
    /// Present if there is more: the names of the last row on this page.
    pub next: Option<Vec<String>>,
}

/// Sums of usage by consumer, route, model and backend, in one flat object.
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

/// Which sums are asked for: the first ones, in the order of their keys.
pub(super) struct Sums<'a> {
    /// Only usage from this minute since the epoch on. None: usage of all time.
    pub since: Option<u64>,
    pub after: Option<&'a UsageKey>,
    pub keep: &'a dyn Fn(&UsageKey) -> bool,
    pub most: usize,
}

/// Which budgets are asked for: the first ones of one limit and one window, in the order of their scopes as JSON.
pub(super) struct Window<'a> {
    pub limit: &'a str,
    pub start: i64,
    pub scope_len: usize,
    pub after: Option<&'a [String]>,
    pub most: usize,
}

/// See [`Ledger::usage`](super::Ledger::usage).
pub(super) fn usage(
    query: UsageQuery,
    now: Timestamp,
    read: impl FnOnce(&Sums<'_>) -> Result<BTreeMap<UsageKey, Totals>, StoreError>,
) -> Result<Listed<UsageRow>, StoreError> {
    let UsageQuery { consumer, model, since, page } = query;
    let since = since.map(|back| minute_before(now, back));
    let consumer = consumer.map(|name| name.strip_prefix("default/").map(str::to_owned).unwrap_or(name));
    let keep = |key: &UsageKey| {
        consumer.as_ref().is_none_or(|name| *name == key.consumer)
            && model.as_ref().is_none_or(|model| *model == key.model)
    };
    let after = page.after.and_then(usage_key);
    let sums = read(&Sums { since, after: after.as_ref(), keep: &keep, most: page.limit.saturating_add(1) })?;
    let rows = sums.into_iter().map(|(key, totals)| UsageRow { key, totals }).collect();
    Ok(Listed::of(rows, page.limit, |UsageRow { key, .. }| {
        vec![key.consumer.clone(), key.route.clone(), key.model.clone(), key.backend.clone()]
    }))
}

/// See [`Ledger::budgets`](super::Ledger::budgets).
pub(super) fn budgets(
    limits: &[Limit],
    page: Page,
    now: Timestamp,
    read: impl Fn(&Window<'_>) -> Result<Vec<(BucketKey, Bucket)>, StoreError>,
) -> Result<Listed<BudgetRow>, StoreError> {
    let mut limits: Vec<&Limit> = limits.iter().collect();
    limits.sort_by(|one, other| one.id.cmp(&other.id));
    let (last, scope) = match page.after.as_deref() {
        Some([limit, scope @ ..]) => (limit.as_str(), Some(scope)),
        _ => ("", None),
    };
    let most = page.limit.saturating_add(1);
    let mut rows: Vec<(&Limit, BucketKey, Bucket, window::Span)> = Vec::new();
    for limit in limits.into_iter().filter(|limit| limit.id.as_str() >= last) {
        let Ok(span) = window::at(&limit.window, now) else {
            continue;
        };
        let after = scope.filter(|_| limit.id == last);
        let asked = Window {
            limit: &limit.id,
            start: span.start,
            scope_len: limit.scope.len(),
            after,
            most: most.saturating_sub(rows.len()),
        };
        let mut buckets = read(&asked)?;
        if buckets.is_empty() && limit.scope.is_empty() && after.is_none() && asked.most > 0 {
            // There is exactly one budget, which nobody has used yet.
            let key = BucketKey { limit: limit.id.clone(), scope: Vec::new(), window_start: span.start };
            buckets.push((key, Bucket { window_end: span.end, ..Bucket::default() }));
        }
        rows.extend(buckets.into_iter().map(|(key, bucket)| (limit, key, bucket, span)));
    }
    let listed = Listed::of(rows, page.limit, |(limit, key, ..)| {
        std::iter::once(&limit.id).chain(&key.scope).cloned().collect()
    });
    let rows = listed.rows.into_iter().map(|(limit, key, bucket, span)| budget_row(limit, key, bucket, span));
    Ok(Listed { rows: rows.collect(), next: listed.next })
}

// === impl Page ===

impl Default for Page {
    fn default() -> Self {
        Self { limit: ROWS, after: None }
    }
}

// === impl Listed ===

impl<T> Listed<T> {
    /// Makes a page of at most `limit` rows. `rows` has one more than that if there is more.
    fn of(mut rows: Vec<T>, limit: usize, name: impl Fn(&T) -> Vec<String>) -> Self {
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(name);
        Self { rows, next }
    }
}

fn usage_key(texts: Vec<String>) -> Option<UsageKey> {
    let [consumer, route, model, backend] = texts.try_into().ok()?;
    Some(UsageKey { consumer, route, model, backend })
}

fn budget_row(limit: &Limit, key: BucketKey, bucket: Bucket, span: window::Span) -> BudgetRow {
    BudgetRow {
        policy: limit.policy.clone(),
        limit: limit.name.clone(),
        scope: limit.scope.iter().map(ScopePart::to_string).zip(key.scope).collect(),
        window_start: rfc3339(span.start),
        window_end: (span.end != 0).then(|| rfc3339(span.end)),
        tokens: limit.tokens,
        spent: bucket.spent,
        leased: bucket.leased,
        mode: match limit.mode {
            Mode::Enforce => ENFORCE,
            Mode::Shadow => SHADOW,
        },
    }
}

/// The minute since the epoch in which this time began that ends now.
pub(super) fn minute_before(now: Timestamp, back: Duration) -> u64 {
    let from = now.as_second().saturating_sub(i64::try_from(back.as_secs()).unwrap_or(i64::MAX));
    u64::try_from(from.div_euclid(60)).unwrap_or(0)
}

pub(super) fn rfc3339(second: i64) -> String {
    Timestamp::from_second(second).map_or_else(|_| second.to_string(), |moment| moment.to_string())
}
