//! The tables of the embedded store, and records as their rows.

use prost::Message as _;
use redb::TableDefinition;
use tollgate_core::ledger::{BucketKey, HolderKey, usage::Totals};
use tollgate_proto::v1::SyncResponse;

/// Of these tables; goes up with every change that an older version cannot read.
pub(super) const SCHEMA: u64 = 1;

/// `schema` -> number.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Limit, scope, window start -> spent, leased, window end.
pub(super) const BUCKETS: TableDefinition<'_, BucketRow<'_>, (u64, u64, i64)> = TableDefinition::new("buckets");
/// Proxy, epoch, limit, scope, window start -> outstanding, expired.
pub(super) const LEASES: TableDefinition<'_, LeaseRow<'_>, (u64, u64)> = TableDefinition::new("leases");
/// Proxy, epoch -> last seen, unix seconds.
pub(super) const HOLDERS: TableDefinition<'_, (&str, u64), i64> = TableDefinition::new("holders");
/// Proxy, epoch, worker -> last sequence, its answer.
pub(super) const WORKERS: TableDefinition<'_, (&str, u64, u64), (u64, &[u8])> = TableDefinition::new("workers");
/// Minute since the epoch, consumer, route, model, backend -> sums.
pub(super) const USAGE: TableDefinition<'_, UsageRow<'_>, Sums> = TableDefinition::new("usage");
/// Consumer, route, model, backend -> sums of all time.
pub(super) const TOTALS: TableDefinition<'_, TotalsRow<'_>, Sums> = TableDefinition::new("totals");

pub(super) type BucketRow<'a> = (&'a str, &'a str, i64);
pub(super) type LeaseRow<'a> = (&'a str, u64, &'a str, &'a str, i64);
pub(super) type UsageRow<'a> = (u64, &'a str, &'a str, &'a str, &'a str);
pub(super) type TotalsRow<'a> = (&'a str, &'a str, &'a str, &'a str);
/// Requests, input, output, cached input, reasoning, estimated requests.
pub(super) type Sums = (u64, u64, u64, u64, u64, u64);

/// A row that no version of this program wrote.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidRow {
    #[error("a scope is not a JSON array of texts: {0}")]
    Scope(#[from] serde_json::Error),
    #[error("an answer is not a SyncResponse: {0}")]
    Answer(#[from] prost::DecodeError),
}

pub(super) fn scope_text(key: &BucketKey) -> String {
    serde_json::Value::from(key.scope.clone()).to_string()
}

pub(super) fn bucket_key((limit, scope, window_start): BucketRow<'_>) -> Result<BucketKey, InvalidRow> {
    Ok(BucketKey { limit: limit.to_owned(), scope: serde_json::from_str(scope)?, window_start })
}

pub(super) fn holder_key((proxy, epoch): (&str, u64)) -> HolderKey {
    HolderKey { proxy: proxy.to_owned(), epoch }
}

pub(super) fn answer(bytes: &[u8]) -> Result<SyncResponse, InvalidRow> {
    Ok(SyncResponse::decode(bytes)?)
}

pub(super) fn to_sums(totals: Totals) -> Sums {
    let Totals { requests, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens, estimated_requests } =
        totals;
    (requests, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens, estimated_requests)
}

pub(super) fn from_sums(sums: Sums) -> Totals {
    let (requests, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens, estimated_requests) = sums;
    Totals { requests, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens, estimated_requests }
}
