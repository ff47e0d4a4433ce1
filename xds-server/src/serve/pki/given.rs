//! A CA as PEM: as it lies in the state directory, and as somebody else hands it over.
//!
//! ```text
//! pki/ca.pem       the certificate that signs, and those above it where it has been signed itself
//! pki/ca.key       its key
//! pki/trusted.pem  whom to trust. It is there if the CA is somebody else's; of our own CA ca.pem is all that there is
//! ```
//! Somebody else hands over what cert-manager, SPIRE and Vault write: `tls.crt`, `tls.key` and, if there is more than one to
//! trust or another one, `ca.crt`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use k8s_openapi::ByteString;

use super::PkiError;
use crate::state::private;

const CERTIFICATE_FILE: &str = "ca.pem";
const KEY_FILE: &str = "ca.key";
const TRUSTED_FILE: &str = "trusted.pem";

/// The names in a Secret of type kubernetes.io/tls.
pub const CERTIFICATE: &str = "tls.crt";
pub const KEY: &str = "tls.key";
pub const TRUSTED: &str = "ca.crt";

/// A bundle of some dozen certificates is as long as this.
const MAX: u64 = 128 << 10;

/// Nothing of it has been looked at yet but its size.
#[derive(Clone, PartialEq, Eq)]
pub struct Given {
    /// PEM, one or more.
    pub certificate: String,
    pub key: String,
    pub whose: Whose,
}

/// Who made a CA, and therefore who replaces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// We did. It is its own root.
    Ours,
    /// Somebody else.
    Theirs {
        /// PEM. None: who trusts the last certificate of the CA trusts all of it.
        trusted: Option<String>,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum Incomplete {
    #[error("there is no {0}")]
    Missing(&'static str),
    #[error("{0} has more than {MAX} bytes")]
    TooLarge(&'static str),
    #[error("{0} is not text")]
    NoText(&'static str),
    #[error("{name}: {error}")]
    Io { name: &'static str, error: io::Error },
}

/// The folder `pki` of the state directory. `tollgate bootstrap` may run at the same moment as `tollgate serve`, and both
/// must have the same CA; so it is locked while this lives.
#[derive(Debug)]
pub struct Place {
    dir: PathBuf,
    _lock: File,
}

// === impl Given ===

impl Given {
    /// From the data of a Secret.
    ///
    /// # Errors
    /// When something is missing or too long.
    pub fn of_secret(data: &BTreeMap<String, ByteString>) -> Result<Self, Incomplete> {
        Self::theirs(|name| {
            let Some(bytes) = data.get(name) else { return Ok(None) };
            if bytes.0.len() as u64 > MAX {
                return Err(Incomplete::TooLarge(name));
            }
            String::from_utf8(bytes.0.clone()).map(Some).map_err(|_| Incomplete::NoText(name))
        })
    }

    /// From a folder, for example one that a Secret is mounted at.
    ///
    /// # Errors
    /// When something is missing, too long, or cannot be read.
    pub fn of_folder(dir: &Path) -> Result<Self, Incomplete> {
        Self::theirs(|name| {
            let io = |error| Incomplete::Io { name, error };
            let file = match File::open(dir.join(name)) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(io(error)),
            };
            let mut bytes = Vec::new();
            file.take(MAX + 1).read_to_end(&mut bytes).map_err(io)?;
            if bytes.len() as u64 > MAX {
                return Err(Incomplete::TooLarge(name));
            }
            String::from_utf8(bytes).map(Some).map_err(|_| Incomplete::NoText(name))
        })
    }

    fn theirs(read: impl Fn(&'static str) -> Result<Option<String>, Incomplete>) -> Result<Self, Incomplete> {
        let must = |name| read(name)?.ok_or(Incomplete::Missing(name));
        // Some leave `ca.crt` empty where the CA has nobody above it.
        let trusted = read(TRUSTED)?.filter(|text| !text.trim().is_empty());
        Ok(Self { certificate: must(CERTIFICATE)?, key: must(KEY)?, whose: Whose::Theirs { trusted } })
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given").field("whose", &self.whose).finish_non_exhaustive()
    }
}

// === impl Place ===

impl Place {
    /// # Errors
    /// When the folder cannot be made or locked.
    pub fn lock(dir: &Path) -> Result<Self, PkiError> {
        let io = |error| PkiError::Io { path: dir.to_owned(), error };
        private::create_dir(dir).map_err(io)?;
        let lock = private::create_or_keep(&dir.join("lock")).map_err(io)?;
        File::lock(&lock).map_err(io)?;
        Ok(Self { dir: dir.to_owned(), _lock: lock })
    }

    /// # Errors
    /// When a file cannot be read.
    pub fn read(&self) -> Result<Option<Given>, PkiError> {
        let Some((certificate, key)) = self.text(CERTIFICATE_FILE)?.zip(self.text(KEY_FILE)?) else {
            return Ok(None);
        };
        let whose = match self.text(TRUSTED_FILE)? {
            Some(trusted) => Whose::Theirs { trusted: Some(trusted).filter(|trusted| !trusted.is_empty()) },
            None => Whose::Ours,
        };
        Ok(Some(Given { certificate, key, whose }))
    }

    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, given: &Given) -> Result<(), PkiError> {
        // A certificate is there only together with its key.
        self.put(KEY_FILE, &given.key)?;
        match &given.whose {
            Whose::Ours => self.remove(TRUSTED_FILE)?,
            Whose::Theirs { trusted } => self.put(TRUSTED_FILE, trusted.as_deref().unwrap_or_default())?,
        }
        self.put(CERTIFICATE_FILE, &given.certificate)
    }

    fn text(&self, name: &str) -> Result<Option<String>, PkiError> {
        match fs::read_to_string(self.dir.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(PkiError::Io { path: self.dir.join(name), error }),
        }
    }

    fn put(&self, name: &str, text: &str) -> Result<(), PkiError> {
        let path = self.dir.join(name);
        private::write(&path, text.as_bytes()).map_err(|error| PkiError::Io { path, error })
    }

    fn remove(&self, name: &str) -> Result<(), PkiError> {
        let path = self.dir.join(name);
        match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(PkiError::Io { path, error }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(entries: &[(&str, &[u8])]) -> Result<Given, Incomplete> {
        let entry = |(name, bytes): &(&str, &[u8])| ((*name).to_owned(), ByteString(bytes.to_vec()));
        Given::of_secret(&entries.iter().map(entry).collect())
    }

    fn folder(entries: &[(&str, &[u8])]) -> Result<Given, Incomplete> {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in entries {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        Given::of_folder(dir.path())
    }

    #[test]
    fn a_secret_and_a_folder_say_the_same() {
        let long = vec![b'x'; MAX as usize + 1];
        let longest = vec![b'x'; MAX as usize];
        for from in [secret, folder] {
            let found = from(&[("tls.crt", b"c"), ("tls.key", b"k"), ("ca.crt", b"t")]).unwrap();
            let theirs = |trusted: Option<&str>| Whose::Theirs { trusted: trusted.map(str::to_owned) };
            assert_eq!((&*found.certificate, &*found.key, &found.whose), ("c", "k", &theirs(Some("t"))));
            for none in [&[][..], &[("ca.crt", &b" \n"[..])]] {
                let found = from(&[&[("tls.crt", &b"c"[..]), ("tls.key", b"k")], none].concat()).unwrap();
                assert_eq!(found.whose, theirs(None));
            }
            let said = |entries: &[(&str, &[u8])]| from(entries).unwrap_err().to_string();
            assert_eq!(said(&[("tls.crt", b"c")]), "there is no tls.key");
            assert_eq!(said(&[("tls.key", b"k")]), "there is no tls.crt");
            assert_eq!(said(&[("tls.crt", &long), ("tls.key", b"k")]), "tls.crt has more than 131072 bytes");
            assert_eq!(said(&[("tls.crt", &[0xff]), ("tls.key", b"k")]), "tls.crt is not text");
            assert!(from(&[("tls.crt", &longest), ("tls.key", b"k")]).is_ok());
        }
    }

    #[test]
    fn what_is_put_there_is_found_there() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::lock(dir.path()).unwrap();
        assert_eq!(place.read().unwrap(), None);
        let bundle = Some("bundle".to_owned());
        for whose in [Whose::Theirs { trusted: bundle }, Whose::Ours, Whose::Theirs { trusted: None }, Whose::Ours] {
            let given = Given { certificate: "certificate".to_owned(), key: "a secret".to_owned(), whose };
            place.write(&given).unwrap();
            assert!(!format!("{given:?}").contains("a secret"));
            assert_eq!(place.read().unwrap(), Some(given));
        }
    }
}
