//! A folder of YAML files (or one file) as objects. What was good stays in force while what replaced it is broken.
//!
//! ```text
//! watcher.rs (something changed) -> files.rs (read what changed) -> mod.rs (what is in force) -> Changes, findings
//! list.rs    (which files)            decoded.rs (one file)           \-> last_good.rs (the same for the next start)
//! print.rs   (a changed file?)        secrets.rs (what it refers to)
//! ```

mod decoded;
mod files;
pub mod find;
#[cfg(test)]
mod folder_test;
mod last_good;
mod list;
mod print;
#[cfg(test)]
mod restart_test;
mod secrets;
mod watcher;

pub use watcher::Watcher;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use tollgate_core::objects::{Changes, Objects};
use tollgate_core::status::{Finding, Reason, Severity, Spot};

use self::files::{Changed, Files};
use self::last_good::LastGood;
use self::print::Print;
use self::secrets::LocalSecrets;

/// A folder (or one file) and what was last good in it.
#[derive(Debug)]
pub struct Folder {
    files: Files,
    /// Files that could be read, now or before.
    readable: BTreeSet<String>,
    /// What was in force when another process used the state, until the first reading.
    last: Option<Objects>,
    together: Together,
    /// None: what was good is kept only for as long as this process lives.
    kept: Option<LastGood>,
}

/// How what is in force comes from what the files say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Together {
    /// It is what they say: each object once, and nothing refused. A file that changes changes its own objects.
    Plainly,
    /// Something is there twice, refused, or kept from before.
    WithCare,
}

/// One reading of the folder.
#[derive(Debug)]
pub struct Reading {
    pub changes: Changes,
    pub findings: Vec<Finding>,
    /// Files outside (or inside) that Secrets refer to, as they were before they were read.
    pub secret_files: Vec<Print>,
}

#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("{path}: {error} (-f names a folder with .yaml files)")]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{path}: {error} (the state directory must be writable; --state names another)")]
    State { path: PathBuf, error: io::Error },
}

// === impl Folder ===

impl Folder {
    /// Begins as on a first start, with nothing that was good before.
    pub fn new(root: &Path) -> Self {
        Self {
            files: Files::new(root),
            readable: BTreeSet::new(),
            last: None,
            together: Together::WithCare,
            kept: None,
        }
    }

    /// Begins with what was last good when a process used this state directory.
    ///
    /// # Errors
    /// When the state directory cannot be used.
    pub fn with_state(root: &Path, state: &Path) -> Result<Self, FolderError> {
        let unusable = |error| FolderError::State { path: state.to_owned(), error };
        let kept = LastGood::open(state, root).map_err(unusable)?;
        let last = kept.read(&LocalSecrets::of(root));
        Ok(Self { last: Some(last), kept: Some(kept), ..Self::new(root) })
    }

    /// Reads what has changed. `in_force` is what the changes of all readings before have made of nothing.
    ///
    /// # Errors
    /// When the folder itself cannot be read. What was read before stays good.
    pub fn read(&mut self, in_force: &Objects) -> Result<Reading, FolderError> {
        let changed = self.files.look(self.last.as_ref().unwrap_or(in_force))?;
        let mut findings = self.files.findings();
        let plain = match self.together {
            Together::Plainly => self.files.plain_changes(&changed, in_force),
            Together::WithCare => None,
        };
        let changes = match plain {
            Some(changes) => {
                self.note_files(&changed);
                changes
            }
            None => self.put_together(&changed, in_force, &mut findings),
        };
        Ok(Reading { changes, findings, secret_files: self.files.secret_files() })
    }

    /// Writes down for the next start what the last readings found. It can wait until that is served.
    pub fn keep(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.write();
        }
    }

    /// Puts together what all files say, and keeps what was good of what is broken.
    fn put_together(&mut self, changed: &Changed, in_force: &Objects, findings: &mut Vec<Finding>) -> Changes {
        let mut objects = Objects::default();
        let mut broken = BTreeSet::new();
        let mut plain = true;
        for (path, decoded) in self.files.iter() {
            if decoded.is_broken() {
                broken.insert(path.display().to_string());
            }
            plain &= decoded.is_plain();
            let twice = objects.merge(&decoded.objects);
            plain &= twice.is_empty();
            findings.extend(twice);
        }
        for (path, error) in &changed.unreadable {
            let file = path.display().to_string();
            findings.push(unreadable(&file, error));
            objects.add_unreadable(&file);
            broken.insert(file);
        }
        let kept = match self.last.take() {
            Some(last) => objects.keep_last_good(&last, &last.files, &broken),
            None => objects.keep_last_good(in_force, &self.readable, &broken),
        };
        plain &= kept.is_empty() && broken.is_empty();
        findings.extend(kept);
        if let Some(kept) = &mut self.kept {
            kept.note(&objects);
        }
        self.together = if plain { Together::Plainly } else { Together::WithCare };
        let changes = Changes::between(in_force, &objects);
        self.readable = objects.files;
        changes
    }

    /// Notes what the files that changed say.
    fn note_files(&mut self, changed: &Changed) {
        for path in changed.paths() {
            let file = path.display().to_string();
            match self.files.get(path) {
                Some(decoded) => {
                    self.readable.insert(file);
                    if let Some(kept) = &mut self.kept {
                        kept.note_files(&decoded.objects);
                    }
                }
                None => {
                    self.readable.remove(&file);
                    if let Some(kept) = &mut self.kept {
                        kept.note_gone(&file);
                    }
                }
            }
        }
    }
}

fn unreadable(file: &str, error: &io::Error) -> Finding {
    Finding {
        severity: Severity::Error,
        reason: Reason::Unreadable,
        origin: None,
        spot: Some(Spot { file: file.to_owned(), line: 1 }),
        field: String::new(),
        message: error.to_string(),
        hint: "what was read of it before stays".to_owned(),
    }
}
