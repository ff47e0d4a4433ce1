//! What lies on disk: a folder that one run at a time uses, and files and folders that only their owner can open.
//!
//! ```text
//! dir.rs      where a run keeps what must outlive it
//! private.rs  makes files and folders for their owner alone
//! ```
//! The stages say what is in it: certificates (`serve/pki/`), the ledger's file (`ledger/embedded/`), the last good
//! objects (`source/folder/last_good.rs`), Envoy's files (`envoy/`).

pub mod dir;
pub mod private;
