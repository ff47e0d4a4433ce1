//! Which files are read.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::FolderError;

/// Folders deeper than this are not read, because symbolic links may form circles.
const MAX_DEPTH: usize = 16;

/// The files that are read, sorted: `*.yaml`, `*.yml` and `*.json`. Hidden files are left out, and links are followed.
/// A mounted ConfigMap has its files as links into a hidden folder, so each is read once and not twice.
///
/// # Errors
/// When the root cannot be read.
pub(super) fn list(root: &Path) -> Result<Vec<PathBuf>, FolderError> {
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
            // If a folder below cannot be read, the others are read all the same.
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

    #[test]
    fn which_files_count() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("below/..data")).unwrap();
        fs::write(root.join("below/..data/c.yaml"), "c").unwrap();
        std::os::unix::fs::symlink("..data/c.yaml", root.join("below/c.yaml")).unwrap();
        fs::write(root.join("a.yml"), "a").unwrap();
        fs::write(root.join("b.json"), "b").unwrap();
        fs::write(root.join(".a.yaml.swp"), "x").unwrap();
        fs::write(root.join(".hidden.yaml"), "x").unwrap();
        fs::write(root.join("README.md"), "x").unwrap();
        assert_eq!(list(root).unwrap(), ["a.yml", "b.json", "below/c.yaml"].map(|name| root.join(name)));
        assert_eq!(list(&root.join("README.md")).unwrap(), [root.join("README.md")], "it was named");
        assert!(list(&root.join("none")).is_err());
    }
}
