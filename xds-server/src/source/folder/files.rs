//! What the files of a folder say, and which of them say something else than before.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;

use jiff::Timestamp;
use tollgate_core::objects::{Changes, Objects, Replaced};
use tollgate_core::status::Finding;

use super::FolderError;
use super::decoded::Decoded;
use super::list::list;
use super::print::Print;

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

/// Fewer files are not worth a thread.
const FILES_A_CORE: usize = 8;

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
        let mut due = Vec::new();
        for path in paths {
            match before.remove(&path) {
                Some(old) if old.is_current() => {
                    self.decoded.insert(path, old);
                }
                old => {
                    changed.before.insert(path.clone(), old);
                    due.push(path);
                }
            }
        }
        let now = Timestamp::now().as_second();
        for (path, decoded) in decode(due, &self.root) {
            match decoded {
                Ok(mut decoded) => {
                    decoded.objects.date(known, now);
                    decoded.objects.resettle();
                    self.decoded.insert(path, decoded);
                }
                // The file went away between listing and reading.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => changed.unreadable.push((path, error)),
            }
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

    pub fn secret_files(&self) -> Vec<Print> {
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

/// Decodes files in their order, many of them on several cores.
fn decode(mut paths: Vec<PathBuf>, root: &Path) -> Vec<(PathBuf, io::Result<Decoded>)> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let parts = cores.min(paths.len().div_ceil(FILES_A_CORE)).max(1);
    let size = paths.len().div_ceil(parts);
    let part = |paths: Vec<PathBuf>| -> Vec<_> {
        let decoded = paths.into_iter().map(|path| (Decoded::of(&path, root), path));
        decoded.map(|(decoded, path)| (path, decoded)).collect()
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..parts).rev().map(|number| paths.split_off(size * number)).collect();
        let others: Vec<_> = others.into_iter().map(|paths| scope.spawn(|| part(paths))).collect();
        let mut all = part(paths);
        for other in others.into_iter().rev() {
            all.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        all
    })
}

// === impl Changed ===

impl Changed {
    /// The files that are new, other or gone.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.before.keys()
    }
}
