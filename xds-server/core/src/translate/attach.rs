//! Whether a route may be attached to the listeners of a Gateway, and for which hostnames.

use std::sync::Arc;

use crate::ir::Domain;
use crate::objects::Key;
use crate::status::{Reason, StatusKind};

use super::allowed;
use super::hostname::intersection;
use super::listener::OpenListener;
use super::listeners::OpenListeners;
use super::view::View;

/// One listener that a route is attached to, and the hostnames that both are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    pub gateway: Key,
    pub listener: Arc<str>,
    pub hostnames: Box<[Domain]>,
}

/// What is looked at of a route of any kind.
#[derive(Debug, Clone, Copy)]
pub struct Route<'a> {
    pub kind: StatusKind,
    pub namespace: &'a str,
    /// Without any, it is for all hostnames of the listener.
    pub hostnames: &'a [String],
}

/// What a parentRef says besides the Gateway.
#[derive(Debug, Clone, Copy)]
pub struct Parent<'a> {
    /// The ListenerSet of the Gateway whose listeners are meant. None: the Gateway's own are.
    pub set: Option<&'a Key>,
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

// === impl Parent ===

impl Parent<'_> {
    pub fn names(&self, listener: &OpenListener) -> bool {
        listener.set.as_ref() == self.set
            && self.section.is_none_or(|section| *section == *listener.section)
            && self.port.is_none_or(|port| port == i32::from(listener.port))
    }
}

/// The listeners that the route attaches to.
pub fn attach(
    view: View<'_>,
    route: &Route<'_>,
    parent: &Parent<'_>,
    gateway: &OpenListeners,
) -> Result<Vec<Attachment>, NotAttached> {
    let named: Vec<_> = gateway.open.iter().filter(|listener| parent.names(listener)).collect();
    if named.is_empty() {
        return Err(NotAttached::NoMatchingParent);
    }
    let allowed: Vec<_> = named
        .into_iter()
        .filter(|listener| listener.kinds.contains(&route.kind) && is_allowed(view, gateway, listener, route.namespace))
        .collect();
    if allowed.is_empty() {
        return Err(NotAttached::NotAllowedByListeners);
    }
    let places: Vec<_> = allowed
        .into_iter()
        .filter_map(|listener| {
            let hostnames: Box<[Domain]> = match route.hostnames {
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
    let own = listener.set.as_ref().map_or(&gateway.origin.namespace, |set| &set.namespace);
    allowed::include(view, listener.allowed.as_ref(), own, namespace)
}
