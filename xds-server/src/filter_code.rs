//! The filter's code, in each form that Envoy runs: built into the binary, or a file.

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use axum::body::Bytes;
use sha2::{Digest as _, Sha256};

use crate::state::private;

const WASM: Option<&[u8]> = include!(concat!(env!("OUT_DIR"), "/embedded_filter.rs"));
const MODULE: Option<&[u8]> = include!(concat!(env!("OUT_DIR"), "/embedded_module.rs"));

/// The filter in one form.
#[derive(Clone)]
pub struct FilterCode {
    pub form: Form,
    /// Lowercase hex.
    pub sha256: String,
    pub bytes: Bytes,
}

/// In what form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// WebAssembly.
    Wasm,
    /// A dynamic module of Envoy: a shared library.
    Module,
}

#[derive(Debug, thiserror::Error)]
pub enum FilterCodeError {
    #[error("this binary has no {form} built in (name it with {option}; `cargo xtask dist` leaves it in target/dist)")]
    NotBuiltIn { form: Form, option: &'static str },
    #[error("{path}: {error} ({option} names the filter)")]
    Unreadable { path: PathBuf, error: io::Error, option: &'static str },
    #[error("{path} is not a {form} ({option} names the filter)")]
    OfOtherForm { path: PathBuf, form: Form, option: &'static str },
    #[error("{path}: {error} (the state directory must be writable)")]
    NotWritten { path: PathBuf, error: io::Error },
}

// === impl FilterCode ===

impl FilterCode {
    /// The given file if there is one, else the filter that is built in.
    ///
    /// # Errors
    /// When there is neither, or the file is no filter of this form.
    pub fn load(form: Form, file: Option<&Path>) -> Result<Self, FilterCodeError> {
        let option = form.option();
        let bytes = match (file, form.built_in()) {
            (Some(path), _) => {
                let path = path.to_owned();
                let bytes = match fs::read(&path) {
                    Ok(bytes) => bytes,
                    Err(error) => return Err(FilterCodeError::Unreadable { path, error, option }),
                };
                if !bytes.starts_with(form.magic()) {
                    return Err(FilterCodeError::OfOtherForm { path, form, option });
                }
                Bytes::from(bytes)
            }
            (None, Some(embedded)) => Bytes::from_static(embedded),
            (None, None) => return Err(FilterCodeError::NotBuiltIn { form, option }),
        };
        let sha256 = hex::encode(Sha256::digest(&bytes));
        Ok(Self { form, sha256, bytes })
    }

    /// The name of a file of it, for whoever fetches it.
    pub fn file_name(&self) -> String {
        format!("{}.{}", self.sha256, self.form.suffix())
    }

    pub fn media_type(&self) -> &'static str {
        match self.form {
            Form::Wasm => "application/wasm",
            Form::Module => "application/octet-stream",
        }
    }

    /// Writes it into the state directory, named by its hash, for Envoy to read.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn put_into(&self, dir: &Path) -> Result<PathBuf, FilterCodeError> {
        let path = dir.join(format!("filter-{}", self.file_name()));
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
        write!(f, "FilterCode({})", self.file_name())
    }
}

// === impl Form ===

impl Form {
    fn built_in(self) -> Option<&'static [u8]> {
        match self {
            Self::Wasm => WASM,
            Self::Module => MODULE,
        }
    }

    fn option(self) -> &'static str {
        match self {
            Self::Wasm => "--wasm",
            Self::Module => "--module",
        }
    }

    /// What a file of this form begins with.
    fn magic(self) -> &'static [u8] {
        match self {
            Self::Wasm => b"\0asm",
            Self::Module => b"\x7fELF",
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Module => "so",
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wasm => "WebAssembly filter",
            Self::Module => "filter module",
        })
    }
}
