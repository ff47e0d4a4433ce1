//! `file:` and `env:` references of Secrets, for laptops.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{env, fs};

use tollgate_core::objects::SecretSource;

use super::print::Print;

/// Reads from this machine, and remembers the files so that they are watched too.
#[derive(Debug)]
pub(super) struct LocalSecrets {
    /// Relative paths start here.
    base: PathBuf,
    /// Each with its print of before it was read.
    read: Mutex<BTreeMap<PathBuf, Print>>,
}

// === impl LocalSecrets ===

impl LocalSecrets {
    /// For the files of this folder, or for one file.
    pub(super) fn of(root: &Path) -> Self {
        let base = if root.is_dir() { root } else { Path::new("") };
        Self { base: base.to_owned(), read: Mutex::default() }
    }

    /// The files that were asked for, readable or not.
    pub(super) fn into_prints(self) -> Vec<Print> {
        self.read.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
    }
}

impl SecretSource for LocalSecrets {
    fn file(&self, path: &str) -> Result<String, String> {
        let path = self.base.join(path);
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.entry(path.clone()).or_insert_with(|| Print::of(path.clone()));
        drop(read);
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
