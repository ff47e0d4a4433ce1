//! What tells a changed file from an unchanged one, without reading it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Print {
    pub(super) path: PathBuf,
    state: Option<State>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

// === impl Print ===

impl Print {
    pub(super) fn of(path: PathBuf) -> Self {
        let state = fs::metadata(&path).ok().map(|file| State {
            inode: file.ino(),
            bytes: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
        });
        Self { path, state }
    }

    /// Whether the file is still as it was then.
    pub(super) fn is_current(&self) -> bool {
        Self::of(self.path.clone()) == *self
    }
}
