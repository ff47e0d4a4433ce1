//! Where a collector of OpenTelemetry is, for those who send it spans and for those who let them through.

/// The place where a collector of OpenTelemetry takes OTLP over gRPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    /// A name or an address. An address of IPv6 stands without brackets.
    pub host: String,
    pub port: u16,
    pub security: Security,
}

/// How connections to the collector are secured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Security {
    None,
    /// TLS. Its certificate is of an authority that the Envoy's machine trusts.
    SystemAuthorities,
    /// TLS. Its certificate is of one of these (PEM).
    Authorities(String),
}
