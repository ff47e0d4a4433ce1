//! ListenerSets: listeners for a Gateway of somebody else's, in the Gateway API's own type of listeners.

use gateway_api::apis::standard::gateways::GatewayListeners;
use gateway_api::apis::standard::listenersets::ListenerSetParentRef;
use serde::Deserialize;

use super::check::Check;
use super::redact::Shown;
use super::{GATEWAY_GROUP, Key, Object, standard};

#[derive(Debug, Clone)]
pub struct ListenerSet {
    parent_namespace: Option<String>,
    parent_name: String,
    pub listeners: Vec<GatewayListeners>,
}

/// The listeners of a Gateway have the same fields.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerSetWire {
    parent_ref: ListenerSetParentRef,
    listeners: Vec<GatewayListeners>,
}

pub fn listener_set(wire: ListenerSetWire, check: &mut Check<'_>) -> Option<ListenerSet> {
    let ListenerSetParentRef { group, kind, name, namespace } = wire.parent_ref;
    let (group, kind) = (group.as_deref().unwrap_or(GATEWAY_GROUP), kind.as_deref().unwrap_or("Gateway"));
    if (group, kind) != (GATEWAY_GROUP, "Gateway") {
        check.error("spec.parentRef", format_args!("a parent cannot be {}", Shown(kind)), "kind: Gateway");
    }
    if wire.listeners.is_empty() {
        check.error("spec.listeners", "the ListenerSet has no listeners", "list at least one");
    }
    standard::listeners(&wire.listeners, check);
    Some(ListenerSet { parent_namespace: namespace, parent_name: name, listeners: wire.listeners })
}

/// The Gateway that it is for.
pub fn gateway_of(set: &Object<ListenerSet>) -> Key {
    let namespace = set.spec.parent_namespace.as_deref().unwrap_or(set.meta.namespace());
    Key::new(namespace, set.spec.parent_name.as_str())
}
