//! The tables of the embedded store, and records as their rows.

use prost::Message as _;
use redb::TableDefinition;
use tollgate_core::ledger::{Asked, BucketKey, HolderKey, usage::Totals};
use tollgate_proto::v1::SyncResponse;

/// The schema of these tables. It goes up with every change that an older version cannot read.
///
/// In schema 1 holders had no identity. What they had leased is charged when it expires, because nobody can prove any
/// more that it is theirs.
pub(super) const SCHEMA: u64 = 2;
/// The older schema that can be taken over.
pub(super) const BEFORE: u64 = 1;

/// `schema` -> number.
pub(in crate::ledger) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Limit, scope, window start -> spent, leased, window end.
pub(in crate::ledger) const BUCKETS: TableDefinition<'_, BucketRow<'_>, (u64, u64, i64)> =
    TableDefinition::new("buckets");
/// The same key -> the highest threshold crossed, the highest one told. A bucket that has crossed none has no row. Older
/// versions leave the table alone, so that it is no other schema.
pub(super) const CROSSED: TableDefinition<'_, BucketRow<'_>, (u16, u16)> = TableDefinition::new("crossed");
/// Identity, proxy, epoch, limit, scope, window start -> outstanding, expired.
pub(super) const LEASES: TableDefinition<'_, LeaseRow<'_>, (u64, u64)> = TableDefinition::new("leases_of");
/// Identity, proxy, epoch -> last seen, unix seconds.
pub(super) const HOLDERS: TableDefinition<'_, HolderRow<'_>, i64> = TableDefinition::new("holders_of");
/// Identity, proxy, epoch, worker -> last sequence, its answer.
pub(super) const WORKERS: TableDefinition<'_, WorkerRow<'_>, (u64, &[u8])> = TableDefinition::new("workers_of");
/// Day since the epoch, consumer, name below a prefix model.
pub(super) const ASKED: TableDefinition<'_, (u64, &str, &str), ()> = TableDefinition::new("asked");
/// Minute since the epoch, consumer, route, model, backend -> sums.
pub(super) const USAGE: TableDefinition<'_, UsageRow<'_>, Sums> = TableDefinition::new("usage");
/// Consumer, route, model, backend -> sums of all time.
pub(super) const TOTALS: TableDefinition<'_, TotalsRow<'_>, Sums> = TableDefinition::new("totals");

pub(in crate::ledger) type BucketRow<'a> = (&'a str, &'a str, i64);
pub(super) type HolderRow<'a> = (&'a str, &'a str, u64);
pub(super) type LeaseRow<'a> = (&'a str, &'a str, u64, &'a str, &'a str, i64);
pub(super) type WorkerRow<'a> = (&'a str, &'a str, u64, u64);
pub(super) type UsageRow<'a> = (u64, &'a str, &'a str, &'a str, &'a str);
pub(super) type TotalsRow<'a> = (&'a str, &'a str, &'a str, &'a str);
/// Requests, input, output, cached input, reasoning, estimated requests.
pub(super) type Sums = (u64, u64, u64, u64, u64, u64);

/// Tables of schema 1.
pub(in crate::ledger) mod before {
    use redb::TableDefinition;

    /// Proxy, epoch, limit, scope, window start -> outstanding, expired.
    pub type LeaseRow<'a> = (&'a str, u64, &'a str, &'a str, i64);

    pub const LEASES: TableDefinition<'_, LeaseRow<'_>, (u64, u64)> = TableDefinition::new("leases");
    pub const HOLDERS: TableDefinition<'_, (&str, u64), i64> = TableDefinition::new("holders");
    pub const WORKERS: TableDefinition<'_, (&str, u64, u64), (u64, &[u8])> = TableDefinition::new("workers");
}

/// A row that no version of this program wrote.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidRow {
    #[error("a scope is not a JSON array of texts: {0}")]
    Scope(#[from] serde_json::Error),
    #[error("an answer is not a SyncResponse: {0}")]
    Answer(#[from] prost::DecodeError),
}

pub(super) fn scope_text(scope: &[String]) -> String {
    serde_json::Value::from(scope).to_string()
}

pub(super) fn bucket_key((limit, scope, window_start): BucketRow<'_>) -> Result<BucketKey, InvalidRow> {
    Ok(BucketKey { limit: limit.to_owned(), scope: serde_json::from_str(scope)?, window_start })
}

pub(super) fn holder_key((identity, proxy, epoch): HolderRow<'_>) -> HolderKey {
    HolderKey { identity: identity.to_owned(), proxy: proxy.to_owned(), epoch }
}

pub(super) fn asked((day, consumer, name): (u64, &str, &str)) -> Asked {
    Asked { day, consumer: consumer.to_owned(), name: name.to_owned() }
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
