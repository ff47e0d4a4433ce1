//! The certificate of an Envoy as files that it watches.
//!
//! ```text
//! proxy_default_llm/
//!   certificate.json   what Envoy's bootstrap names: an SDS secret whose certificate and key are files
//!   authority.json     the same for the CA that Envoy trusts
//!   current -> 2       Envoy watches this folder: a swapped link is the sign to read again
//!   2/                 certificate.pem key.pem ca.pem
//! proxy_default_llm.pem, proxy_default_llm.key   the same pair, for people and their tools
//! ```
//! The link changes in one step, so nobody reads a certificate with another one's key (Kubernetes mounts its Secrets in
//! the same way). The folder before the present one stays for whoever has it open. Older folders are removed.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::PkiError;
use super::authority::{Issued, Validity};
use crate::identity::Identity;
use crate::state::private;

/// Names of the SDS secrets in Envoy's bootstrap.
pub const CERTIFICATE_SECRET: &str = "tollgate_certificate";
pub const AUTHORITY_SECRET: &str = "tollgate_authority";

const CURRENT: &str = "current";
const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";
const AUTHORITY: &str = "ca.pem";

/// The name of every folder begins with this. It is the whole name for the proxy that may have every Gateway.
const PREFIX: &str = "proxy";
/// No name in Kubernetes has this character, so two Gateways never share a folder.
const SEPARATOR: char = '_';

/// One proxy's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    path: PathBuf,
    pub identity: Identity,
}

/// What Envoy's bootstrap names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyFiles {
    pub certificate: PathBuf,
    pub authority: PathBuf,
}

// === impl Folder ===

impl Folder {
    pub fn of(dir: &Path, identity: &Identity) -> Self {
        let name = match identity {
            Identity::AllGateways => PREFIX.to_owned(),
            Identity::Of(scope) => {
                format!("{PREFIX}{SEPARATOR}{}", scope.to_string().replace('/', &SEPARATOR.to_string()))
            }
        };
        Self { path: dir.join(name), identity: identity.clone() }
    }

    /// Every proxy's folder in `dir`.
    pub fn all(dir: &Path) -> Vec<Self> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders
            .filter_map(|entry| Some(Self { identity: identity(entry.file_name().to_str()?)?, path: entry.path() }))
            .collect()
    }

    /// When the present certificate is valid.
    pub fn validity(&self) -> Option<Validity> {
        Validity::of(&fs::read_to_string(self.path.join(CURRENT).join(CERTIFICATE)).ok()?)
    }

    /// Puts a new certificate in the place of the present one.
    ///
    /// # Errors
    /// When the folder cannot be written. Then the certificate before is still there.
    pub fn put(&self, issued: &Issued, authority: &str) -> Result<ProxyFiles, PkiError> {
        self.write(issued, authority).map_err(|error| PkiError::Io { path: self.path.clone(), error })
    }

    fn write(&self, issued: &Issued, authority: &str) -> io::Result<ProxyFiles> {
        private::create_dir(&self.path)?;
        let number = self.next()?;
        let next = self.path.join(number.to_string());
        for (name, text) in [(CERTIFICATE, &*issued.certificate), (KEY, &issued.key), (AUTHORITY, authority)] {
            private::write(&next.join(name), text.as_bytes())?;
        }
        let files =
            ProxyFiles { certificate: self.path.join("certificate.json"), authority: self.path.join("authority.json") };
        private::write(&files.certificate, self.certificate_secret().to_string().as_bytes())?;
        private::write(&files.authority, self.authority_secret().to_string().as_bytes())?;
        link(Path::new(&number.to_string()), &self.path.join(CURRENT))?;
        self.link_for_people()?;
        for old in self.numbers().filter(|old| old + 1 < number) {
            fs::remove_dir_all(self.path.join(old.to_string()))?;
        }
        Ok(files)
    }

    /// Makes a folder for the next certificate. Nobody else writes into it, although `tollgate bootstrap` may run while
    /// `tollgate serve` renews.
    fn next(&self) -> io::Result<u64> {
        let mut number = self.numbers().max().map_or(1, |last| last + 1);
        loop {
            match private::create_new_dir(&self.path.join(number.to_string())) {
                Ok(()) => return Ok(number),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// The numbers of the certificates that are there. The link may point to any of them.
    fn numbers(&self) -> impl Iterator<Item = u64> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    }

    fn link_for_people(&self) -> io::Result<()> {
        let folder = Path::new(self.path.file_name().unwrap_or_default()).join(CURRENT);
        for (file, ending) in [(CERTIFICATE, "pem"), (KEY, "key")] {
            let mut name = self.path.file_name().unwrap_or_default().to_owned();
            name.push(".");
            name.push(ending);
            link(&folder.join(file), &self.path.with_file_name(name))?;
        }
        Ok(())
    }

    fn certificate_secret(&self) -> Value {
        self.secret(
            CERTIFICATE_SECRET,
            "tls_certificate",
            &json!({
                "certificate_chain": self.file(CERTIFICATE),
                "private_key": self.file(KEY),
                "watched_directory": {"path": self.path.to_string_lossy()},
            }),
        )
    }

    fn authority_secret(&self) -> Value {
        self.secret(
            AUTHORITY_SECRET,
            "validation_context",
            &json!({
                "trusted_ca": self.file(AUTHORITY),
                "watched_directory": {"path": self.path.to_string_lossy()},
            }),
        )
    }

    fn file(&self, name: &str) -> Value {
        json!({"filename": self.path.join(CURRENT).join(name).to_string_lossy()})
    }

    fn secret(&self, name: &str, kind: &str, secret: &Value) -> Value {
        json!({"resources": [{
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            "name": name,
            kind: secret,
        }]})
    }
}

/// Makes the link at `path`, or replaces the one that is there, in one step.
fn link(target: &Path, path: &Path) -> io::Result<()> {
    let new = private::beside(path);
    let _not_there = fs::remove_file(&new);
    symlink(target, &new)?;
    fs::rename(&new, path)
}

/// The identity that the folder with this name is for.
fn identity(name: &str) -> Option<Identity> {
    let rest = name.strip_prefix(PREFIX)?;
    if rest.is_empty() {
        return Some(Identity::AllGateways);
    }
    let (namespace, name) = rest.strip_prefix(SEPARATOR)?.split_once(SEPARATOR)?;
    let known = !namespace.is_empty() && !name.is_empty() && !name.contains(SEPARATOR);
    known.then(|| Identity::of_gateway(namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::pki::authority::{Authority, Leaf};
    use std::time::Duration;

    fn gateway(name: &str) -> Identity {
        format!("spiffe://tollgate/gateway/{name}").parse().unwrap()
    }

    #[test]
    fn a_folder_says_whose_it_is_and_no_two_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let mut identities = vec![Identity::AllGateways, gateway("a-b/c"), gateway("a/b-c")];
        for identity in &identities {
            let issued = authority.issue(Leaf::Proxy(identity), Duration::from_secs(60)).unwrap();
            Folder::of(dir.path(), identity).put(&issued, authority.trusted()).unwrap();
        }
        fs::create_dir(dir.path().join("proxy_of_somebody_else")).unwrap();
        let mut found: Vec<Identity> = Folder::all(dir.path()).into_iter().map(|folder| folder.identity).collect();
        found.sort();
        identities.sort();
        assert_eq!(found, identities);
    }

    #[test]
    fn two_writers_do_not_share_a_number() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::of(dir.path(), &gateway("default/llm"));
        private::create_dir(&folder.path).unwrap();
        let mut numbers: Vec<u64> = std::thread::scope(|scope| {
            let write = || (0..50).map(|_| folder.next().unwrap()).collect::<Vec<_>>();
            let writers: Vec<_> = (0..4).map(|_| scope.spawn(write)).collect();
            writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
        });
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 200);
    }

    #[test]
    fn a_new_certificate_takes_the_place_of_the_old_one_whole() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let identity = gateway("default/llm");
        let folder = Folder::of(dir.path(), &identity);
        assert_eq!(folder.validity(), None);
        for _ in 0..4 {
            let issued = authority.issue(Leaf::Proxy(&identity), Duration::from_secs(60)).unwrap();
            let files = folder.put(&issued, authority.trusted()).unwrap();
            let current = folder.path.join(CURRENT);
            assert_eq!(fs::read_to_string(current.join(CERTIFICATE)).unwrap(), issued.certificate);
            assert_eq!(fs::read_to_string(current.join(KEY)).unwrap(), issued.key);
            assert_eq!(fs::read_to_string(dir.path().join("proxy_default_llm.key")).unwrap(), issued.key);
            let secret: Value = serde_json::from_str(&fs::read_to_string(&files.certificate).unwrap()).unwrap();
            let key = secret.pointer("/resources/0/tls_certificate/private_key/filename").unwrap();
            assert_eq!(fs::read_to_string(key.as_str().unwrap()).unwrap(), issued.key);
        }
        assert_eq!(folder.numbers().count(), 2, "this one and the one before");
    }
}
