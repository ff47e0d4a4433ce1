//! A folder of YAML files as objects. What was good stays while what replaced it is broken.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use tollgate_core::objects::Objects;
use tollgate_core::status::{Finding, Severity, Spot};

use super::secrets::LocalSecrets;

/// A folder (or one file) and what was last good in it.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    last: Objects,
}

/// One reading of the folder.
#[derive(Debug)]
pub struct Reading {
    pub objects: Objects,
    pub findings: Vec<Finding>,
    /// Files outside (or inside) that Secrets refer to.
    pub secret_files: BTreeSet<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("{path}: {error} (-f names a folder with .yaml files)")]
    Unreadable { path: PathBuf, error: io::Error },
}

/// Deeper folders are not looked into; symbolic links may form circles.
const MAX_DEPTH: usize = 16;

/// A larger file is a mistake.
const MAX_FILE_BYTES: u64 = 256 << 20;

// === impl Folder ===

impl Folder {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), last: Objects::default() }
    }

    /// Reads everything anew.
    ///
    /// # Errors
    /// When the folder itself cannot be read. What was read before stays good.
    pub fn read(&mut self) -> Result<Reading, FolderError> {
        let secrets = LocalSecrets::new(if self.root.is_dir() { &self.root } else { Path::new("") });
        let mut objects = Objects::default();
        let mut findings = Vec::new();
        let mut broken = BTreeSet::new();
        for path in list(&self.root)? {
            let file = path.display().to_string();
            match read(&path) {
                Ok(text) => {
                    let of_file = objects.add_yaml(&file, &text, &secrets);
                    if of_file.iter().any(hides_an_object) {
                        broken.insert(file);
                    }
                    findings.extend(of_file);
                }
                // It went away between listing and reading.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    findings.push(unreadable(&file, &error));
                    broken.insert(file);
                }
            }
        }
        objects.keep_last_good(&self.last, &broken);
        self.last = objects.clone();
        Ok(Reading { objects, findings, secret_files: secrets.into_files() })
    }
}

/// After this finding nobody can say which object the user meant, so everything of the file that seems to
/// be gone is kept.
fn hides_an_object(finding: &Finding) -> bool {
    let nameless = finding.origin.as_ref().is_none_or(|origin| origin.name.is_empty());
    let wrong_kind = matches!(finding.reason.as_str(), "UnsupportedKind" | "UnsupportedVersion");
    finding.severity == Severity::Error && (nameless || wrong_kind)
}

fn unreadable(file: &str, error: &io::Error) -> Finding {
    Finding {
        severity: Severity::Error,
        reason: "Unreadable".to_owned(),
        origin: None,
        spot: Some(Spot { file: file.to_owned(), line: 1 }),
        field: String::new(),
        message: error.to_string(),
        hint: "what was read of it before stays".to_owned(),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let size = fs::metadata(path)?.len();
    if size > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("the file is larger than {MAX_FILE_BYTES} bytes")));
    }
    fs::read_to_string(path)
}

/// The files that count, sorted: `*.yaml`, `*.yml` and `*.json`, not hidden, links followed. A mounted
/// ConfigMap has its files as links into a hidden folder, which is therefore read once and not twice.
///
/// # Errors
/// When the root cannot be read.
pub fn list(root: &Path) -> Result<Vec<PathBuf>, FolderError> {
    let unreadable = |error| FolderError::Unreadable { path: root.to_owned(), error };
    if fs::metadata(root).map_err(unreadable)?.is_file() {
        return Ok(vec![root.to_owned()]);
    }
    let mut files = Vec::new();
    walk(root, 0, &mut files).map_err(unreadable)?;
    files.sort();
    Ok(files)
}

fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        let Ok(kind) = fs::metadata(&path) else { continue };
        if kind.is_dir() && depth < MAX_DEPTH {
            // A folder below that may not be read leaves the others alone.
            let _unreadable = walk(&path, depth + 1, files);
        } else if kind.is_file() && is_configuration(&path) {
            files.push(path);
        }
    }
    Ok(())
}

fn is_configuration(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKEND: &str = "apiVersion: tollgate.dev/v1alpha1\nkind: ModelBackend\nmetadata: {name: NAME}\nspec:\n  schema: OpenAI\n  endpoint: {hostname: 127.0.0.1, port: 8081}\n";

    fn backend(name: &str) -> String {
        BACKEND.replace("NAME", name)
    }

    fn names(reading: &Reading) -> Vec<String> {
        reading.objects.model_backends.iter().map(|object| object.meta.name().to_owned()).collect()
    }

    #[test]
    fn which_files_count() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("below/..data")).unwrap();
        fs::write(root.join("below/..data/c.yaml"), backend("c")).unwrap();
        std::os::unix::fs::symlink("..data/c.yaml", root.join("below/c.yaml")).unwrap();
        fs::write(root.join("a.yml"), backend("a")).unwrap();
        fs::write(root.join(".a.yaml.swp"), "x").unwrap();
        fs::write(root.join(".hidden.yaml"), "x").unwrap();
        fs::write(root.join("README.md"), "x").unwrap();
        let reading = Folder::new(root).read().unwrap();
        assert_eq!(reading.findings, []);
        assert_eq!(names(&reading), ["a", "c"]);
    }

    #[test]
    fn a_broken_file_keeps_its_objects_and_a_removed_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("1.yaml"), dir.path().join("2.yaml"));
        fs::write(&one, backend("a")).unwrap();
        fs::write(&two, backend("b")).unwrap();
        let mut folder = Folder::new(dir.path());
        assert_eq!(names(&folder.read().unwrap()), ["a", "b"]);
        fs::write(&one, "kind: [").unwrap();
        let reading = folder.read().unwrap();
        assert_eq!(names(&reading), ["a", "b"]);
        assert_eq!(reading.findings.len(), 1);
        // It stays, however often the broken file is read.
        assert_eq!(names(&folder.read().unwrap()), ["a", "b"]);
        fs::remove_file(&one).unwrap();
        assert_eq!(names(&folder.read().unwrap()), ["b"]);
    }

    #[test]
    fn a_refused_object_keeps_its_last_good_version_and_its_neighbours_move_on() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("1.yaml");
        fs::write(&file, format!("{}---\n{}", backend("a"), backend("b"))).unwrap();
        let mut folder = Folder::new(dir.path());
        folder.read().unwrap();
        let bad = backend("a").replace("8081", "808100");
        fs::write(&file, format!("{bad}---\n{}", backend("c"))).unwrap();
        let reading = folder.read().unwrap();
        assert_eq!(names(&reading), ["a", "c"]);
        assert!(reading.objects.refused.is_empty());
        assert!(!reading.findings.is_empty());
    }
}
