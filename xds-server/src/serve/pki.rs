//! The certificates between control plane and proxies: an own CA in the state directory, kept across restarts.
//!
//! Every file is for its owner only. Leaves are renewed at start when less than 30 days remain.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::{Span, Timestamp, Zoned, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};
use x509_parser::pem::parse_x509_pem;

use super::identity::Identity;

/// The name that proxies expect in our certificate.
pub const SERVER_NAME: &str = "tollgate-control";

const CA_YEARS: i16 = 10;
const LEAF_YEARS: i16 = 1;
const RENEW_BEFORE_DAYS: i64 = 30;

/// The CA and the server's certificate, ready to use.
#[derive(Debug)]
pub struct Pki {
    dir: PathBuf,
    pub server: Pair,
    /// PEM of the CA.
    pub ca: String,
}

/// A certificate and its key as PEM, and where they are.
pub struct Pair {
    pub certificate: String,
    pub key: String,
    pub certificate_path: PathBuf,
    pub key_path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{path}: {error} (the state directory must be writable; --state names another)")]
    Io { path: PathBuf, error: io::Error },
    #[error("{path}: {error} (remove the folder to have new certificates made; proxies then need their new ones)")]
    Unusable { path: PathBuf, error: rcgen::Error },
}

/// Whom a leaf certificate is for.
enum Leaf<'a> {
    Server,
    Proxy(&'a Identity),
}

// === impl Pki ===

impl Pki {
    /// Reads the certificates in `dir`, and makes what is missing or near its end.
    ///
    /// # Errors
    /// When the folder cannot be used or holds something else.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        let io = |error| PkiError::Io { path: dir.to_owned(), error };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
        let ca = pair(dir, "ca", |key| {
            let mut params = params("Tollgate CA", CA_YEARS)?;
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            params.self_signed(key)
        })?;
        let mut pki = Self { dir: dir.to_owned(), server: Pair::empty(), ca: ca.certificate };
        pki.server = pki.leaf("server", &Leaf::Server)?;
        Ok(pki)
    }

    /// The client certificate of proxies with this identity.
    ///
    /// # Errors
    /// When it can be neither read nor made.
    pub fn proxy(&self, identity: &Identity) -> Result<Pair, PkiError> {
        let name = match identity {
            Identity::AllGateways => "proxy".to_owned(),
            // An underscore is in no name of Kubernetes, so two Gateways never share a file.
            Identity::Gateway { namespace, name } => format!("proxy_{namespace}_{name}"),
        };
        self.leaf(&name, &Leaf::Proxy(identity))
    }

    pub fn ca_path(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    fn leaf(&self, name: &str, leaf: &Leaf<'_>) -> Result<Pair, PkiError> {
        let ca_key_path = self.dir.join("ca.key");
        let ca_key = fs::read_to_string(&ca_key_path).map_err(|error| PkiError::Io { path: ca_key_path, error })?;
        pair(&self.dir, name, |key| {
            let issuer = Issuer::from_ca_cert_pem(&self.ca, KeyPair::from_pem(&ca_key)?)?;
            let mut params = match leaf {
                Leaf::Server => params(SERVER_NAME, LEAF_YEARS)?,
                Leaf::Proxy(_) => params("tollgate-proxy", LEAF_YEARS)?,
            };
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.use_authority_key_identifier_extension = true;
            match leaf {
                Leaf::Server => {
                    params.subject_alt_names = vec![SanType::DnsName(SERVER_NAME.try_into()?)];
                    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                }
                Leaf::Proxy(identity) => {
                    params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
                    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                }
            }
            params.signed_by(key, &issuer)
        })
    }
}

// === impl Pair ===

impl Pair {
    const fn empty() -> Self {
        Self {
            certificate: String::new(),
            key: String::new(),
            certificate_path: PathBuf::new(),
            key_path: PathBuf::new(),
        }
    }
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("certificate_path", &self.certificate_path).finish_non_exhaustive()
    }
}

/// The pair `name` in `dir`; made when it is missing or near its end.
fn pair(
    dir: &Path,
    name: &str,
    make: impl FnOnce(&KeyPair) -> Result<rcgen::Certificate, rcgen::Error>,
) -> Result<Pair, PkiError> {
    let certificate_path = dir.join(format!("{name}.pem"));
    let key_path = dir.join(format!("{name}.key"));
    let kept = read(&certificate_path)?.zip(read(&key_path)?);
    let (certificate, key) = match kept.filter(|(certificate, _)| is_fresh(certificate)) {
        Some(kept) => kept,
        None => {
            let unusable = |error| PkiError::Unusable { path: certificate_path.clone(), error };
            let key = KeyPair::generate().map_err(unusable)?;
            let certificate = make(&key).map_err(unusable)?.pem();
            let key = key.serialize_pem();
            // The key first: a certificate is there only together with its key.
            write_private(&key_path, key.as_bytes())
                .and_then(|()| write_private(&certificate_path, certificate.as_bytes()))
                .map_err(|error| PkiError::Io { path: certificate_path.clone(), error })?;
            (certificate, key)
        }
    };
    Ok(Pair { certificate, key, certificate_path, key_path })
}

fn params(common_name: &str, years: i16) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = Timestamp::now().to_zoned(TimeZone::UTC);
    // A day back, for clocks that differ.
    let date = |at: Zoned| date_time_ymd(at.year().into(), at.month().unsigned_abs(), at.day().unsigned_abs());
    params.not_before = date(now.saturating_sub(Span::new().days(1)));
    params.not_after = date(now.saturating_add(Span::new().years(years)));
    Ok(params)
}

fn is_fresh(pem: &str) -> bool {
    let Ok((_, pem)) = parse_x509_pem(pem.as_bytes()) else { return false };
    let Ok(certificate) = pem.parse_x509() else { return false };
    let left = certificate.validity().not_after.timestamp() - Timestamp::now().as_second();
    left > RENEW_BEFORE_DAYS * 24 * 3600
}

fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PkiError::Io { path: path.to_owned(), error }),
    }
}

/// Writes a file that only its owner can read, whole or not at all.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_made_once_and_name_the_gateway() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let again = Pki::open(dir.path()).unwrap();
        assert_eq!(pki.ca, again.ca);
        assert_eq!(pki.server.certificate, again.server.certificate);
        let identity: Identity = "spiffe://tollgate/gateway/default/llm".parse().unwrap();
        let proxy = pki.proxy(&identity).unwrap();
        let (_, pem) = parse_x509_pem(proxy.certificate.as_bytes()).unwrap();
        assert_eq!(Identity::of_certificate(&pem.contents).unwrap(), identity);
        use std::os::unix::fs::PermissionsExt as _;
        for entry in fs::read_dir(dir.path()).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn each_gateway_has_a_certificate_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let made = |name: &str| pki.proxy(&format!("spiffe://tollgate/gateway/{name}").parse().unwrap()).unwrap();
        assert_ne!(made("a-b/c").certificate, made("a/b-c").certificate);
    }
}
