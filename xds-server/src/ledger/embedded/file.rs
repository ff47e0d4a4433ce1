//! One file on this machine (redb). Every commit is durable before it returns.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use redb::Database;
use tollgate_core::ledger::{
    Bucket, BucketKey, Changes, Records,
    usage::{Totals, UsageKey},
};

use super::copies;
use super::disk::Disk;
use super::rows::{self, Failure};
use super::tables::SCHEMA;
use crate::ledger::StoreError;
use crate::ledger::query::{Sums, Window};
use crate::ledger::series::{Minutes, Take};

pub(super) const FILE: &str = "ledger.redb";

/// The writer's side. Only it opens and closes the file.
#[derive(Debug)]
pub struct Redb {
    file: Arc<File>,
}

/// The file, open or closed.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    /// None while it is closed.
    database: RwLock<Option<Arc<Database>>>,
}

// === impl Redb ===

impl Redb {
    /// Makes the directory. `load` opens the file.
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

    fn open(&self) -> Result<Records, Failure> {
        // The whole file is checked: a file that was altered is refused here instead of misleading redb later.
        let database = Database::builder().set_check_integrity_on_open(true).create(&self.file.path)?;
        rows::prepare(&database)?;
        let records = rows::records(&database)?;
        self.file.put(Some(Arc::new(database)));
        Ok(records)
    }
}

impl Disk for Redb {
    fn load(&mut self) -> Result<Records, StoreError> {
        self.file.put(None);
        self.open().map_err(|failure| self.file.explain(failure))
    }

    fn commit(&mut self, changes: &Changes) -> Result<(), StoreError> {
        self.file.with(|database| rows::write(database, changes))
    }

    fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }
}

impl Drop for Redb {
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

    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, Failure>) -> Result<T, StoreError> {
        let result = self.get().and_then(|database| work(&database));
        result.map_err(|failure| self.explain(failure))
    }

    fn explain(&self, failure: Failure) -> StoreError {
        explain(&self.path, failure)
    }

    /// A copy of all of it, as a file that has no name.
    ///
    /// # Errors
    /// When there is no room for it beside the file, or the file cannot be read.
    pub fn backup(&self) -> Result<std::fs::File, StoreError> {
        self.with(|database| copies::backup(database, &self.path))
    }

    /// The first sums, in the order of their keys.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn usage(&self, asked: &Sums<'_>) -> Result<BTreeMap<UsageKey, Totals>, StoreError> {
        self.with(|database| match asked.since {
            None => rows::usage(database, asked),
            Some(minute) => rows::usage_since(database, minute, asked),
        })
    }

    /// All rows from a minute on, in the order of their minutes.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn minutes(&self, asked: &Minutes, take: Take<'_>) -> Result<(), StoreError> {
        self.with(|database| rows::minutes(database, asked, take))
    }

    /// The minute in which each consumer was used last.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn last_used(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        self.with(rows::last_used)
    }

    /// What each consumer has spent from this minute on.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn spent_since(&self, minute: u64) -> Result<BTreeMap<String, u64>, StoreError> {
        self.with(|database| rows::spent_since(database, minute))
    }

    /// The first budgets of one limit and one window, in the order of their scopes as JSON.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn buckets(&self, asked: &Window<'_>) -> Result<Vec<(BucketKey, Bucket)>, StoreError> {
        self.with(|database| rows::buckets(database, asked))
    }
}

/// What is wrong, and what to do about it.
pub(super) fn explain(path: &Path, failure: Failure) -> StoreError {
    use std::io::ErrorKind;
    let path = path.to_owned();
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
