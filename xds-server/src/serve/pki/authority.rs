//! The CA in the state directory, and what it signs. It is made once and kept across restarts, or given by somebody else
//! (`given.rs`).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::parse_x509_certificate;
use x509_parser::pem::parse_x509_pem;
use x509_parser::time::ASN1Time;

use super::given::{Given, Place, Whose};
use super::{PkiError, SERVER_NAME, trust};
use crate::identity::{Identity, REPLICA};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
const CA_LIFETIME: Duration = Duration::from_secs(10 * YEAR.as_secs());
/// A CA with less time left than this is replaced at the next start. A metric tells its end years before.
const CA_RESERVE: Duration = Duration::from_secs(30 * 24 * 3600);
/// The most certificates from one that signs up to the root.
const MAX_CHAIN: usize = 8;
/// A leaf that shows whether the CA can be used, and is thrown away.
const TRIAL: Duration = Duration::from_secs(3600);
/// Certificates are valid from this time ago, because clocks differ.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// What signs, and what is trusted. It never changes: another one takes its place (`keeper.rs`).
pub struct Authority {
    dir: PathBuf,
    given: Given,
    /// What goes with each leaf for those who trust the CA above this one alone. PEM.
    chain: String,
    /// Whom to trust. PEM.
    trusted: String,
    /// Until the first of the certificates from the one that signs up to the root ends.
    validity: Validity,
    issuer: Issuer<'static, KeyPair>,
    clients: Arc<dyn ClientCertVerifier>,
}

/// Why a CA cannot be used. The names are those under which somebody else hands it over.
#[derive(Debug, thiserror::Error)]
pub enum InvalidAuthority {
    #[error("there is no certificate in {0} (PEM)")]
    NoCertificate(&'static str),
    #[error("{0} is broken: {1}")]
    Broken(&'static str, rustls::Error),
    #[error("more than {MAX_CHAIN} certificates in tls.crt")]
    TooMany,
    #[error("the first certificate in tls.crt is not a CA's (for cert-manager: `isCA: true`)")]
    NotACa,
    #[error("tls.crt has ended: {0}")]
    Ended(Timestamp),
    #[error(
        "tls.key: {0} (it is to be PKCS #8 in PEM, of EC P-256, P-384, Ed25519 or RSA; for cert-manager: `privateKey.encoding: PKCS8`)"
    )]
    Key(rcgen::Error),
    #[error("tls.key is not the key of the first certificate in tls.crt")]
    OtherKey,
    #[error("who trusts ca.crt would not trust what tls.crt signs: {0} (ca.crt must have the CA above tls.crt)")]
    Untrusted(rustls::Error),
    #[error("it cannot sign: {0}")]
    Signing(#[from] rcgen::Error),
}

/// Whom a leaf is for.
#[derive(Debug, Clone, Copy)]
pub enum Leaf<'a> {
    Server,
    Proxy(&'a Identity),
    /// This replica, as a client of another one.
    Replica,
}

/// A certificate with those above it that not everybody has, and its key, as PEM.
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
        let place = Place::lock(dir)?;
        let given = match place.read()?.filter(is_to_be_kept) {
            Some(given) => given,
            None => {
                let made = made().map_err(|error| PkiError::Unusable { path: dir.to_owned(), error: error.into() })?;
                place.write(&made)?;
                made
            }
        };
        Self::of(dir, given).map_err(|error| PkiError::Unusable { path: dir.to_owned(), error })
    }

    /// A CA with its leaves in `dir`.
    ///
    /// # Errors
    /// When nobody could be certified by it.
    pub fn of(dir: &Path, given: Given) -> Result<Self, InvalidAuthority> {
        let of = |name| move |error| InvalidAuthority::Broken(name, error);
        let certificates = trust::certificates(&given.certificate).map_err(of("tls.crt"))?;
        let [first, ..] = &*certificates else { return Err(InvalidAuthority::NoCertificate("tls.crt")) };
        let validity = validity(first, &certificates)?;
        let key = KeyPair::from_pem(&given.key).map_err(InvalidAuthority::Key)?;
        has_key(first, &key)?;
        let trusted = match &given.whose {
            Whose::Theirs { trusted: Some(bundle) } => trust::certificates(bundle).map_err(of("ca.crt"))?,
            Whose::Theirs { trusted: None } | Whose::Ours => certificates.last().cloned().into_iter().collect(),
        };
        if trusted.is_empty() {
            return Err(InvalidAuthority::NoCertificate("ca.crt"));
        }
        let roots = trust::roots(&trusted).map_err(of("ca.crt"))?;
        let authority = Self {
            dir: dir.to_owned(),
            chain: if trusted.contains(first) { String::new() } else { pem(&certificates) },
            trusted: pem(&trusted),
            validity,
            issuer: Issuer::from_ca_cert_der(first, key)?,
            clients: trust::clients(Arc::clone(&roots)).map_err(of("ca.crt"))?,
            given,
        };
        let (trial, _) = authority.certify(Leaf::Server, &KeyPair::generate()?, TRIAL)?;
        trust::would_take(roots, &trial).map_err(InvalidAuthority::Untrusted)?;
        Ok(authority)
    }

    /// The folder of the CA and of the proxies' certificates.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn given(&self) -> &Given {
        &self.given
    }

    /// Whom proxies are to trust: one certificate or more, PEM.
    pub fn trusted(&self) -> &str {
        &self.trusted
    }

    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Who asks clients for a certificate that is trusted.
    pub(super) fn clients(&self) -> &dyn ClientCertVerifier {
        &*self.clients
    }

    /// Makes a new certificate with a key of its own. It never outlives the CA.
    ///
    /// # Errors
    /// When the CA's certificate and key do not fit together.
    pub fn issue(&self, leaf: Leaf<'_>, lifetime: Duration) -> Result<Issued, PkiError> {
        let unusable = |error: rcgen::Error| PkiError::Unusable { path: self.dir.clone(), error: error.into() };
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
        let validity = Validity { from: now, until: later(now, lifetime).min(self.validity.until) };
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
        Ok((params.signed_by(key, &self.issuer)?.pem() + &self.chain, validity))
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("dir", &self.dir).field("validity", &self.validity).finish_non_exhaustive()
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
        let at = |time: ASN1Time| Timestamp::from_second(time.timestamp()).ok();
        let validity = certificate.validity();
        Some(Self { from: later(at(validity.not_before)?, CLOCK_SKEW), until: at(validity.not_after)? })
    }

    /// When it is time for the next certificate. A third of the life is left then, in case something gets in the way.
    pub fn renewal(self) -> Timestamp {
        let life = self.until.duration_since(self.from);
        self.from.saturating_add(life * 2 / 3).unwrap_or(self.from)
    }
}

/// Our own CA is made anew before its end, and somebody else's after it.
fn is_to_be_kept(given: &Given) -> bool {
    let reserve = match given.whose {
        Whose::Ours => CA_RESERVE,
        Whose::Theirs { .. } => Duration::ZERO,
    };
    Validity::of(&given.certificate).is_some_and(|validity| validity.until > later(Timestamp::now(), reserve))
}

fn made() -> Result<Given, rcgen::Error> {
    let key = KeyPair::generate()?;
    Ok(Given { certificate: root(&key)?, key: key.serialize_pem(), whose: Whose::Ours })
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

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// Text of these certificates and of nothing else: a file that was handed over may have a key in it.
fn pem(certificates: &[CertificateDer<'_>]) -> String {
    let blocks = certificates.iter().map(|certificate| pem::Pem::new("CERTIFICATE", certificate.as_ref()));
    pem::encode_many_config(&blocks.collect::<Vec<_>>(), pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF))
}

/// When all of these certificates are valid.
fn validity(signs: &CertificateDer<'_>, certificates: &[CertificateDer<'_>]) -> Result<Validity, InvalidAuthority> {
    if certificates.len() > MAX_CHAIN {
        return Err(InvalidAuthority::TooMany);
    }
    if !parsed(signs)?.is_ca() {
        return Err(InvalidAuthority::NotACa);
    }
    let mut all = Validity { from: Timestamp::MIN, until: Timestamp::MAX };
    for certificate in certificates {
        let validity = parsed(certificate)?.validity().clone();
        let at = |time: ASN1Time, never| Timestamp::from_second(time.timestamp()).unwrap_or(never);
        all.from = all.from.max(at(validity.not_before, Timestamp::MAX));
        all.until = all.until.min(at(validity.not_after, Timestamp::MIN));
    }
    if all.until <= Timestamp::now() { Err(InvalidAuthority::Ended(all.until)) } else { Ok(all) }
}

fn has_key(certificate: &CertificateDer<'_>, key: &KeyPair) -> Result<(), InvalidAuthority> {
    let is_its = parsed(certificate)?.public_key().raw == key.subject_public_key_info();
    if is_its { Ok(()) } else { Err(InvalidAuthority::OtherKey) }
}

fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, InvalidAuthority> {
    let broken = |error: x509_parser::nom::Err<_>| {
        InvalidAuthority::Broken("tls.crt", rustls::Error::General(error.to_string()))
    };
    Ok(parse_x509_certificate(certificate.as_ref()).map_err(broken)?.1)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustls::pki_types::UnixTime;
    use rustls::pki_types::pem::PemObject as _;

    use super::*;
    use crate::serve::pki::foreign::Foreign;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn of(given: Given) -> Result<Authority, String> {
        Authority::of(Path::new("nowhere"), given).map_err(|error| error.to_string())
    }

    fn takes(authority: &Authority, issued: &str) -> bool {
        let chain = trust::certificates(issued).unwrap();
        authority.clients().verify_client_cert(&chain[0], &chain[1..], UnixTime::now()).is_ok()
    }

    fn proxy(authority: &Authority) -> String {
        let identity: Identity = "spiffe://tollgate/gateway/default/llm".parse().unwrap();
        authority.issue(Leaf::Proxy(&identity), DAY).unwrap().certificate
    }

    #[test]
    fn the_ca_is_made_once_and_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pki");
        let made = Authority::open(&path).unwrap();
        assert_eq!(made.trusted(), Authority::open(&path).unwrap().trusted());
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
        assert_eq!(issued.validity.until, authority.validity().until);
        assert!(!format!("{issued:?} {authority:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_ca_below_another_one_is_trusted_by_those_who_trust_that_one() {
        let root = Foreign::root("root");
        let (one, other) = (root.below(DAY / 2), root.below(DAY));
        let first = of(one.given(Some(&root.certificate))).unwrap();
        assert_eq!(trust::certificates(first.trusted()), trust::certificates(&root.certificate));
        assert_eq!(first.validity().until, Validity::of(&one.certificate).unwrap().until);
        // Another one below the same root takes its place, and each takes what the other has signed.
        let second = of(other.given(Some(&root.certificate))).unwrap();
        assert!(takes(&first, &proxy(&second)) && takes(&second, &proxy(&first)));
        assert!(!takes(&first, &proxy(&of(Foreign::root("root").given(None)).unwrap())));
        // With its root beside it, it needs no bundle.
        let mut both = one.given(None);
        both.certificate += &root.certificate;
        assert!(takes(&of(both).unwrap(), &proxy(&first)));
    }

    #[test]
    fn a_bundle_of_two_takes_what_either_signs_until_one_of_them_goes() {
        let (old, new) = (Foreign::root("old"), Foreign::root("new"));
        let bundle = format!("{}{}", old.certificate, new.certificate);
        let (only_old, only_new) = (of(old.given(None)).unwrap(), of(new.given(None)).unwrap());
        for both in [of(old.given(Some(&bundle))).unwrap(), of(new.given(Some(&bundle))).unwrap()] {
            assert!(takes(&both, &proxy(&only_old)) && takes(&both, &proxy(&only_new)));
            assert_eq!(trust::certificates(both.trusted()).unwrap().len(), 2);
        }
        assert!(!takes(&only_new, &proxy(&only_old)));
    }

    #[test]
    fn what_cannot_be_used_is_refused_and_says_why() {
        let root = Foreign::root("root");
        let stranger = Foreign::root("stranger");
        let refused = |change: &dyn Fn(&mut Given)| {
            let mut given = root.given(None);
            change(&mut given);
            of(given).unwrap_err()
        };
        let leaf = proxy(&of(root.given(None)).unwrap());
        let says = |text: String, words: &str| assert!(text.contains(words), "{text}");
        says(refused(&|given| given.certificate.clear()), "there is no certificate in tls.crt");
        says(refused(&|given| given.certificate = root.certificate.repeat(MAX_CHAIN + 1)), "more than 8");
        says(refused(&|given| given.certificate.clone_from(&leaf)), "is not a CA's");
        says(refused(&|given| given.key.clear()), "PKCS #8");
        says(refused(&|given| given.key.clone_from(&stranger.key)), "is not the key");
        let trusting = |text: &str| Whose::Theirs { trusted: Some(text.to_owned()) };
        says(refused(&|given| given.whose = trusting("nothing")), "there is no certificate in ca.crt");
        says(refused(&|given| given.whose = trusting(&stranger.certificate)), "must have the CA above tls.crt");
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        says(refused(&|given| given.certificate = broken.to_owned()), "tls.crt is broken");
        says(refused(&|given| given.whose = trusting(broken)), "ca.crt is broken");
        let ended = root.below(Duration::ZERO);
        says(of(ended.given(Some(&root.certificate))).unwrap_err(), "tls.crt has ended");
    }

    #[test]
    fn a_key_beside_a_certificate_goes_to_nobody() {
        let root = Foreign::root("root");
        let with_key = format!("{}{}", root.key, root.certificate);
        let mut given = root.below(DAY).given(Some(&with_key));
        given.certificate = format!("{}{}", given.key, given.certificate);
        let authority = of(given).unwrap();
        assert!(!proxy(&authority).contains("PRIVATE") && !authority.trusted().contains("PRIVATE"));
    }

    #[test]
    fn a_ca_of_our_own_is_made_anew_before_its_end_and_somebody_elses_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let kept = |given: &Given| {
            Place::lock(dir.path()).unwrap().write(given).unwrap();
            Authority::open(dir.path()).unwrap().given() == given
        };
        let soon = Foreign::root("soon").given(None);
        assert!(kept(&soon));
        assert!(!kept(&Given { whose: Whose::Ours, ..soon }));
        assert!(kept(&made().unwrap()));
        let ended = Foreign::root("root").below(Duration::ZERO).given(None);
        assert!(!kept(&ended));
    }
}
