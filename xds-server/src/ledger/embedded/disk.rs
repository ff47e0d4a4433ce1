//! The disk under the embedded ledger, as its writer needs it. It is an edge so that a test can have a disk that is full.

use std::fmt::Debug;
use std::sync::Arc;

use tollgate_core::ledger::{Changes, Records};

use super::file::File;
use crate::ledger::StoreError;

/// One thread writes to it. Dropping it closes it.
pub trait Disk: Debug + Send {
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

    /// The file, for readers on other threads. They see what is committed and delay nobody.
    fn file(&self) -> Arc<File>;
}
