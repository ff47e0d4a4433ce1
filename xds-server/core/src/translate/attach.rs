//! Whether a route may be attached to the listeners of a Gateway, and for which hostnames.

use std::sync::Arc;

use crate::ir::Domain;
use crate::objects::{HttpRoute, Key, Namespace, Namespaces, Object};
use crate::status::Reason;

use super::hostname::intersection;
use super::listeners::{OpenListener, OpenListeners};
use super::view::View;

/// One listener that a route is attached to, and the hostnames that both are for.
#[derive(Debug, PartialEq, Eq)]
pub struct Attachment {
    pub gateway: Key,
    pub listener: Arc<str>,
    pub hostnames: Box<[Domain]>,
}

/// What a parentRef says besides the Gateway.
#[derive(Debug, Clone, Copy)]
pub struct Parent<'a> {
    pub section: Option<&'a str>,
    pub port: Option<i32>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAttached {
    #[error("no listener of the Gateway has this name and port, or it cannot be opened")]
    NoMatchingParent,
    #[error("no listener of the Gateway allows routes of this kind from this namespace")]
    NotAllowedByListeners,
    #[error("no listener of the Gateway has a hostname of the route")]
    NoMatchingListenerHostname,
}

// === impl NotAttached ===

impl NotAttached {
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoMatchingParent => Reason::NoMatchingParent,
            Self::NotAllowedByListeners => Reason::NotAllowedByListeners,
            Self::NoMatchingListenerHostname => Reason::NoMatchingListenerHostname,
        }
    }

    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoMatchingParent => "check sectionName and port",
            Self::NotAllowedByListeners => "allowedRoutes: {namespaces: {from: All}} on the listener",
            Self::NoMatchingListenerHostname => "check spec.hostnames and the listener's hostname",
        }
    }
}

/// The listeners that the route attaches to.
pub fn attach(
    view: View<'_>,
    route: &Object<HttpRoute>,
    parent: &Parent<'_>,
    gateway: &OpenListeners,
) -> Result<Vec<Attachment>, NotAttached> {
    let named: Vec<_> = gateway
        .open
        .iter()
        .filter(|listener| parent.section.is_none_or(|section| *section == *listener.name))
        .filter(|listener| parent.port.is_none_or(|port| port == i32::from(listener.port)))
        .collect();
    if named.is_empty() {
        return Err(NotAttached::NoMatchingParent);
    }
    let allowed: Vec<_> = named
        .into_iter()
        .filter(|listener| listener.takes_http_routes && is_allowed(view, gateway, listener, route.meta.namespace()))
        .collect();
    if allowed.is_empty() {
        return Err(NotAttached::NotAllowedByListeners);
    }
    let own = route.spec.hostnames.as_deref().unwrap_or_default();
    let places: Vec<_> = allowed
        .into_iter()
        .filter_map(|listener| {
            let hostnames: Box<[Domain]> = match own {
                [] => [listener.hostname.clone()].into(),
                own => own
                    .iter()
                    .filter_map(|hostname| intersection(&listener.hostname, hostname))
                    .map(Domain::from)
                    .collect(),
            };
            let (gateway, listener) = (gateway.origin.key(), Arc::clone(&listener.name));
            (!hostnames.is_empty()).then_some(Attachment { gateway, listener, hostnames })
        })
        .collect();
    if places.is_empty() { Err(NotAttached::NoMatchingListenerHostname) } else { Ok(places) }
}

fn is_allowed(view: View<'_>, gateway: &OpenListeners, listener: &OpenListener, namespace: &str) -> bool {
    match &listener.allowed {
        None => false,
        Some(Namespaces::All) => true,
        Some(Namespaces::Same) => *gateway.origin.namespace == *namespace,
        Some(Namespaces::Selector(selector)) => {
            selector.selects(namespace, view.object::<Namespace>("", namespace).map(|object| &object.meta.labels))
        }
    }
}
