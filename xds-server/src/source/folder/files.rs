//! What the files of a folder say, and which of them say something else than before.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use tollgate_core::objects::{Changes, Objects, Replaced};
use tollgate_core::status::Finding;

use super::FolderError;
use super::decoded::Decoded;
use super::list::list;

#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
    /// A file is decoded again when it, or a file that a Secret of it refers to, has changed.
    decoded: BTreeMap<PathBuf, Decoded>,
}

/// The files that say something else than before.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// What each of them said until now.
    before: BTreeMap<PathBuf, Option<Decoded>>,
    pub unreadable: Vec<(PathBuf, io::Error)>,
}

// === impl Files ===

impl Files {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), decoded: BTreeMap::new() }
    }

    /// Decodes what is new or changed, and forgets what is gone. Objects that `known` has as well keep the date of their
    /// version.
    ///
    /// # Errors
    /// When the folder itself cannot be read.
    pub fn look(&mut self, known: &Objects) -> Result<Changed, FolderError> {
        let paths = list(&self.root)?;
        let mut before = std::mem::take(&mut self.decoded);
        let mut changed = Changed::default();
        for path in paths {
            let old = before.remove(&path);
            if old.as_ref().is_some_and(Decoded::is_current) {
                self.decoded.extend(old.map(|old| (path, old)));
                continue;
            }
            match Decoded::of(&path, &self.root, known) {
                Ok(decoded) => {
                    self.decoded.insert(path.clone(), decoded);
                }
                // The file went away between listing and reading.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => changed.unreadable.push((path.clone(), error)),
            }
            changed.before.insert(path, old);
        }
        changed.before.extend(before.into_iter().map(|(path, decoded)| (path, Some(decoded))));
        Ok(changed)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&PathBuf, &Decoded)> {
        self.decoded.iter()
    }

    pub fn get(&self, path: &Path) -> Option<&Decoded> {
        self.decoded.get(path)
    }

    pub fn findings(&self) -> Vec<Finding> {
        self.decoded.values().flat_map(|decoded| decoded.findings.iter().cloned()).collect()
    }

    pub fn secret_files(&self) -> BTreeSet<PathBuf> {
        self.decoded.values().flat_map(Decoded::secret_files).cloned().collect()
    }

    /// The changes of objects, if they can be told from the files that changed. `all` is what all files said before: each
    /// object once, and nothing refused.
    pub fn plain_changes(&self, changed: &Changed, all: &Objects) -> Option<Changes> {
        if !changed.unreadable.is_empty() || !self.decoded.values().all(Decoded::is_plain) {
            return None;
        }
        let replaced: Vec<Replaced<'_>> = changed
            .before
            .iter()
            .map(|(path, before)| Replaced {
                before: before.as_ref().map(|decoded| &decoded.objects),
                after: self.get(path).map(|decoded| &decoded.objects),
            })
            .collect();
        Changes::of_files(all, &replaced)
    }
}

// === impl Changed ===

impl Changed {
    /// The files that are new, other or gone.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.before.keys()
    }
}
