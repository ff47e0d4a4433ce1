//! The status of an object, in the fields that it has in Kubernetes.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{BackendCount, Conditions, KeyEnd, Membership, Spent, UsedBy};

/// The kinds of objects that have a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum StatusKind {
    GatewayClass,
    Gateway,
    ListenerSet,
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    #[serde(rename = "GRPCRoute")]
    GrpcRoute,
    #[serde(rename = "TLSRoute")]
    TlsRoute,
    #[serde(rename = "BackendTLSPolicy")]
    BackendTlsPolicy,
    InferencePool,
    ModelPool,
    ModelBackend,
    Consumer,
    TokenPolicy,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObjectStatus {
    pub kind: StatusKind,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    pub name: String,
    #[serde(flatten)]
    pub brief: Brief,
    #[serde(flatten)]
    pub status: Status,
}

/// What a table shows of an object besides its status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Brief {
    GatewayClass {
        controller: String,
        /// Whether each Gateway has proxies of its own, with ports, addresses and an infrastructure of its own.
        #[serde(skip)]
        has_own_proxies: bool,
    },
    Gateway {
        class: String,
    },
    ListenerSet {
        /// `namespace/name`.
        gateway: String,
    },
    Route {
        hostnames: Vec<String>,
    },
    BackendTlsPolicy {
        targets: Vec<String>,
    },
    InferencePool {
        /// Who picks an endpoint. None: the gateway chooses.
        #[serde(skip_serializing_if = "Option::is_none")]
        picker: Option<String>,
    },
    ModelPool {
        models: Vec<String>,
    },
    ModelBackend {
        endpoint: String,
    },
    Consumer {
        /// How many of its keys count.
        keys: usize,
        #[serde(skip)]
        ends: Vec<KeyEnd>,
    },
    TokenPolicy {
        targets: Vec<String>,
        /// The Pods of each Service that it is for.
        #[serde(skip)]
        pods: BTreeMap<String, BTreeMap<String, Membership>>,
    },
    /// The object is refused, and nothing of it is known.
    Refused {},
}

/// A field that a kind does not have is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The generation that it is about. Kubernetes has it in each condition.
    #[serde(skip)]
    pub generation: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Address>,
    #[serde(skip_serializing_if = "Conditions::is_empty")]
    pub conditions: Conditions,
    /// Of a Consumer: when a request of it was settled last, in RFC 3339.
    #[serde(rename = "lastUsed", skip_serializing_if = "Option::is_none")]
    pub last_used: Option<String>,
    /// Of a Consumer that has spent anything today.
    #[serde(rename = "spentToday", skip_serializing_if = "Option::is_none")]
    pub spent_today: Option<Spent>,
    /// Of a ModelPool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backends: Option<BackendCount>,
    /// Of a ModelPool, a ModelBackend or a Consumer.
    #[serde(rename = "usedBy", skip_serializing_if = "Option::is_none")]
    pub used_by: Option<UsedBy>,
    /// Of a Gateway: how many ListenerSets are attached to it.
    #[serde(rename = "attachedListenerSets", skip_serializing_if = "is_zero")]
    pub attached_listener_sets: usize,
    /// Of a Gateway or a ListenerSet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listeners: Option<Vec<ListenerStatus>>,
    /// Of a route, or of an InferencePool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parents: Option<Vec<ParentStatus>>,
    /// Of a policy (GEP-713).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ancestors: Option<Vec<AncestorStatus>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Address {
    #[serde(rename = "type")]
    pub kind: AddressKind,
    pub value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum AddressKind {
    IPAddress,
    Hostname,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    pub name: String,
    /// How many routes are attached to it.
    pub attached_routes: usize,
    pub supported_kinds: Vec<RouteKind>,
    pub conditions: Conditions,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteKind {
    pub group: &'static str,
    pub kind: StatusKind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentStatus {
    pub parent_ref: ObjectRef,
    pub controller_name: &'static str,
    pub conditions: Conditions,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AncestorStatus {
    pub ancestor_ref: ObjectRef,
    pub controller_name: &'static str,
    pub conditions: Conditions,
}

// === impl AncestorStatus ===

impl AncestorStatus {
    /// Whether the policy has a Service as this target.
    pub fn is_of_service(&self) -> bool {
        let ObjectRef { group, kind, .. } = &self.ancestor_ref;
        (group.as_deref(), kind.as_deref()) == (Some(""), Some("Service"))
    }
}

/// A reference, as the object has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

// === impl StatusKind ===

impl StatusKind {
    pub const ALL: [Self; 12] = [
        Self::GatewayClass,
        Self::Gateway,
        Self::ListenerSet,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::TlsRoute,
        Self::BackendTlsPolicy,
        Self::InferencePool,
        Self::ModelPool,
        Self::ModelBackend,
        Self::Consumer,
        Self::TokenPolicy,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::GatewayClass => "GatewayClass",
            Self::Gateway => "Gateway",
            Self::ListenerSet => "ListenerSet",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::TlsRoute => "TLSRoute",
            Self::BackendTlsPolicy => "BackendTLSPolicy",
            Self::InferencePool => "InferencePool",
            Self::ModelPool => "ModelPool",
            Self::ModelBackend => "ModelBackend",
            Self::Consumer => "Consumer",
            Self::TokenPolicy => "TokenPolicy",
        }
    }

    /// Whether its status is at its parents, and nowhere else.
    pub fn has_parents(self) -> bool {
        matches!(self, Self::HttpRoute | Self::GrpcRoute | Self::TlsRoute | Self::InferencePool)
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

// === impl Status ===

impl Status {
    /// Notes in each condition which generation it is about.
    #[must_use]
    pub(crate) fn observed(mut self) -> Self {
        self.observe();
        self
    }

    pub(crate) fn observe(&mut self) {
        let listeners = self.listeners.iter_mut().flatten().map(|listener| &mut listener.conditions);
        let parents = self.parents.iter_mut().flatten().map(|parent| &mut parent.conditions);
        let ancestors = self.ancestors.iter_mut().flatten().map(|ancestor| &mut ancestor.conditions);
        let all = [&mut self.conditions].into_iter().chain(listeners).chain(parents).chain(ancestors);
        all.for_each(|conditions| conditions.observe(self.generation));
    }

    /// The conditions that are about the object as such: at each parent or ancestor, or on the object itself.
    pub(crate) fn each_own(&mut self, mut each: impl FnMut(&mut Conditions)) {
        match (&mut self.parents, &mut self.ancestors) {
            (Some(parents), _) if !parents.is_empty() => {
                parents.iter_mut().for_each(|parent| each(&mut parent.conditions));
            }
            (_, Some(ancestors)) if !ancestors.is_empty() => {
                ancestors.iter_mut().for_each(|ancestor| each(&mut ancestor.conditions));
            }
            _ => each(&mut self.conditions),
        }
    }
}
