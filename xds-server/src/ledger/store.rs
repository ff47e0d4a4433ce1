//! The edge to durable storage: embedded now, and shared by several control planes later.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use tollgate_core::ledger::{
    Bucket, BucketKey, Changes, Records,
    usage::{Totals, UsageKey},
};

/// One thread writes to it. Dropping it closes it.
pub trait Store: Debug + Send {
    /// Reads everything, at the start and after a failed commit.
    ///
    /// # Errors
    /// When it cannot be used.
    fn load(&mut self) -> Result<Records, StoreError>;

    /// Writes all of it or nothing. After `Ok` it survives the death of the process and of the machine.
    ///
    /// # Errors
    /// When it may not have been written. The caller loads again to find out.
    fn commit(&mut self, changes: &Changes) -> Result<(), StoreError>;

    /// A reader for other threads. It sees what is committed and delays nobody.
    fn reader(&self) -> Arc<dyn Reader>;
}

/// See [`Store::reader`].
pub trait Reader: Debug + Send + Sync {
    /// The first sums, in the order of their keys.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn usage(&self, asked: &Sums<'_>) -> Result<BTreeMap<UsageKey, Totals>, StoreError>;

    /// The first budgets of one limit and one window, in the order of their scopes as JSON.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn buckets(&self, asked: &Window<'_>) -> Result<Vec<(BucketKey, Bucket)>, StoreError>;
}

/// Which sums are asked for.
pub struct Sums<'a> {
    /// Only usage from this minute since the epoch on. None: usage of all time.
    pub since: Option<u64>,
    pub after: Option<&'a UsageKey>,
    pub keep: &'a dyn Fn(&UsageKey) -> bool,
    pub most: usize,
}

/// Which budgets are asked for.
pub struct Window<'a> {
    pub limit: &'a str,
    pub start: i64,
    pub scope_len: usize,
    pub after: Option<&'a [String]>,
    pub most: usize,
}

/// What is wrong with the store, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{path} is in use by another process; stop that one, or give this one its own state directory")]
    Locked { path: PathBuf },
    #[error("{path} cannot be opened: {source}; the directory must be writable for this user")]
    Unusable { path: PathBuf, source: std::io::Error },
    #[error(
        "{path} is not a sound ledger: {what}; restore it from a copy, or move it away: usage and what is spent \
         in the current windows then begin at zero"
    )]
    Damaged { path: PathBuf, what: String },
    #[error("{path} was written by a newer version (schema {found}, this one knows {known}); run that version")]
    Newer { path: PathBuf, found: u64, known: u64 },
    #[error("no space left for {path}; make room, nothing that was acknowledged is lost")]
    Full { path: PathBuf },
    #[error("{path} cannot be read or written: {source}")]
    Failed { path: PathBuf, source: redb::Error },
    #[error("the ledger is closed")]
    Closed,
}
