//! `file:` and `env:` references of Secrets, for laptops.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{env, fs};

use tollgate_core::objects::SecretSource;

/// Reads from this machine, and remembers the files so that they are watched too.
#[derive(Debug)]
pub(super) struct LocalSecrets {
    /// Relative paths start here.
    base: PathBuf,
    read: Mutex<BTreeSet<PathBuf>>,
}

// === impl LocalSecrets ===

impl LocalSecrets {
    pub(super) fn new(base: &Path) -> Self {
        Self { base: base.to_owned(), read: Mutex::default() }
    }

    /// The files that were asked for, readable or not.
    pub(super) fn into_files(self) -> BTreeSet<PathBuf> {
        self.read.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SecretSource for LocalSecrets {
    fn file(&self, path: &str) -> Result<String, String> {
        let path = self.base.join(path);
        self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone());
        fs::read_to_string(&path).map_err(|error| error.to_string())
    }

    fn env(&self, name: &str) -> Result<String, String> {
        // The error of std would quote a value that is not valid text.
        env::var(name).map_err(|error| match error {
            env::VarError::NotPresent => "it is not set".to_owned(),
            env::VarError::NotUnicode(_) => "it is not UTF-8 text".to_owned(),
        })
    }
}
