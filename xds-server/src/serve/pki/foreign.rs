//! A CA made by somebody else, for tests.

use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use time::OffsetDateTime;

use super::given::{Given, Whose};

const DAY: Duration = Duration::from_secs(24 * 3600);

pub struct Foreign {
    pub certificate: String,
    pub key: String,
}

// === impl Foreign ===

impl Foreign {
    pub fn root(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self { certificate: params(name, DAY).self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
    }

    /// A CA that this one has signed.
    pub fn below(&self, lifetime: Duration) -> Self {
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, KeyPair::from_pem(&self.key).unwrap()).unwrap();
        let certificate = params("below", lifetime).signed_by(&key, &issuer).unwrap();
        Self { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    pub fn given(&self, trusted: Option<&str>) -> Given {
        let whose = Whose::Theirs { trusted: trusted.map(str::to_owned) };
        Given { certificate: self.certificate.clone(), key: self.key.clone(), whose }
    }
}

fn params(name: &str, lifetime: Duration) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = now - DAY;
    params.not_after = now + lifetime;
    params
}
