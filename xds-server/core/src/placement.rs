//! Where proxies run, who programs them, and what follows from that for the translation.

use std::fmt;
use std::sync::Arc;

use crate::mesh::Mesh;
use crate::objects::Meta;
use crate::status::{Finding, Reason, Severity};
use crate::terms::Key;

/// Where the proxy of a Pod tells whether it is ready, and its metrics. No Service may have this port: an owner of Gateways
/// would open it to everybody.
pub const STATUS_PORT: u16 = 15021;

/// Whose proxies the objects are translated for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Placement {
    /// We program the proxies of Gateways. All Gateways are opened on the same addresses, and one Envoy may
    /// serve all of them.
    #[default]
    OneHost,
    /// We program the proxies of Gateways. Each Gateway has proxies of its own, and no proxy serves another one.
    ProxyPerGateway,
    /// We program the proxies of Gateways. In a cluster the same proxies serve all of them, behind the Service with this
    /// name, which has the ports that Gateways can have.
    OneFleet(Key),
    /// istiod programs the proxies: the sidecars of workloads. We configure the filter in them, in one direction.
    Sidecar(Direction),
}

/// What a translation is made for. It is given, and nothing changes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Setting {
    pub placement: Placement,
    /// None: the proxies of Gateways are outside of any mesh.
    pub mesh: Option<Arc<Mesh>>,
    pub sidecars: Sidecars,
}

/// Whether sidecars get a filter besides the proxies of Gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sidecars {
    #[default]
    None,
    /// Those of the workloads that policies name, for the requests to them, and those of the callers of pools, for their
    /// requests.
    Both,
}

/// Which requests a sidecar sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Those to its workload.
    Inbound,
    /// Those of its workload to others.
    Outbound,
}

/// What an object may ask for and does not get in every placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// `addresses` of a Gateway.
    Addresses,
    /// `infrastructure` of a Gateway.
    Infrastructure,
    /// `tls.mode: Istio` of a ModelBackend.
    IstioCertificates,
    /// `runners` of a ModelPool.
    Runners,
    /// `affinity: PromptPrefix` of a model.
    PromptAffinity,
    /// `sessionPersistence` of a rule that leads to a ModelPool.
    PoolSessions,
    /// `identities` of a Consumer.
    Identities,
    /// `claims` of a Consumer.
    JwtClaims,
    /// A Service as target of a TokenPolicy.
    ServiceTarget,
    /// `parentRefs` of a ModelPool.
    ParentServices,
}

/// What its author is told of a feature that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lack {
    pub severity: Severity,
    pub reason: Reason,
    pub message: &'static str,
    pub hint: &'static str,
}

// === impl Placement ===

impl Placement {
    /// Whether we program the proxies of Gateways. Otherwise no Gateway is ours.
    pub fn opens_gateways(&self) -> bool {
        matches!(self, Self::OneHost | Self::ProxyPerGateway | Self::OneFleet(_))
    }

    /// Whether a port belongs to one Gateway, because all are opened on the same addresses.
    pub fn shares_ports(&self) -> bool {
        self.shares_proxies()
    }

    /// Whether one Envoy may serve all Gateways. Then a cluster is the same for all of them, unless
    /// one shows a certificate to backends.
    pub fn shares_proxies(&self) -> bool {
        matches!(self, Self::OneHost | Self::OneFleet(_))
    }

    /// Whether no Gateway can have a port, because our Pods have another use for it.
    pub fn reserves(&self, port: u16) -> bool {
        matches!(self, Self::ProxyPerGateway | Self::OneFleet(_)) && port == STATUS_PORT
    }

    fn is_sidecar(&self) -> bool {
        matches!(self, Self::Sidecar(_))
    }
}

// === impl Setting ===

impl Setting {
    /// The direction of the workloads that get a filter for the policies that name them. None: there are none.
    pub fn opens_workloads(&self) -> Option<Direction> {
        match (&self.placement, self.sidecars) {
            (Placement::Sidecar(Direction::Inbound), _) => Some(Direction::Inbound),
            (Placement::Sidecar(Direction::Outbound), _) => None,
            (Placement::OneHost | Placement::ProxyPerGateway | Placement::OneFleet(_), Sidecars::Both) => {
                Some(Direction::Inbound)
            }
            (Placement::OneHost | Placement::ProxyPerGateway | Placement::OneFleet(_), Sidecars::None) => None,
        }
    }

    /// Whether the sidecars of callers get a filter.
    pub fn opens_frontends(&self) -> bool {
        match &self.placement {
            Placement::Sidecar(direction) => *direction == Direction::Outbound,
            Placement::OneHost | Placement::ProxyPerGateway | Placement::OneFleet(_) => self.sidecars == Sidecars::Both,
        }
    }

    /// None: the feature is there.
    pub fn lacks(&self, feature: Feature) -> Option<Lack> {
        let Self { placement, mesh, sidecars } = self;
        let is_there = match feature {
            Feature::IstioCertificates => placement.is_sidecar() || mesh.is_some(),
            Feature::Identities => placement.is_sidecar() || mesh.is_some(),
            Feature::ParentServices => self.opens_frontends(),
            // In sidecars Istio has JWTs verified. At our Gateways they are as far as a RequestAuthentication says so.
            Feature::JwtClaims | Feature::ServiceTarget => placement.is_sidecar() || *sidecars == Sidecars::Both,
            Feature::Addresses => matches!(placement, Placement::ProxyPerGateway | Placement::OneFleet(_)),
            Feature::Infrastructure => *placement == Placement::ProxyPerGateway,
            Feature::Runners | Feature::PromptAffinity | Feature::PoolSessions => false,
        };
        (!is_there).then(|| feature.lack())
    }
}

impl From<Placement> for Setting {
    fn from(placement: Placement) -> Self {
        Self { placement, ..Self::default() }
    }
}

// === impl Direction ===

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        })
    }
}

// === impl Feature ===

impl Feature {
    fn lack(self) -> Lack {
        let not_acted_on = |message, hint| Lack::new(Severity::Warning, Reason::NotActedOn, message, hint);
        match self {
            Self::Addresses => not_acted_on("not acted on", "addresses are set by --bind"),
            Self::Infrastructure => {
                not_acted_on("not acted on", "the proxies serve all Gateways and are set up where they are started")
            }
            // Without them requests would reach somebody else in the backend's place, so it is refused.
            Self::IstioCertificates => Lack::new(
                Severity::Error,
                Reason::UnsupportedValue,
                "the proxies have no certificates of a mesh",
                "start tollgate with --mesh-certificates, or do without the TLS of the mesh here",
            ),
            Self::Runners => {
                not_acted_on("Services do not become backends by their label yet", "list the models with their targets")
            }
            Self::PromptAffinity => not_acted_on("PromptPrefix is not acted on yet", "targets are chosen by weight"),
            Self::PoolSessions => not_acted_on(
                "a ModelPool keeps no session at one backend",
                "its targets are chosen by weight and priority",
            ),
            Self::Identities => not_acted_on(
                "the proxies are in no mesh, so nobody has an identity there",
                "start tollgate with --mesh-certificates, or give the consumer a key",
            ),
            Self::JwtClaims => not_acted_on(
                "no Gateway verifies JWTs of this issuer, so nobody is known by them",
                "name it in a RequestAuthentication for the Gateway, or give the consumer a key",
            ),
            Self::ServiceTarget => not_acted_on(
                "a Service as target has an effect in sidecars only",
                "start tollgate serve with --sidecars, or target the Gateway, HTTPRoute or ModelPool",
            ),
            Self::ParentServices => not_acted_on(
                "a Service as parent has an effect in sidecars only",
                "start tollgate serve with --sidecars, or have an HTTPRoute of a Gateway lead to the pool",
            ),
        }
    }
}

// === impl Lack ===

impl Lack {
    fn new(severity: Severity, reason: Reason, message: &'static str, hint: &'static str) -> Self {
        Self { severity, reason, message, hint }
    }

    /// What is said of the object that asks for it in this field.
    pub fn finding(self, meta: &Meta, field: impl fmt::Display) -> Finding {
        meta.finding(self.severity, self.reason, field, self.message, self.hint)
    }
}
