//! What can go wrong with a ledger, for callers and for the operator.

use std::path::PathBuf;
use std::sync::Arc;

use tollgate_core::ledger::{Contended, InvalidCall, Past};
use tonic::Code;

/// Why a call was not answered.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error(transparent)]
    Invalid(#[from] InvalidCall),
    #[error(transparent)]
    Past(Past),
    #[error(transparent)]
    Store(Arc<StoreError>),
    #[error("too many calls are waiting for the ledger's disk; send the same call again later")]
    Busy,
    /// Only where several control planes share a store.
    #[error(transparent)]
    Contended(#[from] Contended),
    #[error("the ledger is closed; send the same call again when it is back")]
    Closed,
    #[error("no replica of the control plane has the ledger at present; send the same call again later")]
    NoOwner,
    /// The replica that has the ledger says so.
    #[error("{message}")]
    Elsewhere { code: Code, message: String },
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
    #[error(
        "no replica of the control plane has the ledger at present (a leader that was lost is replaced within 15 s)"
    )]
    NoOwner,
    #[error("this replica does not have the ledger; ask the leader, which the Lease tollgate-controller names")]
    NotHere,
    #[error("the replica that has the ledger does not answer: {0}")]
    Elsewhere(String),
}
