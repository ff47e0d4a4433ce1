//! The filter's code: built into the binary, or a file.

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use axum::body::Bytes;
use sha2::{Digest as _, Sha256};

use crate::state::private;

const EMBEDDED: Option<&[u8]> = include!(concat!(env!("OUT_DIR"), "/embedded_filter.rs"));

/// The filter as WebAssembly.
#[derive(Clone)]
pub struct FilterCode {
    /// Lowercase hex.
    pub sha256: String,
    pub bytes: Bytes,
}

#[derive(Debug, thiserror::Error)]
pub enum FilterCodeError {
    #[error("this binary has no filter built in (name it with --wasm; `cargo xtask dist` leaves it in target/dist)")]
    NotBuiltIn,
    #[error("{path}: {error} (--wasm names the filter)")]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{path} is not a WebAssembly module (--wasm names the filter)")]
    NotWasm { path: PathBuf },
    #[error("{path}: {error} (the state directory must be writable)")]
    NotWritten { path: PathBuf, error: io::Error },
}

// === impl FilterCode ===

impl FilterCode {
    /// The given file if there is one, else the filter that is built in.
    ///
    /// # Errors
    /// When there is neither, or the file is no filter.
    pub fn load(file: Option<&Path>) -> Result<Self, FilterCodeError> {
        let bytes = match (file, EMBEDDED) {
            (Some(path), _) => {
                let bytes =
                    fs::read(path).map_err(|error| FilterCodeError::Unreadable { path: path.to_owned(), error })?;
                if !bytes.starts_with(b"\0asm") {
                    return Err(FilterCodeError::NotWasm { path: path.to_owned() });
                }
                Bytes::from(bytes)
            }
            (None, Some(embedded)) => Bytes::from_static(embedded),
            (None, None) => return Err(FilterCodeError::NotBuiltIn),
        };
        let sha256 = hex::encode(Sha256::digest(&bytes));
        Ok(Self { sha256, bytes })
    }

    /// Writes it into the state directory, named by its hash, for Envoy to read.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn put_into(&self, dir: &Path) -> Result<PathBuf, FilterCodeError> {
        let path = dir.join(format!("filter-{}.wasm", self.sha256));
        let there = fs::read(&path).is_ok_and(|bytes| bytes == self.bytes);
        if !there {
            private::write(&path, &self.bytes)
                .map_err(|error| FilterCodeError::NotWritten { path: path.clone(), error })?;
        }
        Ok(path)
    }
}

impl fmt::Debug for FilterCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FilterCode({})", self.sha256)
    }
}
