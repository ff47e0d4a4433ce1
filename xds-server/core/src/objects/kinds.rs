//! The kinds of objects, each with its name and its store. The list is here once, so that no kind is forgotten anywhere.

use std::borrow::Cow;
use std::fmt::Debug;

use gateway_api::apis::standard::gatewayclasses::GatewayClassSpec;

use super::references::RefersToContent;
use super::{
    BackendSlice, BackendTlsPolicy, ConfigMap, Consumer, Gateway, GrpcRoute, HttpRoute, InferencePool, ListenerSet,
    ModelBackend, ModelPool, Namespace, Objects, Pod, ProxyParameters, ReferenceGrant, RequestAuthentication, Secret,
    Service, Store, TlsRoute, TokenPolicy,
};

/// The type of the specification of a kind of object.
pub trait Kind: Clone + Debug + RefersToContent + 'static {
    const NAME: &'static str;

    fn store(objects: &Objects) -> &Store<Self>;

    fn store_mut(objects: &mut Objects) -> &mut Store<Self>;
}

/// Something that is done for each kind.
pub trait EachKind {
    fn kind<T: Kind>(&mut self);
}

macro_rules! kinds {
    ($($name:literal $spec:ty => $store:ident,)*) => {
        $(impl Kind for $spec {
            const NAME: &'static str = $name;

            fn store(objects: &Objects) -> &Store<Self> {
                &objects.$store
            }

            fn store_mut(objects: &mut Objects) -> &mut Store<Self> {
                &mut objects.$store
            }
        })*

        /// The names of all kinds.
        pub const NAMES: &[&str] = &[$($name),*];

        /// The name of a kind as a document has it. Those that are known take no memory.
        pub fn named(name: &str) -> Cow<'static, str> {
            match name {
                $($name => Cow::Borrowed($name),)*
                other => Cow::Owned(other.to_owned()),
            }
        }

        /// Goes through the kinds.
        pub fn each_kind(each: &mut impl EachKind) {
            $(each.kind::<$spec>();)*
        }
    };
}

kinds! {
    "GatewayClass" GatewayClassSpec => gateway_classes,
    "Gateway" Gateway => gateways,
    "ListenerSet" ListenerSet => listener_sets,
    "HTTPRoute" HttpRoute => http_routes,
    "GRPCRoute" GrpcRoute => grpc_routes,
    "TLSRoute" TlsRoute => tls_routes,
    "BackendTLSPolicy" BackendTlsPolicy => backend_tls_policies,
    "ReferenceGrant" ReferenceGrant => reference_grants,
    "Namespace" Namespace => namespaces,
    "Service" Service => services,
    "EndpointSlice" BackendSlice => endpoint_slices,
    "InferencePool" InferencePool => inference_pools,
    "Pod" Pod => pods,
    "Secret" Secret => secrets,
    "ConfigMap" ConfigMap => config_maps,
    "ModelPool" ModelPool => model_pools,
    "ModelBackend" ModelBackend => model_backends,
    "Consumer" Consumer => consumers,
    "TokenPolicy" TokenPolicy => token_policies,
    "ProxyParameters" ProxyParameters => proxy_parameters,
    "RequestAuthentication" RequestAuthentication => request_authentications,
}
