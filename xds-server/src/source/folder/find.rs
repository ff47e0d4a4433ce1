//! One object of a folder, as its author wrote it.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tollgate_core::files::{SyntaxError, parse};

use super::FolderError;
use super::decoded::read;
use super::list::list;

/// An object, and where it stands.
#[derive(Debug)]
pub struct Found {
    pub path: PathBuf,
    pub line: u64,
    pub value: Value,
}

#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("{path}:{}: {error} (the object that was asked for may be in it)", .error.line)]
    Syntax { path: String, error: SyntaxError },
}

/// The first object of this name. None: there is none.
///
/// # Errors
/// When the folder cannot be read, or the object may be in a file that cannot.
pub fn object(root: &Path, kind: &str, namespace: &str, name: &str) -> Result<Option<Found>, FindError> {
    let mut broken = None;
    for path in list(root)? {
        let text = read(&path).map_err(|error| FolderError::Unreadable { path: path.clone(), error })?;
        match parse(&text) {
            Ok(documents) => {
                let found = documents.into_iter().find(|document| is_it(&document.value, kind, namespace, name));
                if let Some(document) = found {
                    return Ok(Some(Found { path, line: document.lines.of(""), value: document.value }));
                }
            }
            Err(error) => {
                broken.get_or_insert(FindError::Syntax { path: path.display().to_string(), error });
            }
        }
    }
    broken.map_or(Ok(None), Err)
}

fn is_it(value: &Value, kind: &str, namespace: &str, name: &str) -> bool {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    text("/kind") == Some(kind)
        && text("/metadata/name") == Some(name)
        && text("/metadata/namespace").unwrap_or("default") == namespace
}
