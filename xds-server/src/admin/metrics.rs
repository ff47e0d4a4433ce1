//! Metrics of the control plane, in the text format of Prometheus.

/// What the stages count; clones count into the same. The other figures of `/metrics` come from
/// `Status` and from the ledger when they are asked for.
#[derive(Debug, Clone, Default)]
pub struct Metrics {}

// === impl Metrics ===

impl Metrics {
    /// An Envoy of `gateway` (`namespace/name`) refused a resource of this kind (`Listener`, ...).
    pub fn nack(&self, _gateway: &str, _kind: &'static str) {}

    /// New input was read and taken over.
    pub fn reload_taken(&self) {}

    /// New input could not be used; the last good state stays.
    pub fn reload_refused(&self) {}
}
