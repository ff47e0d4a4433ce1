//! Linkerd: what puts its proxy into Pods, and the objects that hold its mesh to what Tollgate is for.
//!
//! Its proxy stands in the Pod beside our Envoy and takes every connection of the Pod. It makes the mutual TLS, so nothing is
//! translated in another way. Our Envoy sees plain text from it, and so it knows nobody by a certificate.

mod policies;

pub use policies::{InvalidPort, Policies, Port};

/// What has Linkerd put its proxy into a Pod: an annotation. It is never `ingress`: with that the proxy would go wherever a
/// header of the client says (`l5d-dst-override`).
pub const INJECTED: (&str, &str) = ("linkerd.io/inject", "enabled");
/// The annotation with the ports of others that the proxy leaves alone.
pub const SKIPPED: &str = "config.linkerd.io/skip-outbound-ports";
/// The annotation of how much its proxy says of itself.
const LOG_LEVEL: &str = "config.linkerd.io/proxy-log-level";
/// The annotation of how it writes requests down.
const ACCESS_LOG: &str = "config.linkerd.io/access-log";

/// What its proxy writes down in a Pod. None: as Linkerd itself is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Logs {
    /// As `warn,linkerd=info`.
    pub level: Option<String>,
    pub access: Option<AccessLog>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLog {
    Json,
    Apache,
}

// === impl Logs ===

impl Logs {
    /// What says so in a Pod.
    pub fn annotations(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let level = self.level.as_deref().map(|level| (LOG_LEVEL, level));
        level.into_iter().chain(self.access.map(|format| (ACCESS_LOG, format.name())))
    }
}

// === impl AccessLog ===

impl AccessLog {
    fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Apache => "apache",
        }
    }
}
