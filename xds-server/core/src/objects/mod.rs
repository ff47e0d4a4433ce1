//! Objects: what users wrote, each valid in itself.
//!
//! ```text
//! text -> document (YAML with lines) -> read: decode (typed, strict) -> one module per kind (its own rules) -> Objects
//! watch event of a cluster ------------> read: decode (lenient) ------> the same, and parts ------------> Cluster
//! ```
//! References between objects are the business of `translate`.

mod backend_tls_policy;
mod changes;
mod check;
mod cluster;
#[cfg(test)]
pub(crate) mod cluster_test;
mod config_map;
mod consumer;
mod decode;
mod edits;
mod expression;
mod frontend;
mod grpc_route;
mod http_route;
mod inference_pool;
mod jwt_claims;
pub mod key_list;
pub(crate) mod kinds;
#[cfg(test)]
mod lenient_test;
mod lines;
mod listener_set;
mod model_backend;
mod model_pool;
mod namespaces;
mod parts;
mod pod;
mod provenance;
mod proxy_parameters;
pub(crate) mod read;
mod reader;
mod references;
pub(crate) mod refused_policy;
mod request_authentication;
mod route_rule;
#[cfg(feature = "schema")]
pub mod schema;
mod secret;
mod secret_ref;
mod source;
mod standard;
mod store;
mod tls_route;
mod token_policy;

pub use backend_tls_policy::{BackendTlsPolicy, SYSTEM};
pub use changes::{Changes, Refused, Replaced};
pub use cluster::{Cluster, NotAnObject};
pub use config_map::ConfigMap;
pub use consumer::{ANONYMOUS, Consumer, ConsumerKey, KeySource, hash_name};
pub use decode::closest;
pub use edits::{Edit, Version};
pub use frontend::{AuthorityRef, ClientValidation, client_validation, client_validations};
pub use grpc_route::{GrpcMethod, GrpcRoute};
pub use http_route::HttpRoute;
pub use inference_pool::{AppProtocol, INFERENCE_GROUP, InferencePool, OnPickerFailure, PickerRef};
pub use jwt_claims::JwtClaims;
pub use kinds::Kind;
pub(crate) use kinds::{EachKind, each_kind};
pub use lines::Lines;
pub(crate) use lines::Offsets;
pub use listener_set::{ListenerSet, gateway_of};
pub use model_backend::{Credential, Endpoint, ModelBackend, Schema, Timeouts, Tls};
pub use model_pool::{Access, Affinity, Model, ModelPool, ParentService, Target};
pub use namespaces::{LabelSelector, Namespaces, Operator, Requirement};
pub use parts::RefusedParts;
pub use pod::Pod;
pub use provenance::{ClusterVersion, FileVersion, Provenance};
pub use proxy_parameters::{ProxyParameters, ProxyReplicas, ProxyResources, ProxyService};
pub use read::{Place, places};
pub use references::{Needed, Selection};
pub use refused_policy::{Names, RefusedPolicy};
pub use request_authentication::{JwtRule, RequestAuthentication, SECURITY_GROUP};
pub use route_rule::{RouteFilter, RouteRule};
pub use secret::{NoSecretSource, Secret, SecretSource};
pub use secret_ref::SecretRef;
pub use source::{KeptDocument, Source};
pub use standard::{BackendSlice, Gateway, Namespace, ReferenceGrant, Service, client_certificate};
pub use store::{Meta, Object, Store};
pub use tls_route::TlsRoute;
pub use token_policy::{PolicyTarget, TargetKind, TokenPolicy, TokenPolicyLimit};

use std::collections::{BTreeMap, BTreeSet};

pub use gateway_api::apis::standard::gatewayclasses::GatewayClassSpec as GatewayClass;

use crate::status::Origin;
pub use crate::terms::Key;
pub use crate::terms::duration::{self, parse as parse_duration};
pub use crate::terms::names::{is_dns_label, is_dns_subdomain, is_wildcard_hostname};
pub use crate::terms::redact::{self, Shown, plain};

/// The controller name of our GatewayClasses.
pub const CONTROLLER_NAME: &str = "tollgate.dev/gateway-controller";
/// The GatewayClass that exists by itself in files.
pub const DEFAULT_CLASS: &str = "tollgate";
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
/// What to do about a version that stays in force.
pub(crate) const LAST_GOOD_HINT: &str = "until it is mended or removed";
pub const TOLLGATE_GROUP: &str = "tollgate.dev";
/// The kinds of [`TOLLGATE_GROUP`].
const KINDS: [&str; 5] = ["ModelPool", "ModelBackend", "Consumer", "TokenPolicy", "ProxyParameters"];

/// Every object that is known, valid in itself. References between objects are checked by `translate`.
#[derive(Debug, Default, Clone)]
pub struct Objects {
    pub gateway_classes: Store<GatewayClass>,
    pub gateways: Store<Gateway>,
    pub listener_sets: Store<ListenerSet>,
    pub http_routes: Store<HttpRoute>,
    pub grpc_routes: Store<GrpcRoute>,
    pub tls_routes: Store<TlsRoute>,
    pub backend_tls_policies: Store<BackendTlsPolicy>,
    pub reference_grants: Store<ReferenceGrant>,
    pub namespaces: Store<Namespace>,
    pub services: Store<Service>,
    pub endpoint_slices: Store<BackendSlice>,
    pub inference_pools: Store<InferencePool>,
    pub pods: Store<Pod>,
    pub secrets: Store<Secret>,
    pub config_maps: Store<ConfigMap>,
    pub model_pools: Store<ModelPool>,
    pub model_backends: Store<ModelBackend>,
    pub consumers: Store<Consumer>,
    pub token_policies: Store<TokenPolicy>,
    pub proxy_parameters: Store<ProxyParameters>,
    pub request_authentications: Store<RequestAuthentication>,
    /// Objects that were given but not taken, so that a reference to one can say so. Each has its generation, if there
    /// is such a thing where it comes from.
    pub refused: BTreeMap<Origin, Option<i64>>,
    /// The TokenPolicies among them, and what may be one. They close what they name.
    pub refused_policies: Vec<RefusedPolicy>,
    /// Files that could be read as YAML, now or before.
    pub files: BTreeSet<String>,
}
