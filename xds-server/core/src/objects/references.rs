//! What an object refers to, as far as the source of the objects must know it.
//!
//! A cluster may have many Secrets, ConfigMaps and Pods that are nobody's business here. Those that are referred to, or
//! selected, are read, and no others. And it may have Gateways and routes of other controllers, which are not to be answered for.
//!
//! Whether a reference may be used is the business of `translate`. It needs the object only to say what is wrong.

use std::collections::BTreeMap;
use std::fmt;

use gateway_api::apis::standard::gateways::{GatewayListeners, GatewayListenersTlsCertificateRefs as CertificateRef};
use serde_json::{Map, Value};

use super::model_backend::Tls;
use super::{
    BackendSlice, BackendTlsPolicy, CONTROLLER_NAME, ConfigMap, Consumer, DEFAULT_CLASS, GATEWAY_GROUP, Gateway,
    GatewayClass, GrpcRoute, HttpRoute, InferencePool, Key, KeySource, Kind as _, ListenerSet, Meta, ModelBackend,
    ModelPool, Namespace, Object, Pod, ProxyParameters, ReferenceGrant, RequestAuthentication, Secret, SecretRef,
    Service, Store, TlsRoute, TokenPolicy, client_certificate, client_validations,
};

/// An object that is read only because something refers to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Needed {
    /// Secret or ConfigMap.
    pub kind: &'static str,
    pub key: Key,
}

/// Pods that are read only because something selects them: those of a namespace that have all of these labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selection {
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
}

/// A kind of object that may refer to Secrets and ConfigMaps, or select Pods.
pub trait RefersToContent: Sized {
    /// The Secrets, as often as they are named.
    fn secrets(object: &Object<Self>) -> Vec<Key>;

    /// The ConfigMaps, as often as they are named.
    fn config_maps(_: &Object<Self>) -> Vec<Key> {
        Vec::new()
    }

    /// Both.
    fn needs(object: &Object<Self>) -> Vec<Needed> {
        let secrets = Self::secrets(object).into_iter().map(Needed::secret);
        secrets.chain(Self::config_maps(object).into_iter().map(Needed::config_map)).collect()
    }

    /// The Pods that it selects.
    fn pods(_: &Object<Self>) -> Option<Selection> {
        None
    }

    /// The GatewayClass whose controller is the only one that acts on the references. None: there is no such thing.
    fn class(_: &Object<Self>) -> Option<&str> {
        None
    }
}

/// Whose an object is, as far as it says so itself. It is read apart from the rest, because an object that is refused
/// says it as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// Nobody else acts on its kind.
    Ours,
    /// A Gateway, by its class.
    OfClass(String),
    /// A route, by its Gateways.
    OfGateways(Vec<Key>),
}

macro_rules! refers_to_none {
    ($($spec:ty),*) => {
        $(impl RefersToContent for $spec {
            fn secrets(_: &Object<Self>) -> Vec<Key> {
                Vec::new()
            }
        })*
    };
}

refers_to_none!(
    GatewayClass,
    HttpRoute,
    GrpcRoute,
    TlsRoute,
    ReferenceGrant,
    Namespace,
    Service,
    BackendSlice,
    Pod,
    Secret,
    ConfigMap,
    ModelPool,
    TokenPolicy,
    ProxyParameters,
    RequestAuthentication
);

impl RefersToContent for Gateway {
    fn secrets(object: &Object<Self>) -> Vec<Key> {
        let client = client_certificate(&object.spec).and_then(|reference| secret(&object.meta, &reference));
        certificates(&object.meta, &object.spec.listeners).chain(client).collect()
    }

    fn config_maps(object: &Object<Self>) -> Vec<Key> {
        let references = client_validations(&object.spec).flat_map(|validation| validation.authorities);
        let references = references.filter(|reference| reference.group.is_empty() && reference.kind == ConfigMap::NAME);
        references.map(|reference| key(&object.meta, reference.namespace, reference.name)).collect()
    }

    fn class(object: &Object<Self>) -> Option<&str> {
        Some(&object.spec.gateway_class_name)
    }
}

impl RefersToContent for ListenerSet {
    fn secrets(object: &Object<Self>) -> Vec<Key> {
        certificates(&object.meta, &object.spec.listeners).collect()
    }
}

impl RefersToContent for BackendTlsPolicy {
    fn secrets(_: &Object<Self>) -> Vec<Key> {
        Vec::new()
    }

    fn config_maps(object: &Object<Self>) -> Vec<Key> {
        let references = object.spec.validation.ca_certificate_refs.iter().flatten();
        let references = references.filter(|reference| reference.group.is_empty() && reference.kind == ConfigMap::NAME);
        references.map(|reference| key(&object.meta, None, &reference.name)).collect()
    }
}

impl RefersToContent for InferencePool {
    fn secrets(_: &Object<Self>) -> Vec<Key> {
        Vec::new()
    }

    fn pods(object: &Object<Self>) -> Option<Selection> {
        Some(Selection { namespace: object.meta.namespace().to_owned(), labels: object.spec.labels.clone() })
    }
}

impl RefersToContent for ModelBackend {
    fn secrets(object: &Object<Self>) -> Vec<Key> {
        let ca = match &object.spec.tls {
            Tls::Simple { ca, .. } => ca.as_ref(),
            Tls::Default | Tls::None | Tls::Istio { .. } => None,
        };
        let credential = object.spec.credential.as_ref().map(|credential| &credential.secret);
        ca.into_iter().chain(credential).map(|reference| of(&object.meta, reference)).collect()
    }
}

impl RefersToContent for Consumer {
    fn secrets(object: &Object<Self>) -> Vec<Key> {
        let references = object.spec.keys.iter().filter_map(|consumer_key| match &consumer_key.source {
            KeySource::Secret(reference) => Some(reference),
            KeySource::Sha256(_) => None,
        });
        references.map(|reference| of(&object.meta, reference)).collect()
    }
}

fn certificates(from: &Meta, listeners: &[GatewayListeners]) -> impl Iterator<Item = Key> {
    let tls = listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let references = tls.flat_map(|tls| tls.certificate_refs.iter().flatten());
    references.filter_map(|reference| secret(from, reference))
}

/// None: it is no Secret.
fn secret(from: &Meta, reference: &CertificateRef) -> Option<Key> {
    let is_secret = reference.group.as_deref().unwrap_or_default().is_empty()
        && reference.kind.as_deref().unwrap_or("Secret") == "Secret";
    is_secret.then(|| key(from, reference.namespace.as_deref(), &reference.name))
}

fn of(from: &Meta, reference: &SecretRef) -> Key {
    key(from, reference.namespace.as_deref(), &reference.name)
}

fn key(from: &Meta, namespace: Option<&str>, name: &str) -> Key {
    Key::new(namespace.unwrap_or(from.namespace()), name)
}

/// Whether Gateways of this class are ours. The class `tollgate` is, unless an object says otherwise.
pub fn is_our_class(classes: &Store<GatewayClass>, class: &str) -> bool {
    match classes.get("", class) {
        Some(class) => class.spec.controller_name == CONTROLLER_NAME,
        None => class == DEFAULT_CLASS,
    }
}

// === impl Needed ===

impl Needed {
    pub fn secret(key: Key) -> Self {
        Self { kind: Secret::NAME, key }
    }

    pub fn config_map(key: Key) -> Self {
        Self { kind: ConfigMap::NAME, key }
    }

    /// Whether the objects of this kind are read only where something refers to them.
    pub fn is_kind(kind: &str) -> bool {
        [Secret::NAME, ConfigMap::NAME].contains(&kind)
    }
}

// === impl Selection ===

impl Selection {
    /// Whether the objects of this kind are read only where something selects them.
    pub fn is_kind(kind: &str) -> bool {
        kind == Pod::NAME
    }
}

impl fmt::Display for Selection {
    /// As the API server wants a selector.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<String> = self.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        f.write_str(&labels.join(","))
    }
}

// === impl Whose ===

impl Whose {
    pub fn of(kind: &str, namespace: &str, document: &Map<String, Value>) -> Self {
        let spec = document.get("spec");
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        match kind {
            "Gateway" => Self::OfClass(spec.and_then(|spec| text(spec, "gatewayClassName")).unwrap_or_default()),
            "ListenerSet" => {
                let parent = spec.and_then(|spec| spec.get("parentRef"));
                let gateway = parent.and_then(|parent| {
                    let namespace = text(parent, "namespace").unwrap_or_else(|| namespace.to_owned());
                    Some(Key::new(namespace, text(parent, "name")?))
                });
                Self::OfGateways(gateway.into_iter().collect())
            }
            "HTTPRoute" | "GRPCRoute" | "TLSRoute" => {
                let parents = spec.and_then(|spec| spec.get("parentRefs")).and_then(Value::as_array);
                let parents = parents.into_iter().flatten().filter(|parent| {
                    text(parent, "group").is_none_or(|group| group == GATEWAY_GROUP)
                        && text(parent, "kind").is_none_or(|kind| kind == "Gateway")
                });
                let gateways = parents.filter_map(|parent| {
                    let namespace = text(parent, "namespace").unwrap_or_else(|| namespace.to_owned());
                    Some(Key::new(namespace, text(parent, "name")?))
                });
                Self::OfGateways(gateways.collect())
            }
            _ => Self::Ours,
        }
    }
}
