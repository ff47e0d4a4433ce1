//! TLS handshakes that failed, by port and reason. Whoever fails is a stranger, so that the reasons are few and no label
//! has anything that a stranger said.

use std::io;
use std::net::SocketAddr;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::{counter::Counter, family::Family};
use prometheus_client::registry::Registry;
use rustls::{AlertDescription, CertificateError};

use crate::audit::{Audit, Event};

/// Clones count the same.
#[derive(Debug, Clone, Default)]
pub struct Handshakes {
    counts: Family<Labels, Counter>,
    audit: Audit,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    port: &'static str,
    reason: Reason,
}

/// Why a handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Reason {
    /// The client showed none.
    NoCertificate,
    /// The client's certificate has ended, or does not count yet.
    Expired,
    /// The client's certificate is of no authority that this port knows.
    UnknownAuthority,
    /// TLS took the certificate, and the name in it is nobody's who may come in here.
    UnknownName,
    /// The client does not take our certificate.
    RefusedByClient,
    Timeout,
    /// The client went before it said anything wrong, as probes of load balancers do.
    Closed,
    Other,
}

// === impl Handshakes ===

impl Handshakes {
    /// They are also recorded there, each with the address of its client.
    pub fn recorded(audit: Audit) -> Self {
        Self { audit, ..Self::default() }
    }

    pub fn register(&self, registry: &mut Registry) {
        let help = "TLS handshakes that failed, by port and reason";
        registry.register("tls_handshake_failures", help, self.counts.clone());
    }

    /// The port is open. Its series exist before the first failure, so that an alert on their rate sees it.
    pub fn open(&self, port: &'static str) {
        for reason in Reason::ALL {
            drop(self.counts.get_or_create(&Labels { port, reason }));
        }
    }

    pub fn failed(&self, port: &'static str, reason: Reason, peer: Option<SocketAddr>) {
        self.counts.get_or_create(&Labels { port, reason }).inc();
        if reason != Reason::Closed {
            self.audit.record(Event::TlsRefused { port, reason: &format!("{reason:?}"), peer });
        }
    }
}

// === impl Reason ===

impl Reason {
    const ALL: [Self; 8] = [
        Self::NoCertificate,
        Self::Expired,
        Self::UnknownAuthority,
        Self::UnknownName,
        Self::RefusedByClient,
        Self::Timeout,
        Self::Closed,
        Self::Other,
    ];

    /// What ended a handshake.
    pub fn of(error: &io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        match error.get_ref().and_then(|error| error.downcast_ref()) {
            Some(rustls::Error::NoCertificatesPresented) => Self::NoCertificate,
            Some(rustls::Error::InvalidCertificate(error)) => Self::of_certificate(error),
            Some(rustls::Error::AlertReceived(alert)) => Self::of_alert(*alert),
            Some(_) => Self::Other,
            None if matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof) => {
                Self::Closed
            }
            None => Self::Other,
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::Expired,
            // An authority with the name of ours and another key is another one.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownAuthority,
            _ => Self::Other,
        }
    }

    fn of_alert(alert: AlertDescription) -> Self {
        use AlertDescription as Alert;
        match alert {
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::DecryptError => Self::RefusedByClient,
            _ => Self::Other,
        }
    }
}
