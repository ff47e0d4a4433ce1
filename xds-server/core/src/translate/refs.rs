//! References between objects: whether they may cross namespaces, and what to say when they lead nowhere.

use crate::objects::{Kind, Meta, Secret, SecretRef, Shown, plain};
use crate::status::{Finding, Origin, Reason, Severity};

use crate::ir::SecretText;

use super::view::View;

/// Group and kind, as a ReferenceGrant names them.
pub type GroupKind = (&'static str, &'static str);

pub const GATEWAY: GroupKind = ("gateway.networking.k8s.io", "Gateway");
pub const LISTENER_SET: GroupKind = ("gateway.networking.k8s.io", "ListenerSet");
pub const HTTP_ROUTE: GroupKind = ("gateway.networking.k8s.io", "HTTPRoute");
pub const GRPC_ROUTE: GroupKind = ("gateway.networking.k8s.io", "GRPCRoute");
pub const TLS_ROUTE: GroupKind = ("gateway.networking.k8s.io", "TLSRoute");
pub const MODEL_POOL: GroupKind = ("tollgate.dev", "ModelPool");
pub const MODEL_BACKEND: GroupKind = ("tollgate.dev", "ModelBackend");
pub const CONSUMER: GroupKind = ("tollgate.dev", "Consumer");
pub const SERVICE: GroupKind = ("", "Service");
pub const INFERENCE_POOL: GroupKind = ("inference.networking.k8s.io", "InferencePool");
pub const CONFIG_MAP: GroupKind = ("", "ConfigMap");
pub const SECRET: GroupKind = ("", "Secret");

/// One reference on its way to its object.
#[derive(Debug, Clone, Copy)]
pub struct Reference<'a> {
    pub from: &'a Meta,
    pub from_kind: GroupKind,
    pub to_kind: GroupKind,
    pub namespace: &'a str,
    pub name: &'a str,
    /// Where the reference stands in `from`.
    pub field: &'a str,
}

// === impl Reference ===

impl Reference<'_> {
    /// A reference within a namespace is always permitted. One across namespaces is permitted if a ReferenceGrant in
    /// the target's namespace says so.
    pub fn is_permitted(&self, view: View<'_>) -> bool {
        self.namespace == self.from.namespace()
            || view.grants(self.namespace).any(|grant| {
                grant.spec.from.iter().any(|from| {
                    (from.group.as_str(), from.kind.as_str()) == self.from_kind
                        && from.namespace == self.from.namespace()
                }) && grant.spec.to.iter().any(|to| {
                    (to.group.as_str(), to.kind.as_str()) == self.to_kind
                        && to.name.as_deref().is_none_or(|name| name == self.name)
                })
            })
    }

    /// What the reference leads to, as a text for people. Names in references have not been checked before.
    pub fn target(&self) -> String {
        let (_, kind) = self.to_kind;
        format!("{kind} {}/{}", plain(self.namespace), plain(self.name))
    }

    pub fn not_permitted(&self) -> Finding {
        let (_, kind) = self.to_kind;
        let (_, from) = self.from_kind;
        self.finding(
            Reason::RefNotPermitted,
            &format!("{} may not be used from namespace {}", self.target(), self.from.namespace()),
            &format!("a ReferenceGrant in {} from {from} to {kind} would permit it", plain(self.namespace)),
        )
    }

    pub fn not_found<T: Kind>(&self, reason: Reason, view: View<'_>) -> Finding {
        let (_, kind) = self.to_kind;
        let message = format!("{} does not exist", self.target());
        if view.is_refused(&Origin::new(kind, self.namespace, self.name)) {
            return self.finding(reason, &format!("{} is refused", self.target()), "see the findings on it");
        }
        let here = view.names::<T>(self.namespace);
        let hint = match crate::objects::closest(self.name, &here) {
            Some(near) => format!("did you mean `{near}`?"),
            None => view
                .elsewhere::<T>(self.name)
                .map_or_else(String::new, |namespace| format!("there is one in namespace {namespace}")),
        };
        self.finding(reason, &message, &hint)
    }

    pub fn finding(&self, reason: Reason, message: &str, hint: &str) -> Finding {
        self.from.finding(Severity::Error, reason, self.field, message, hint)
    }
}

/// The value of a key of a Secret, if it may be read, is there and is not empty.
pub fn secret_value(
    view: View<'_>,
    from: &Meta,
    from_kind: GroupKind,
    secret: &SecretRef,
    field: &str,
) -> Result<(Origin, SecretText), Finding> {
    let namespace = secret.namespace.as_deref().unwrap_or(from.namespace());
    let reference = Reference { from, from_kind, to_kind: SECRET, namespace, name: &secret.name, field };
    if !reference.is_permitted(view) {
        return Err(reference.not_permitted());
    }
    let Some(object) = view.object::<Secret>(namespace, &secret.name) else {
        return Err(reference.not_found::<Secret>(Reason::SecretNotFound, view));
    };
    match object.spec.values.get(&secret.key) {
        Some(value) if !value.expose().is_empty() => Ok((object.meta.origin.clone(), value.clone())),
        Some(_) => Err(reference.finding(
            Reason::InvalidSecret,
            &format!("key {} of {} is empty", Shown(&secret.key), reference.target()),
            "",
        )),
        None => {
            let keys: Vec<String> = object.spec.values.keys().map(|key| plain(key)).collect();
            let hint = if keys.is_empty() { String::new() } else { format!("it has {}", keys.join(", ")) };
            let message = format!("{} has no key {}", reference.target(), Shown(&secret.key));
            Err(reference.finding(Reason::InvalidSecret, &message, &hint))
        }
    }
}

/// A key or credential travels in a header, so it must fit one.
pub fn header_value(value: &SecretText) -> Result<(), &'static str> {
    let visible = value.expose().bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if visible { Ok(()) } else { Err("the value has characters that no header can carry") }
}
