//! The CA of the state directory. It is made once, kept across restarts, and signs the leaves.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use time::OffsetDateTime;
use x509_parser::pem::parse_x509_pem;

use super::{PkiError, SERVER_NAME};
use crate::identity::{Identity, REPLICA};
use crate::state::private;

pub(super) const CERTIFICATE_FILE: &str = "ca.pem";
pub(super) const KEY_FILE: &str = "ca.key";

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
const CA_LIFETIME: Duration = Duration::from_secs(10 * YEAR.as_secs());
/// A CA with less time left than this is replaced at the next start. A metric tells its end years before.
const CA_RESERVE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Certificates are valid from this time ago, because clocks differ.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

pub struct Authority {
    dir: PathBuf,
    /// PEM.
    certificate: String,
    expiry: Timestamp,
    issuer: Issuer<'static, KeyPair>,
}

/// Whom a leaf is for.
#[derive(Debug, Clone, Copy)]
pub enum Leaf<'a> {
    Server,
    Proxy(&'a Identity),
    /// This replica, as a client of another one.
    Replica,
}

/// A certificate and its key, as PEM.
pub struct Issued {
    pub certificate: String,
    pub key: String,
    pub validity: Validity,
}

/// When a certificate may be used. `from` does not count the time that was added for clocks that differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub from: Timestamp,
    pub until: Timestamp,
}

// === impl Authority ===

impl Authority {
    /// Reads the CA in `dir`, or makes one.
    ///
    /// # Errors
    /// When the folder cannot be used or holds something else.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        let (certificate_path, key_path, lock_path) =
            (dir.join(CERTIFICATE_FILE), dir.join(KEY_FILE), dir.join("lock"));
        let io = |path: &Path| {
            let path = path.to_owned();
            move |error| PkiError::Io { path, error }
        };
        let unusable = |error| PkiError::Unusable { path: certificate_path.clone(), error };
        private::create_dir(dir).map_err(io(dir))?;
        // `tollgate bootstrap` may run at the same moment as `tollgate serve`, and both must have the same CA.
        let lock = private::create_or_keep(&lock_path).map_err(io(&lock_path))?;
        File::lock(&lock).map_err(io(&lock_path))?;
        let kept = read(&certificate_path)?.zip(read(&key_path)?);
        let (certificate, key) = match kept.filter(|(certificate, _)| is_fresh(certificate)) {
            Some((certificate, key)) => (certificate, KeyPair::from_pem(&key).map_err(unusable)?),
            None => {
                let key = KeyPair::generate().map_err(unusable)?;
                let certificate = root(&key).map_err(unusable)?;
                // The key is written first, so that a certificate is there only together with its key.
                private::write(&key_path, key.serialize_pem().as_bytes()).map_err(io(&key_path))?;
                private::write(&certificate_path, certificate.as_bytes()).map_err(io(&certificate_path))?;
                (certificate, key)
            }
        };
        let expiry = Validity::of(&certificate).map_or(Timestamp::MIN, |validity| validity.until);
        let issuer = Issuer::from_ca_cert_pem(&certificate, key).map_err(unusable)?;
        Ok(Self { dir: dir.to_owned(), certificate, expiry, issuer })
    }

    /// The folder of the CA and of the proxies' certificates.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The CA's certificate and its key, as PEM.
    ///
    /// # Errors
    /// When the key cannot be read.
    pub(super) fn pem(&self) -> Result<(String, String), PkiError> {
        let path = self.dir.join(KEY_FILE);
        let key = fs::read_to_string(&path).map_err(|error| PkiError::Io { path, error })?;
        Ok((self.certificate.clone(), key))
    }

    pub fn expiry(&self) -> Timestamp {
        self.expiry
    }

    /// The CA's certificate as rustls takes it.
    ///
    /// # Errors
    /// When the file holds no certificate.
    pub fn root(&self) -> Result<CertificateDer<'static>, rustls::Error> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes())
            .map_err(|error| rustls::Error::General(error.to_string()))
    }

    /// Makes a new certificate with a key of its own. It never outlives the CA.
    ///
    /// # Errors
    /// When the CA's certificate and key do not fit together.
    pub fn issue(&self, leaf: Leaf<'_>, lifetime: Duration) -> Result<Issued, PkiError> {
        let unusable = |error| PkiError::Unusable { path: self.dir.clone(), error };
        let key = KeyPair::generate().map_err(unusable)?;
        let (certificate, validity) = self.certify(leaf, &key, lifetime).map_err(unusable)?;
        Ok(Issued { certificate, key: key.serialize_pem(), validity })
    }

    /// Makes a certificate for the key of a signing request (PKCS #10, PEM). Of the request nothing else counts: whom the
    /// certificate is for says `leaf`.
    ///
    /// # Errors
    /// When it is no request, or not signed by its own key.
    pub fn sign(&self, request: &str, leaf: Leaf<'_>, lifetime: Duration) -> Result<String, rcgen::Error> {
        let request = CertificateSigningRequestParams::from_pem(request)?;
        Ok(self.certify(leaf, &request.public_key, lifetime)?.0)
    }

    fn certify(
        &self,
        leaf: Leaf<'_>,
        key: &impl PublicKeyData,
        lifetime: Duration,
    ) -> Result<(String, Validity), rcgen::Error> {
        let now = Timestamp::now();
        let validity = Validity { from: now, until: later(now, lifetime).min(self.expiry) };
        let mut params = params(leaf.common_name(), validity)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = vec![match leaf {
            Leaf::Server => SanType::DnsName(SERVER_NAME.try_into()?),
            Leaf::Proxy(identity) => SanType::URI(identity.to_string().try_into()?),
            Leaf::Replica => SanType::URI(REPLICA.try_into()?),
        }];
        params.extended_key_usages = vec![match leaf {
            Leaf::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Leaf::Proxy(_) | Leaf::Replica => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        Ok((params.signed_by(key, &self.issuer)?.pem(), validity))
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("dir", &self.dir).field("expiry", &self.expiry).finish_non_exhaustive()
    }
}

// === impl Leaf ===

impl Leaf<'_> {
    fn common_name(self) -> &'static str {
        match self {
            Self::Server => SERVER_NAME,
            Self::Proxy(_) => "tollgate-proxy",
            Self::Replica => "tollgate-replica",
        }
    }
}

// === impl Issued ===

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("validity", &self.validity).finish_non_exhaustive()
    }
}

// === impl Validity ===

impl Validity {
    /// None: this is no certificate.
    pub fn of(pem: &str) -> Option<Self> {
        let (_, pem) = parse_x509_pem(pem.as_bytes()).ok()?;
        let certificate = pem.parse_x509().ok()?;
        let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
        let validity = certificate.validity();
        Some(Self { from: later(at(validity.not_before)?, CLOCK_SKEW), until: at(validity.not_after)? })
    }

    /// When it is time for the next certificate. A third of the life is left then, in case something gets in the way.
    pub fn renewal(self) -> Timestamp {
        let life = self.until.duration_since(self.from);
        self.from.saturating_add(life * 2 / 3).unwrap_or(self.from)
    }
}

fn root(key: &KeyPair) -> Result<String, rcgen::Error> {
    let now = Timestamp::now();
    let mut params = params("Tollgate CA", Validity { from: now, until: later(now, CA_LIFETIME) })?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params.self_signed(key)?.pem())
}

fn params(common_name: &str, validity: Validity) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    let time = |at: Timestamp| OffsetDateTime::from_unix_timestamp(at.as_second()).map_err(|_| rcgen::Error::Time);
    params.not_before = time(validity.from.saturating_sub(CLOCK_SKEW).unwrap_or(Timestamp::MIN))?;
    params.not_after = time(validity.until)?;
    Ok(params)
}

fn is_fresh(certificate: &str) -> bool {
    Validity::of(certificate).is_some_and(|validity| validity.until > later(Timestamp::now(), CA_RESERVE))
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PkiError::Io { path: path.to_owned(), error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ca_is_made_once_and_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pki");
        let made = Authority::open(&path).unwrap();
        assert_eq!(made.certificate(), Authority::open(&path).unwrap().certificate());
        for entry in fs::read_dir(&path).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_leaf_names_its_gateway_and_lives_as_long_as_told() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let identity: Identity = "spiffe://tollgate/gateway/default/llm".parse().unwrap();
        let issued = authority.issue(Leaf::Proxy(&identity), Duration::from_secs(90)).unwrap();
        let der = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
        assert_eq!(Identity::of_certificate(&der).unwrap(), identity);
        let validity = Validity::of(&issued.certificate).unwrap();
        assert_eq!(validity.until.as_second(), issued.validity.until.as_second());
        assert_eq!(validity.until.as_second() - validity.from.as_second(), 90);
        assert_eq!(validity.renewal().as_second() - validity.from.as_second(), 60);
        // A leaf lives as long as the CA at most.
        let issued = authority.issue(Leaf::Server, CA_LIFETIME * 2).unwrap();
        assert_eq!(issued.validity.until, authority.expiry());
        assert!(!format!("{issued:?} {authority:?}").contains("PRIVATE"));
    }
}
