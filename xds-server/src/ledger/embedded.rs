//! The store in one file of this machine: redb, every commit durable before it returns.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use prost::Message as _;
use redb::{Database, Durability, ReadableDatabase as _, ReadableTable, Table, WriteTransaction};
use tollgate_core::ledger::{
    Bucket, BucketKey, Changes, Lease, Records, Worker,
    usage::{Totals, UsageKey},
};

use super::store::{Reader, Store, StoreError};
use super::tables::{self, BUCKETS, HOLDERS, InvalidRow, LEASES, META, SCHEMA, TOTALS, USAGE, WORKERS};

const FILE: &str = "ledger.redb";

/// The writer's side. Only it opens and closes the file.
#[derive(Debug)]
pub struct Embedded {
    file: Arc<File>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    /// None while it is closed.
    database: RwLock<Option<Arc<Database>>>,
}

/// Anything that goes wrong inside a transaction.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Redb(#[from] redb::Error),
    #[error(transparent)]
    Row(#[from] InvalidRow),
    #[error("closed")]
    Closed,
    #[error("schema {0}")]
    Newer(u64),
}

// === impl Embedded ===

impl Embedded {
    /// The file is opened by `load`.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn new(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        match std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir) {
            Ok(()) => Ok(Self { file: Arc::new(File { path, database: RwLock::new(None) }) }),
            Err(source) => Err(StoreError::Unusable { path: dir.to_owned(), source }),
        }
    }

    fn open(&self) -> Result<Database, Failure> {
        // Checked whole: a file that was altered is refused here instead of misleading redb later.
        let database = Database::builder()
            .set_check_integrity_on_open(true)
            .create(&self.file.path)
            .map_err(redb::Error::from)?;
        let transaction = begin(&database)?;
        {
            let mut meta = transaction.open_table(META).map_err(redb::Error::from)?;
            let found = meta.get("schema").map_err(redb::Error::from)?.map(|row| row.value());
            match found {
                Some(SCHEMA) => {}
                Some(found) => return Err(Failure::Newer(found)),
                None => {
                    meta.insert("schema", SCHEMA).map_err(redb::Error::from)?;
                }
            }
        }
        create_tables(&transaction)?;
        transaction.commit().map_err(redb::Error::from)?;
        Ok(database)
    }
}

impl Store for Embedded {
    fn load(&mut self) -> Result<Records, StoreError> {
        self.file.put(None);
        let read = || {
            let database = self.open()?;
            let records = read_records(&database)?;
            self.file.put(Some(Arc::new(database)));
            Ok(records)
        };
        read().map_err(|failure| self.file.explain(failure))
    }

    fn commit(&mut self, changes: &Changes) -> Result<(), StoreError> {
        let write = || {
            let database = self.file.get()?;
            let transaction = begin(&database)?;
            write_changes(&transaction, changes)?;
            Ok(transaction.commit().map_err(redb::Error::from)?)
        };
        write().map_err(|failure| self.file.explain(failure))
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::clone(&self.file) as Arc<dyn Reader>
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.file.put(None);
    }
}

// === impl File ===

impl File {
    fn put(&self, database: Option<Arc<Database>>) {
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = database;
    }

    fn get(&self) -> Result<Arc<Database>, Failure> {
        self.database.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Failure::Closed)
    }

    fn explain(&self, failure: Failure) -> StoreError {
        use std::io::ErrorKind;
        let path = self.path.clone();
        match failure {
            Failure::Closed => StoreError::Closed,
            Failure::Newer(found) => StoreError::Newer { path, found, known: SCHEMA },
            Failure::Row(row) => StoreError::Damaged { path, what: row.to_string() },
            Failure::Redb(error) => match error {
                redb::Error::DatabaseAlreadyOpen => StoreError::Locked { path },
                redb::Error::Corrupted(what) => StoreError::Damaged { path, what },
                redb::Error::UpgradeRequired(_) | redb::Error::TableTypeMismatch { .. } => {
                    StoreError::Damaged { path, what: error.to_string() }
                }
                redb::Error::Io(source) => match source.kind() {
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::Full { path },
                    ErrorKind::InvalidData | ErrorKind::UnexpectedEof => {
                        StoreError::Damaged { path, what: source.to_string() }
                    }
                    _ => StoreError::Unusable { path, source },
                },
                source => StoreError::Failed { path, source },
            },
        }
    }
}

impl Reader for File {
    fn usage(&self, since: Option<u64>) -> Result<BTreeMap<UsageKey, Totals>, StoreError> {
        let read = || {
            let transaction = self.get()?.begin_read().map_err(redb::Error::from)?;
            match since {
                None => all_usage(&transaction.open_table(TOTALS).map_err(redb::Error::from)?),
                Some(minute) => usage_since(&transaction.open_table(USAGE).map_err(redb::Error::from)?, minute),
            }
        };
        read().map_err(|failure| self.explain(failure))
    }

    fn buckets(&self, limit: &str) -> Result<Vec<(BucketKey, Bucket)>, StoreError> {
        let read = || {
            let transaction = self.get()?.begin_read().map_err(redb::Error::from)?;
            let table = transaction.open_table(BUCKETS).map_err(redb::Error::from)?;
            let mut rows = Vec::new();
            for row in table.range((limit, "", i64::MIN)..).map_err(redb::Error::from)? {
                let (key, value) = row.map_err(redb::Error::from)?;
                if key.value().0 != limit {
                    break;
                }
                rows.push((tables::bucket_key(key.value())?, bucket(value.value())));
            }
            Ok(rows)
        };
        read().map_err(|failure| self.explain(failure))
    }
}

// === transactions ===

fn begin(database: &Database) -> Result<WriteTransaction, Failure> {
    let mut transaction = database.begin_write().map_err(redb::Error::from)?;
    transaction.set_durability(Durability::Immediate).map_err(redb::Error::from)?;
    Ok(transaction)
}

/// So that readers find them.
fn create_tables(transaction: &WriteTransaction) -> Result<(), Failure> {
    transaction.open_table(BUCKETS).map_err(redb::Error::from)?;
    transaction.open_table(LEASES).map_err(redb::Error::from)?;
    transaction.open_table(HOLDERS).map_err(redb::Error::from)?;
    transaction.open_table(WORKERS).map_err(redb::Error::from)?;
    transaction.open_table(USAGE).map_err(redb::Error::from)?;
    transaction.open_table(TOTALS).map_err(redb::Error::from)?;
    Ok(())
}

fn read_records(database: &Database) -> Result<Records, Failure> {
    let transaction = database.begin_read().map_err(redb::Error::from)?;
    let mut records = Records::default();
    for row in transaction.open_table(BUCKETS).map_err(redb::Error::from)?.iter().map_err(redb::Error::from)? {
        let (key, value) = row.map_err(redb::Error::from)?;
        records.buckets.insert(tables::bucket_key(key.value())?, bucket(value.value()));
    }
    for row in transaction.open_table(LEASES).map_err(redb::Error::from)?.iter().map_err(redb::Error::from)? {
        let (key, value) = row.map_err(redb::Error::from)?;
        let (proxy, epoch, limit, scope, start) = key.value();
        let (outstanding, expired) = value.value();
        let key = (tables::holder_key((proxy, epoch)), tables::bucket_key((limit, scope, start))?);
        records.leases.insert(key, Lease { outstanding, expired });
    }
    for row in transaction.open_table(HOLDERS).map_err(redb::Error::from)?.iter().map_err(redb::Error::from)? {
        let (key, value) = row.map_err(redb::Error::from)?;
        records.holders.insert(tables::holder_key(key.value()), value.value());
    }
    for row in transaction.open_table(WORKERS).map_err(redb::Error::from)?.iter().map_err(redb::Error::from)? {
        let (key, value) = row.map_err(redb::Error::from)?;
        let (proxy, epoch, worker) = key.value();
        let (sequence, answer) = value.value();
        let answer = tables::answer(answer)?;
        records.workers.insert((tables::holder_key((proxy, epoch)), worker), Worker { sequence, answer });
    }
    Ok(records)
}

fn write_changes(transaction: &WriteTransaction, changes: &Changes) -> Result<(), Failure> {
    let mut table = transaction.open_table(BUCKETS).map_err(redb::Error::from)?;
    for (key, bucket) in &changes.buckets {
        let scope = tables::scope_text(key);
        let value = bucket.map(|bucket| (bucket.spent, bucket.leased, bucket.window_end));
        put(&mut table, (&*key.limit, &*scope, key.window_start), value)?;
    }
    let mut table = transaction.open_table(LEASES).map_err(redb::Error::from)?;
    for ((holder, key), lease) in &changes.leases {
        let scope = tables::scope_text(key);
        let value = lease.map(|lease| (lease.outstanding, lease.expired));
        put(&mut table, (&*holder.proxy, holder.epoch, &*key.limit, &*scope, key.window_start), value)?;
    }
    let mut table = transaction.open_table(HOLDERS).map_err(redb::Error::from)?;
    for (holder, seen) in &changes.holders {
        put(&mut table, (&*holder.proxy, holder.epoch), *seen)?;
    }
    let mut table = transaction.open_table(WORKERS).map_err(redb::Error::from)?;
    for ((holder, number), worker) in &changes.workers {
        let answer = worker.as_ref().map(|worker| (worker.sequence, worker.answer.encode_to_vec()));
        let value = answer.as_ref().map(|(sequence, bytes)| (*sequence, bytes.as_slice()));
        put(&mut table, (&*holder.proxy, holder.epoch, *number), value)?;
    }
    write_usage(transaction, changes)
}

fn write_usage(transaction: &WriteTransaction, changes: &Changes) -> Result<(), Failure> {
    let mut minutes = transaction.open_table(USAGE).map_err(redb::Error::from)?;
    let mut totals = transaction.open_table(TOTALS).map_err(redb::Error::from)?;
    for ((minute, key), used) in &changes.usage {
        let (consumer, route, model, backend) = (&*key.consumer, &*key.route, &*key.model, &*key.backend);
        add(&mut minutes, (*minute, consumer, route, model, backend), *used)?;
        add(&mut totals, (consumer, route, model, backend), *used)?;
    }
    if let Some(minute) = changes.forget_before {
        minutes.retain_in((0, "", "", "", "")..(minute, "", "", "", ""), |_, _| false).map_err(redb::Error::from)?;
    }
    Ok(())
}

fn put<'k, 'v, K: redb::Key + 'static, V: redb::Value + 'static>(
    table: &mut Table<'_, K, V>,
    key: K::SelfType<'k>,
    value: Option<V::SelfType<'v>>,
) -> Result<(), Failure> {
    match value {
        Some(value) => drop(table.insert(key, value).map_err(redb::Error::from)?),
        None => drop(table.remove(key).map_err(redb::Error::from)?),
    }
    Ok(())
}

fn add<'k, K: redb::Key + 'static>(
    table: &mut Table<'_, K, tables::Sums>,
    key: K::SelfType<'k>,
    more: Totals,
) -> Result<(), Failure> {
    let before = table.get(&key).map_err(redb::Error::from)?.map(|row| tables::from_sums(row.value()));
    let mut totals = before.unwrap_or_default();
    totals += more;
    put(table, key, Some(tables::to_sums(totals)))
}

fn bucket((spent, leased, window_end): (u64, u64, i64)) -> Bucket {
    Bucket { spent, leased, window_end }
}

fn all_usage(table: &impl ReadableTable<tables::TotalsRow<'static>, tables::Sums>) -> Result<BTreeMap<UsageKey, Totals>, Failure> {
    let mut sums = BTreeMap::new();
    for row in table.iter().map_err(redb::Error::from)? {
        let (key, value) = row.map_err(redb::Error::from)?;
        sums.insert(usage_key(key.value()), tables::from_sums(value.value()));
    }
    Ok(sums)
}

fn usage_since(
    table: &impl ReadableTable<tables::UsageRow<'static>, tables::Sums>,
    minute: u64,
) -> Result<BTreeMap<UsageKey, Totals>, Failure> {
    let mut sums: BTreeMap<UsageKey, Totals> = BTreeMap::new();
    for row in table.range((minute, "", "", "", "")..).map_err(redb::Error::from)? {
        let (key, value) = row.map_err(redb::Error::from)?;
        let (_, consumer, route, model, backend) = key.value();
        *sums.entry(usage_key((consumer, route, model, backend))).or_default() += tables::from_sums(value.value());
    }
    Ok(sums)
}

fn usage_key((consumer, route, model, backend): tables::TotalsRow<'_>) -> UsageKey {
    UsageKey { consumer: consumer.into(), route: route.into(), model: model.into(), backend: backend.into() }
}
