//! Metrics of the control plane, in the text format of OpenMetrics.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use prometheus_client::registry::Registry;
use tollgate_core::status::Severity;

use super::Status;
use crate::audit::Audit;
use crate::handshakes::Handshakes;

/// What the stages count. Clones count into the same counters. The other figures of `/metrics` come from `Status` and
/// from the ledger when they are asked for.
#[derive(Debug, Clone)]
pub struct Metrics {
    registries: Arc<Mutex<Registries>>,
    nacks: Family<NackLabels, Counter>,
    reloads: Family<ReloadLabels, Counter>,
    certificates: Certificates,
    authorities: Family<ReloadLabels, Counter>,
    handshakes: Handshakes,
    audit: Audit,
    watches: Watches,
    keys: Keys,
    from_status: FromStatus,
}

/// Of the keys of all Consumers. Their names are on no public port.
#[derive(Debug, Clone, Default)]
struct Keys {
    expiring: Gauge,
    expired: Gauge,
}

/// When certificates end: those of the control plane, or that of a proxy. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Certificates {
    ends: Family<CertificateLabels, Gauge>,
    lifetimes: Family<CertificateLabels, Gauge>,
}

/// Of the watches of a cluster, by kind.
#[derive(Debug, Clone, Default)]
struct Watches {
    lists: Family<KindLabels, Counter>,
    failures: Family<KindLabels, Counter>,
    synced: Family<KindLabels, Gauge>,
}

/// Whether metrics name consumers. Names of consumers are names of customers or people, and a port for scrapers is open
/// to the whole network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consumers {
    Named,
    LeftOut,
}

/// Two registries with the same metrics, most of them under our prefix. Only `named` names consumers.
#[derive(Debug)]
struct Registries {
    named: Registry,
    left_out: Registry,
}

/// Figures from the status. They are set anew for each scrape.
#[derive(Debug, Clone, Default)]
struct FromStatus {
    ready: Gauge,
    generation: Gauge<u64, AtomicU64>,
    findings: Family<FindingLabels, Gauge>,
    programmed: Family<GatewayLabels, Gauge>,
    connected: Family<GatewayLabels, Gauge>,
    out_of_sync: Family<GatewayLabels, Gauge>,
    refused: Family<GatewayLabels, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GatewayLabels {
    gateway: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NackLabels {
    gateway: String,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    result: ReloadResult,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum ReloadResult {
    Taken,
    Refused,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabels {
    certificate: Certificate,
}

/// A certificate whose end is a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Certificate {
    Ca,
    Server,
    /// Of the Envoys' certificates that are kept here, the one that ends first.
    Envoy,
    /// Of the mesh, for the port of sidecars.
    Sidecars,
    /// Of the proxy that says it.
    Proxy,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FindingLabels {
    severity: FindingSeverity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum FindingSeverity {
    Error,
    Warning,
}

// === impl Metrics ===

impl Metrics {
    /// The media type of [`Self::text`].
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// An Envoy of `gateway` (`namespace/name`) refused a resource of this kind (`Listener`, ...).
    pub fn nack(&self, gateway: &str, kind: &'static str) {
        self.nacks.get_or_create(&NackLabels { gateway: gateway.to_owned(), kind }).inc();
    }

    /// New input was read and taken over.
    pub fn reload_taken(&self) {
        self.reloads.get_or_create(&ReloadLabels { result: ReloadResult::Taken }).inc();
    }

    /// New input could not be used; the last good state stays.
    pub fn reload_refused(&self) {
        self.reloads.get_or_create(&ReloadLabels { result: ReloadResult::Refused }).inc();
    }

    /// This certificate counts from one time to another.
    pub fn certificate(&self, certificate: Certificate, from: Timestamp, until: Timestamp) {
        self.certificates.count(certificate, from, until);
    }

    /// Where handshakes are counted that failed.
    pub fn handshakes(&self) -> &Handshakes {
        &self.handshakes
    }

    /// Somebody else's CA took the place of the one before.
    pub fn authority_taken(&self) {
        self.authorities.get_or_create(&ReloadLabels { result: ReloadResult::Taken }).inc();
    }

    /// Somebody else's CA could not be used, or not be read; the last good one stays.
    pub fn authority_refused(&self) {
        self.authorities.get_or_create(&ReloadLabels { result: ReloadResult::Refused }).inc();
    }

    /// So many keys end soon, and so many have ended and are still listed.
    pub fn keys(&self, expiring: usize, expired: usize) {
        self.keys.expiring.set(gauge(expiring));
        self.keys.expired.set(gauge(expired));
    }

    /// There is a watch of this kind. Its series exist before the first event.
    pub fn watch(&self, kind: &'static str) {
        drop(self.watches.lists.get_or_create(&KindLabels { kind }));
        drop(self.watches.failures.get_or_create(&KindLabels { kind }));
        drop(self.watches.synced.get_or_create(&KindLabels { kind }));
    }

    /// All objects of the kind are listed, at the start or because the watch has a gap.
    pub fn watch_lists(&self, kind: &'static str) {
        self.watches.lists.get_or_create(&KindLabels { kind }).inc();
    }

    /// A watch of the kind ended with an error, or could not begin.
    pub fn watch_fails(&self, kind: &'static str) {
        self.watches.failures.get_or_create(&KindLabels { kind }).inc();
    }

    /// Whether a change of an object of the kind would be heard of now.
    pub fn watch_synced(&self, kind: &'static str, synced: bool) {
        self.watches.synced.get_or_create(&KindLabels { kind }).set(i64::from(synced));
    }

    /// The API server has no such kind, or may keep it from us: there is nothing to hear of.
    pub fn watch_not_there(&self, kind: &'static str) {
        self.watches.synced.remove(&KindLabels { kind });
    }

    /// Those of a control plane that keeps an audit log.
    pub fn with(audit: Audit) -> Self {
        let metrics = Self::of(Handshakes::recorded(audit.clone()), audit.clone());
        if audit.is_on() {
            metrics.add(move |registry, _| audit.register(registry));
        }
        metrics
    }

    /// Where it is recorded what happens.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Serves another stage's metrics together with these. `register` is called once for each registry.
    pub fn add(&self, register: impl Fn(&mut Registry, Consumers)) {
        let mut registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        register(ours(&mut registries.named), Consumers::Named);
        register(ours(&mut registries.left_out), Consumers::LeftOut);
    }

    /// The same with metrics whose names are those of a convention, and so without our prefix.
    pub fn add_of_convention(&self, register: impl Fn(&mut Registry, Consumers)) {
        let mut registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        register(&mut registries.named, Consumers::Named);
        register(&mut registries.left_out, Consumers::LeftOut);
    }

    /// All figures, with those of this status.
    ///
    /// # Errors
    /// When a metric cannot be written as text.
    pub fn text(&self, status: &Status, consumers: Consumers) -> Result<String, fmt::Error> {
        // The lock is held from setting to encoding, so that two scrapes do not mix.
        let registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        self.from_status.set(status);
        let mut text = String::new();
        let registry = match consumers {
            Consumers::Named => &registries.named,
            Consumers::LeftOut => &registries.left_out,
        };
        text::encode(&mut text, registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::with(Audit::default())
    }
}

impl Metrics {
    fn of(handshakes: Handshakes, audit: Audit) -> Self {
        let (nacks, reloads, from_status) = (Family::default(), Family::default(), FromStatus::default());
        let (certificates, watches, keys) = (Certificates::default(), Watches::default(), Keys::default());
        let authorities: Family<ReloadLabels, Counter> = Family::default();
        let of_authorities = "Looks at somebody else's CA that found a new one, by what became of it";
        let registry = || {
            let mut all = Registry::default();
            let registry = ours(&mut all);
            registry.register("nacks", "Resources that an Envoy refused, by gateway and kind", Family::clone(&nacks));
            registry.register("reloads", "Changes of the input, by what became of them", Family::clone(&reloads));
            certificates.register(registry);
            registry.register("authority_reloads", of_authorities, Family::clone(&authorities));
            handshakes.register(registry);
            watches.register(registry);
            keys.register(registry);
            from_status.register(registry);
            all
        };
        let registries = Arc::new(Mutex::new(Registries { named: registry(), left_out: registry() }));
        let metrics = Self {
            registries,
            nacks,
            reloads,
            certificates,
            authorities,
            handshakes,
            audit,
            watches,
            keys,
            from_status,
        };
        // Both series exist before the first event, so that an alert on their rate sees it.
        for result in [ReloadResult::Taken, ReloadResult::Refused] {
            drop(metrics.reloads.get_or_create(&ReloadLabels { result }));
            drop(metrics.authorities.get_or_create(&ReloadLabels { result }));
        }
        metrics
    }
}

// === impl Certificate ===

impl EncodeLabelValue for Certificate {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        let name = match self {
            Self::Ca => "ca",
            Self::Server => "server",
            Self::Envoy => "envoy",
            Self::Sidecars => "sidecars",
            Self::Proxy => "proxy",
        };
        EncodeLabelValue::encode(&name, encoder)
    }
}

// === impl Certificates ===

impl Certificates {
    /// This certificate counts from one time to another.
    pub fn count(&self, certificate: Certificate, from: Timestamp, until: Timestamp) {
        let labels = CertificateLabels { certificate };
        self.ends.get_or_create(&labels).set(until.as_second());
        self.lifetimes.get_or_create(&labels).set(until.as_second().saturating_sub(from.as_second()));
    }

    /// Lines that may follow those of others, in the older text format as well.
    ///
    /// # Errors
    /// When a metric cannot be written as text.
    pub fn lines(&self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        self.register(ours(&mut registry));
        let mut lines = String::new();
        text::encode_registry(&mut lines, &registry)?;
        Ok(lines)
    }

    fn register(&self, registry: &mut Registry) {
        let (ends, lifetimes) = ("When a certificate ends, in seconds since 1970", "How long a certificate counts");
        registry.register("certificate_expiry_seconds", ends, self.ends.clone());
        registry.register("certificate_lifetime_seconds", lifetimes, self.lifetimes.clone());
    }
}

// === impl Watches ===

impl Watches {
    fn register(&self, registry: &mut Registry) {
        let (lists, failures) =
            ("Lists of a kind, the first one included", "Watches that ended with an error, by kind");
        registry.register("watch_lists", lists, self.lists.clone());
        registry.register("watch_failures", failures, self.failures.clone());
        registry.register(
            "watch_synced",
            "1 while changes of a kind are heard of; absent if the API server has no such kind, or need not show it",
            self.synced.clone(),
        );
    }
}

// === impl Keys ===

impl Keys {
    fn register(&self, registry: &mut Registry) {
        let (expiring, expired) =
            ("Keys that end soon (--key-expiry-warning)", "Keys that have ended and are still listed");
        registry.register("consumer_keys_expiring", expiring, self.expiring.clone());
        registry.register("consumer_keys_expired", expired, self.expired.clone());
    }
}

// === impl FromStatus ===

impl FromStatus {
    fn register(&self, registry: &mut Registry) {
        registry.register("ready", "1 when /readyz says so", self.ready.clone());
        registry.register("snapshot_generation", "Snapshots published so far", self.generation.clone());
        registry.register("findings", "What is wrong with the input now, by severity", self.findings.clone());
        registry.register("gateway_programmed", "1 when an Envoy has accepted the Gateway", self.programmed.clone());
        registry.register("proxies_connected", "Envoys connected, by gateway", self.connected.clone());
        let out_of_sync = "Connected Envoys that have not taken the present configuration";
        registry.register("proxies_out_of_sync", out_of_sync, self.out_of_sync.clone());
        registry.register("resources_refused", "Resources that connected Envoys refuse now", self.refused.clone());
    }

    fn set(&self, status: &Status) {
        self.ready.set(i64::from(status.ready));
        self.generation.set(status.generation);
        for (severity, label) in
            [(Severity::Error, FindingSeverity::Error), (Severity::Warning, FindingSeverity::Warning)]
        {
            let count = status.findings.iter().filter(|finding| finding.severity == severity).count();
            self.findings.get_or_create(&FindingLabels { severity: label }).set(gauge(count));
        }
        // Gateways that are gone leave no series behind.
        self.programmed.clear();
        self.connected.clear();
        self.out_of_sync.clear();
        self.refused.clear();
        for gateway in &status.gateways {
            let labels = GatewayLabels { gateway: gateway.name.clone() };
            let connected: Vec<_> = gateway.proxies.iter().filter(|proxy| proxy.connected).collect();
            self.programmed.get_or_create(&labels).set(i64::from(gateway.programmed));
            self.connected.get_or_create(&labels).set(gauge(connected.len()));
            let behind = connected.iter().filter(|proxy| !proxy.acked);
            self.out_of_sync.get_or_create(&labels).set(gauge(behind.count()));
            self.refused.get_or_create(&labels).set(gauge(connected.iter().map(|proxy| proxy.nacks.len()).sum()));
        }
    }
}

/// Where metrics have our prefix.
fn ours(registry: &mut Registry) -> &mut Registry {
    registry.sub_registry_with_prefix("tollgate")
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
