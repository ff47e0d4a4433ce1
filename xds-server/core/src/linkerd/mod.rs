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
