//! The last good objects on disk, so that a restart changes nothing. What was in force stays in force, whatever has
//! been broken in the folder since.
//!
//! There is one file of state for each file of the folder. Documents are kept as they were written: a reference to a
//! variable or a file stays a reference, and its value is never here. State that cannot be read is left out. Then a
//! policy that is refused closes what it names, as on a first start.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tollgate_core::objects::{FileVersion, KeptDocument, Objects, SecretSource, Source};

use crate::state::private;

/// The version of the format. It changes when older versions of Tollgate could not read it.
const VERSION: u32 = 1;

#[derive(Debug)]
pub struct LastGood {
    path: PathBuf,
    /// The folder of the configuration as the user named it.
    folder: PathBuf,
    /// The same folder as an absolute path. State of another folder says nothing about this one.
    root: PathBuf,
    /// What each state file holds, by its name.
    written: BTreeMap<String, Box<[Version]>>,
    /// State files that are to hold something else, by their names.
    due: BTreeMap<String, Due>,
    /// All state files that there are to be, if that was said.
    all: Option<BTreeSet<String>>,
}

/// What is to become of a state file.
#[derive(Debug)]
enum Due {
    Write {
        /// The path below the root.
        file: PathBuf,
        documents: Box<[Version]>,
    },
    Remove,
}

/// One version of one document.
#[derive(Debug)]
struct Version {
    line: u64,
    since: i64,
    source: Source,
}

/// What is kept of one file of the folder.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    root: PathBuf,
    /// The path below the root. Empty: the root is the file itself.
    file: PathBuf,
    documents: Vec<KeptDocument>,
}

// === impl LastGood ===

impl LastGood {
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(path: &Path, root: &Path) -> io::Result<Self> {
        private::create_dir(path)?;
        Ok(Self {
            path: path.to_owned(),
            folder: root.to_owned(),
            root: std::path::absolute(root)?,
            written: BTreeMap::new(),
            due: BTreeMap::new(),
            all: None,
        })
    }

    /// What was in force when the state was written last.
    pub fn read(&self, secrets: &dyn SecretSource) -> Objects {
        let mut objects = Objects::default();
        for kept in self.files() {
            let is_root = kept.file.as_os_str().is_empty();
            let file = if is_root { self.folder.clone() } else { self.folder.join(&kept.file) };
            let file = file.display().to_string();
            objects.add_kept(&file, &kept.documents, secrets);
            objects.files.insert(file);
        }
        objects
    }

    /// Notes what is in force now. Whatever is not in it is forgotten.
    pub fn note(&mut self, objects: &Objects) {
        self.note_files(objects);
        self.all = Some(objects.files.iter().map(|file| self.name(file)).collect());
    }

    /// Notes what some files say.
    pub fn note_files(&mut self, objects: &Objects) {
        for (file, versions) in objects.kept() {
            let name = self.name(file);
            let documents = versions.into_iter().filter(|version| !version.source.is_none());
            let documents: Box<[Version]> = documents.map(Version::of).collect();
            if let Some(all) = &mut self.all {
                all.insert(name.clone());
            }
            if self.written.get(&name).is_some_and(|written| are_same(written, &documents)) {
                self.due.remove(&name);
            } else {
                let file = self.below(file).to_owned();
                self.due.insert(name, Due::Write { file, documents });
            }
        }
    }

    /// Notes that a file is gone from the folder, because it was meant to go.
    pub fn note_gone(&mut self, file: &str) {
        self.due.insert(self.name(file), Due::Remove);
    }

    /// Writes down what was noted. A failure is logged and changes nothing else; the next time it is tried again.
    pub fn write(&mut self) {
        while let Some((name, due)) = self.due.pop_first() {
            let (file, documents) = match due {
                Due::Write { file, documents } => (file, documents),
                Due::Remove => {
                    self.written.remove(&name);
                    remove(&self.path.join(name));
                    continue;
                }
            };
            if let Err(error) = self.write_file(&name, &file, &documents) {
                tracing::error!(path = %self.path.display(), %error, "the last good objects cannot be kept for a restart");
                self.due.insert(name, Due::Write { file, documents });
                return;
            }
            self.written.insert(name, documents);
        }
        if let Some(names) = self.all.take() {
            self.remove_all_but(&names);
        }
    }

    fn below<'a>(&self, file: &'a str) -> &'a Path {
        Path::new(file).strip_prefix(&self.folder).unwrap_or(Path::new(file))
    }

    /// The name of the state of a file.
    fn name(&self, file: &str) -> String {
        format!("{}.json", hex::encode(Sha256::digest(self.below(file).as_os_str().as_encoded_bytes())))
    }

    fn write_file(&self, name: &str, file: &Path, documents: &[Version]) -> io::Result<()> {
        let kept = Kept {
            version: VERSION,
            root: self.root.clone(),
            file: file.to_owned(),
            documents: kept_documents(documents),
        };
        private::write(&self.path.join(name), &serde_json::to_vec(&kept)?)
    }

    /// Removes the state of files that are gone from the folder, because they were meant to go. Removes the state of
    /// other folders too.
    fn remove_all_but(&mut self, names: &BTreeSet<String>) {
        self.written.retain(|name, _| names.contains(name));
        for path in self.paths() {
            let known = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| names.contains(name));
            if !known {
                remove(&path);
            }
        }
    }

    fn files(&self) -> Vec<Kept> {
        let read = |path: &PathBuf| {
            let kept: Kept = serde_json::from_slice(&fs::read(path)?)?;
            if kept.version == VERSION { Ok(kept) } else { Err(io::Error::other("it is of another version")) }
        };
        let mut files = Vec::new();
        for path in self.paths() {
            match read(&path) {
                Ok(kept) if kept.root == self.root => files.push(kept),
                Ok(_) => {}
                // The error itself is not logged: it must not quote what is in the file.
                Err(error) => {
                    tracing::warn!(path = %path.display(), kind = %error.kind(), "a last good version is lost")
                }
            }
        }
        files
    }

    fn paths(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "an old last good version cannot be removed");
        }
        _ => {}
    }
}

fn are_same(written: &[Version], documents: &[Version]) -> bool {
    written.len() == documents.len() && written.iter().zip(documents).all(|(a, b)| a.is(b))
}

fn kept_documents(versions: &[Version]) -> Vec<KeptDocument> {
    let documents = Source::expose_all(versions.iter().map(|version| &version.source));
    let kept =
        |(version, document): (&Version, String)| KeptDocument { line: version.line, since: version.since, document };
    versions.iter().zip(documents).map(kept).collect()
}

// === impl Version ===

impl Version {
    fn of(version: &FileVersion) -> Self {
        Self { line: version.lines.of(""), since: version.since, source: version.source.clone() }
    }

    /// Whether both are the same version. A document that was read again counts as another one.
    fn is(&self, other: &Self) -> bool {
        (self.line, self.since) == (other.line, other.since) && self.source.is(&other.source)
    }
}
