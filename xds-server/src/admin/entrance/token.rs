//! The token of the admin port, in a file. The file is read whenever somebody shows a token, so a new one acts at once.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Fewer characters could be guessed.
const SHORTEST: usize = 16;
/// What has more is another file.
const LONGEST: usize = 4096;

/// A file with a token.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    /// The token as it was last good.
    last: Mutex<Hash>,
    /// The file has no token now, and the log says so.
    is_told: AtomicBool,
}

/// Of a token, or of a session's id. Two of them are compared in the same time, whatever they are.
#[derive(Debug, Clone, Copy, Eq)]
pub(super) struct Hash([u8; 32]);

/// A file has no token that can be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidToken {
    #[error("the token of the admin port cannot be read from {path}: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error(
        "{path} has no token for the admin port: it needs one line of {SHORTEST} to {LONGEST} visible ASCII characters \
         (openssl rand -hex 32 makes one)"
    )]
    NoToken { path: PathBuf },
}

// === impl TokenFile ===

impl TokenFile {
    /// # Errors
    /// When the file has no token. Later that is no error: the token that it had counts on.
    pub fn open(path: &Path) -> Result<Self, InvalidToken> {
        let last = Mutex::new(hash_of(path, std::fs::read(path))?);
        Ok(Self { path: path.to_owned(), last, is_told: AtomicBool::new(false) })
    }

    /// The token's hash, as the file has it now.
    pub(super) async fn hash(&self) -> Hash {
        let found = hash_of(&self.path, tokio::fs::read(&self.path).await);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Ok(hash) => {
                *last = hash;
                self.is_told.store(false, Ordering::Relaxed);
            }
            Err(error) => {
                if !self.is_told.swap(true, Ordering::Relaxed) {
                    tracing::warn!("{error}; the token that was there counts on");
                }
            }
        }
        *last
    }
}

fn hash_of(path: &Path, read: std::io::Result<Vec<u8>>) -> Result<Hash, InvalidToken> {
    let content = read.map_err(|source| InvalidToken::Unreadable { path: path.to_owned(), source })?;
    let token = content.trim_ascii();
    let is_token = (SHORTEST..=LONGEST).contains(&token.len()) && token.iter().all(u8::is_ascii_graphic);
    if is_token { Ok(Hash::of(token)) } else { Err(InvalidToken::NoToken { path: path.to_owned() }) }
}

// === impl Hash ===

impl Hash {
    pub fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }
}

impl PartialEq for Hash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_token_acts_at_once_and_a_broken_file_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "the-first-token-of-all\n").unwrap();
        let file = TokenFile::open(&path).unwrap();
        assert_eq!(file.hash().await, Hash::of(b"the-first-token-of-all"));
        std::fs::write(&path, "the-second-token-of-all").unwrap();
        assert_eq!(file.hash().await, Hash::of(b"the-second-token-of-all"));
        for broken in ["", "short", "two words of many characters", "the-tökens-are-not-ascii"] {
            std::fs::write(&path, broken).unwrap();
            assert_eq!(file.hash().await, Hash::of(b"the-second-token-of-all"), "{broken}");
            assert!(TokenFile::open(&path).unwrap_err().to_string().contains("openssl rand"), "{broken}");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(file.hash().await, Hash::of(b"the-second-token-of-all"));
        assert!(TokenFile::open(&path).is_err());
    }
}
