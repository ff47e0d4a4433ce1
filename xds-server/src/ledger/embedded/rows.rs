//! Records as rows, inside the embedded store's transactions.

use std::collections::BTreeMap;
use std::ops::Bound;

use prost::Message as _;
use redb::{Database, Durability, ReadableDatabase as _, ReadableTable as _, Table, WriteTransaction};
use tollgate_core::ledger::{
    Bucket, BucketKey, Changes, HolderKey, Lease, Records, Worker, series,
    usage::{Totals, UsageKey},
};

use super::tables::{
    self, ASKED, BEFORE, BUCKETS, CROSSED, HOLDERS, InvalidRow, LEASES, META, SCHEMA, TOTALS, USAGE, WORKERS, before,
};
use crate::ledger::query::{Sums, Window};
use crate::ledger::series::{Minutes, Take};

/// Anything that goes wrong inside a transaction.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Redb(redb::Error),
    #[error(transparent)]
    Row(#[from] InvalidRow),
    #[error("closed")]
    Closed,
    #[error("schema {0}")]
    Newer(u64),
}

// === impl Failure ===

macro_rules! from_redb {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for Failure {
            fn from(error: redb::$error) -> Self {
                Self::Redb(error.into())
            }
        })*
    };
}

from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError, SetDurabilityError);

// === transactions ===

fn begin(database: &Database) -> Result<WriteTransaction, Failure> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    Ok(transaction)
}

/// Checks the schema and makes the tables, so that readers find them.
pub(super) fn prepare(database: &Database) -> Result<(), Failure> {
    let transaction = begin(database)?;
    {
        let mut meta = transaction.open_table(META)?;
        let found = meta.get("schema")?.map(|row| row.value());
        match found {
            Some(SCHEMA) => {}
            Some(BEFORE) => {
                take_over(&transaction)?;
                meta.insert("schema", SCHEMA)?;
            }
            Some(found) => return Err(Failure::Newer(found)),
            None => drop(meta.insert("schema", SCHEMA)?),
        }
        transaction.open_table(BUCKETS)?;
        transaction.open_table(CROSSED)?;
        transaction.open_table(LEASES)?;
        transaction.open_table(HOLDERS)?;
        transaction.open_table(WORKERS)?;
        transaction.open_table(ASKED)?;
        transaction.open_table(USAGE)?;
        transaction.open_table(TOTALS)?;
    }
    Ok(transaction.commit()?)
}

/// Takes over schema 1. Its leases get an identity that no certificate has, so they expire and are charged. The holders
/// are dropped, and with them the record of whose calls had counted. So a call that was sent and not yet answered may
/// count again.
fn take_over(transaction: &WriteTransaction) -> Result<(), Failure> {
    const NOBODY: &str = "";
    {
        let mut leases = transaction.open_table(LEASES)?;
        for row in transaction.open_table(before::LEASES)?.iter()? {
            let (key, value) = row?;
            let (proxy, epoch, limit, scope, start) = key.value();
            leases.insert((NOBODY, proxy, epoch, limit, scope, start), value.value())?;
        }
    }
    transaction.delete_table(before::LEASES)?;
    transaction.delete_table(before::HOLDERS)?;
    transaction.delete_table(before::WORKERS)?;
    Ok(())
}

/// Everything that is kept in memory.
pub(super) fn records(database: &Database) -> Result<Records, Failure> {
    let transaction = database.begin_read()?;
    let mut records = Records::default();
    for row in transaction.open_table(BUCKETS)?.iter()? {
        let (key, value) = row?;
        records.buckets.insert(tables::bucket_key(key.value())?, bucket(value.value()));
    }
    for row in transaction.open_table(CROSSED)?.iter()? {
        let (key, value) = row?;
        if let Some(bucket) = records.buckets.get_mut(&tables::bucket_key(key.value())?) {
            (bucket.crossed, bucket.told) = value.value();
        }
    }
    for row in transaction.open_table(LEASES)?.iter()? {
        let (key, value) = row?;
        let (identity, proxy, epoch, limit, scope, start) = key.value();
        let (outstanding, expired) = value.value();
        let key = (tables::holder_key((identity, proxy, epoch)), tables::bucket_key((limit, scope, start))?);
        records.leases.insert(key, Lease { outstanding, expired });
    }
    for row in transaction.open_table(HOLDERS)?.iter()? {
        let (key, value) = row?;
        records.holders.insert(tables::holder_key(key.value()), value.value());
    }
    for row in transaction.open_table(WORKERS)?.iter()? {
        let (key, value) = row?;
        let (identity, proxy, epoch, worker) = key.value();
        let (sequence, answer) = value.value();
        let answer = tables::answer(answer)?;
        let holder = tables::holder_key((identity, proxy, epoch));
        records.workers.insert((holder, worker), Worker { sequence, answer });
    }
    for row in transaction.open_table(ASKED)?.iter()? {
        records.asked.insert(tables::asked(row?.0.value()));
    }
    Ok(records)
}

/// Writes all changes or none. When this returns `Ok`, they are durable.
pub(super) fn write(database: &Database, changes: &Changes) -> Result<(), Failure> {
    let transaction = begin(database)?;
    write_records(&transaction, changes)?;
    write_asked(&transaction, changes)?;
    write_usage(&transaction, changes)?;
    Ok(transaction.commit()?)
}

fn write_records(transaction: &WriteTransaction, changes: &Changes) -> Result<(), Failure> {
    let mut table = transaction.open_table(BUCKETS)?;
    for (key, bucket) in &changes.buckets {
        let scope = tables::scope_text(&key.scope);
        let value = bucket.map(|bucket| (bucket.spent, bucket.leased, bucket.window_end));
        put(&mut table, (&*key.limit, &*scope, key.window_start), value)?;
    }
    let mut table = transaction.open_table(CROSSED)?;
    for (key, bucket) in &changes.buckets {
        let scope = tables::scope_text(&key.scope);
        let value = bucket.filter(|bucket| bucket.crossed > 0).map(|bucket| (bucket.crossed, bucket.told));
        put(&mut table, (&*key.limit, &*scope, key.window_start), value)?;
    }
    let mut table = transaction.open_table(LEASES)?;
    for ((holder, key), lease) in &changes.leases {
        let scope = tables::scope_text(&key.scope);
        let value = lease.map(|lease| (lease.outstanding, lease.expired));
        let (identity, proxy, epoch) = holder_row(holder);
        put(&mut table, (identity, proxy, epoch, &*key.limit, &*scope, key.window_start), value)?;
    }
    let mut table = transaction.open_table(HOLDERS)?;
    for (holder, heard) in &changes.holders {
        put(&mut table, holder_row(holder), heard.map(|heard| heard.seen))?;
    }
    let mut table = transaction.open_table(WORKERS)?;
    for ((holder, number), worker) in &changes.workers {
        let answer = worker.as_ref().map(|worker| (worker.sequence, worker.answer.encode_to_vec()));
        let value = answer.as_ref().map(|(sequence, bytes)| (*sequence, bytes.as_slice()));
        let (identity, proxy, epoch) = holder_row(holder);
        put(&mut table, (identity, proxy, epoch, *number), value)?;
    }
    Ok(())
}

fn holder_row(holder: &HolderKey) -> tables::HolderRow<'_> {
    (&holder.identity, &holder.proxy, holder.epoch)
}

/// Names are kept for the last day only, because no other day is looked at.
fn write_asked(transaction: &WriteTransaction, changes: &Changes) -> Result<(), Failure> {
    let Some(last) = changes.asked.last() else {
        return Ok(());
    };
    let mut table = transaction.open_table(ASKED)?;
    for asked in &changes.asked {
        table.insert((asked.day, &*asked.consumer, &*asked.name), ())?;
    }
    Ok(table.retain_in(..(last.day, "", ""), |_, ()| false)?)
}

fn write_usage(transaction: &WriteTransaction, changes: &Changes) -> Result<(), Failure> {
    let mut minutes = transaction.open_table(USAGE)?;
    let mut totals = transaction.open_table(TOTALS)?;
    for ((minute, key), used) in &changes.usage {
        let (consumer, route, model, backend) = (&*key.consumer, &*key.route, &*key.model, &*key.backend);
        add(&mut minutes, (*minute, consumer, route, model, backend), *used)?;
        add(&mut totals, (consumer, route, model, backend), *used)?;
    }
    if let Some(minute) = changes.forget_before {
        minutes.retain_in((0, "", "", "", "")..(minute, "", "", "", ""), |_, _| false)?;
    }
    Ok(())
}

fn put<'k, 'v, K: redb::Key + 'static, V: redb::Value + 'static>(
    table: &mut Table<'_, K, V>,
    key: K::SelfType<'k>,
    value: Option<V::SelfType<'v>>,
) -> Result<(), Failure> {
    match value {
        Some(value) => drop(table.insert(key, value)?),
        None => drop(table.remove(key)?),
    }
    Ok(())
}

fn add<'k, K: redb::Key + 'static>(
    table: &mut Table<'_, K, tables::Sums>,
    key: K::SelfType<'k>,
    more: Totals,
) -> Result<(), Failure> {
    let before = table.get(&key)?.map(|row| tables::from_sums(row.value()));
    let mut totals = before.unwrap_or_default();
    totals += more;
    put(table, key, Some(tables::to_sums(totals)))
}

fn bucket((spent, leased, window_end): (u64, u64, i64)) -> Bucket {
    Bucket { spent, leased, window_end, ..Bucket::default() }
}

/// Sums of all time.
pub(super) fn usage(database: &Database, asked: &Sums<'_>) -> Result<BTreeMap<UsageKey, Totals>, Failure> {
    let table = database.begin_read()?.open_table(TOTALS)?;
    let mut sums = BTreeMap::new();
    let from = asked
        .after
        .map_or(Bound::Unbounded, |key| Bound::Excluded((&*key.consumer, &*key.route, &*key.model, &*key.backend)));
    for row in table.range::<tables::TotalsRow<'_>>((from, Bound::Unbounded))? {
        let (key, value) = row?;
        let key = usage_key(key.value());
        if sums.len() == asked.most {
            break;
        }
        if (asked.keep)(&key) {
            sums.insert(key, tables::from_sums(value.value()));
        }
    }
    Ok(sums)
}

/// Sums from this minute on. A row of any minute may add to any key, so all rows are read. No more keys are kept than
/// are asked for, because a key that smaller keys push out never comes back in.
pub(super) fn usage_since(
    database: &Database,
    minute: u64,
    asked: &Sums<'_>,
) -> Result<BTreeMap<UsageKey, Totals>, Failure> {
    let table = database.begin_read()?.open_table(USAGE)?;
    let mut sums: BTreeMap<UsageKey, Totals> = BTreeMap::new();
    for row in table.range((minute, "", "", "", "")..)? {
        let (key, value) = row?;
        let (_, consumer, route, model, backend) = key.value();
        let key = usage_key((consumer, route, model, backend));
        if asked.after.is_some_and(|after| key <= *after) || !(asked.keep)(&key) {
            continue;
        }
        *sums.entry(key).or_default() += tables::from_sums(value.value());
        if sums.len() > asked.most {
            sums.pop_last();
        }
    }
    Ok(sums)
}

/// All rows that are asked for, in the order of their minutes.
pub(super) fn minutes(database: &Database, asked: &Minutes, take: Take<'_>) -> Result<(), Failure> {
    let table = database.begin_read()?.open_table(USAGE)?;
    for row in table.range((asked.since, "", "", "", "")..)? {
        let (key, value) = row?;
        let (minute, consumer, _, model, backend) = key.value();
        take(&series::Row { minute, consumer, model, backend, totals: tables::from_sums(value.value()) });
    }
    Ok(())
}

/// The minute in which each consumer was used last, as far back as minutes are kept.
pub(super) fn last_used(database: &Database) -> Result<BTreeMap<String, u64>, Failure> {
    let table = database.begin_read()?.open_table(USAGE)?;
    let mut last = BTreeMap::new();
    for row in table.iter()? {
        let (key, _) = row?;
        let (minute, consumer, ..) = key.value();
        // Later minutes come later.
        match last.get_mut(consumer) {
            Some(known) => *known = minute,
            None => drop(last.insert(consumer.to_owned(), minute)),
        }
    }
    Ok(last)
}

/// The tokens of each consumer from this minute on.
pub(super) fn spent_since(database: &Database, minute: u64) -> Result<BTreeMap<String, u64>, Failure> {
    let table = database.begin_read()?.open_table(USAGE)?;
    let mut spent: BTreeMap<String, u64> = BTreeMap::new();
    for row in table.range((minute, "", "", "", "")..)? {
        let (key, value) = row?;
        let tokens = tables::from_sums(value.value()).tokens();
        match spent.get_mut(key.value().1) {
            Some(sum) => *sum = sum.saturating_add(tokens),
            None => drop(spent.insert(key.value().1.to_owned(), tokens)),
        }
    }
    Ok(spent)
}

pub(super) fn buckets(database: &Database, asked: &Window<'_>) -> Result<Vec<(BucketKey, Bucket)>, Failure> {
    let table = database.begin_read()?.open_table(BUCKETS)?;
    let after = asked.after.map(tables::scope_text);
    let from = match &after {
        Some(scope) => Bound::Excluded((asked.limit, scope.as_str(), i64::MAX)),
        None => Bound::Included((asked.limit, "", i64::MIN)),
    };
    let mut rows = Vec::new();
    for row in table.range::<tables::BucketRow<'_>>((from, Bound::Unbounded))? {
        let (key, value) = row?;
        let (limit, _, start) = key.value();
        if limit != asked.limit || rows.len() == asked.most {
            break;
        }
        let key = tables::bucket_key(key.value())?;
        if start == asked.start && key.scope.len() == asked.scope_len {
            rows.push((key, bucket(value.value())));
        }
    }
    Ok(rows)
}

fn usage_key((consumer, route, model, backend): tables::TotalsRow<'_>) -> UsageKey {
    UsageKey { consumer: consumer.into(), route: route.into(), model: model.into(), backend: backend.into() }
}
