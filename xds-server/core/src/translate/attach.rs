//! Whether a route may be attached to the listeners of a Gateway, and for which hostnames.

use gateway_api::apis::standard::gateways::{
    GatewayListenersAllowedRoutesNamespaces as AllowedNamespaces, GatewayListenersAllowedRoutesNamespacesFrom as From,
    GatewayListenersAllowedRoutesNamespacesSelector as Selector,
};

use crate::objects::{HttpRoute, LabelSelector, Object, Objects, Operator, Requirement};

use super::hostname::intersection;
use super::listeners::GatewayListenersOf;

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
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoMatchingParent => "NoMatchingParent",
            Self::NotAllowedByListeners => "NotAllowedByListeners",
            Self::NoMatchingListenerHostname => "NoMatchingListenerHostname",
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

/// The listeners that the route attaches to, by name, with the hostnames that route and listener have in common.
pub fn attach(
    objects: &Objects,
    route: &Object<HttpRoute>,
    parent: &Parent<'_>,
    gateway: &GatewayListenersOf<'_>,
) -> Result<Vec<(String, Vec<String>)>, NotAttached> {
    let named: Vec<_> = gateway
        .open
        .iter()
        .filter(|listener| parent.section.is_none_or(|section| section == listener.spec.name))
        .filter(|listener| parent.port.is_none_or(|port| port == i32::from(listener.port)))
        .collect();
    if named.is_empty() {
        return Err(NotAttached::NoMatchingParent);
    }
    let allowed: Vec<_> = named
        .into_iter()
        .filter(|listener| {
            let namespaces = listener.spec.allowed_routes.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
            listener.takes_http_routes
                && is_allowed(objects, namespaces, gateway.gateway.meta.namespace(), route.meta.namespace())
        })
        .collect();
    if allowed.is_empty() {
        return Err(NotAttached::NotAllowedByListeners);
    }
    let own = route.spec.hostnames.as_deref().unwrap_or_default();
    let places: Vec<_> = allowed
        .into_iter()
        .filter_map(|listener| {
            let hostnames: Vec<String> = match own {
                [] => vec![listener.hostname.to_owned()],
                own => own.iter().filter_map(|hostname| intersection(listener.hostname, hostname)).collect(),
            };
            (!hostnames.is_empty()).then(|| (listener.spec.name.clone(), hostnames))
        })
        .collect();
    if places.is_empty() { Err(NotAttached::NoMatchingListenerHostname) } else { Ok(places) }
}

fn is_allowed(objects: &Objects, allowed: Option<&AllowedNamespaces>, gateway: &str, route: &str) -> bool {
    match allowed.and_then(|allowed| allowed.from.as_ref()).unwrap_or(&From::Same) {
        From::All => true,
        From::Same => gateway == route,
        From::Selector => {
            let labels = objects.namespaces.get("", route).map(|namespace| &namespace.meta.labels);
            let selector = allowed.and_then(|allowed| allowed.selector.as_ref()).and_then(selector);
            selector.is_some_and(|selector| selector.selects(route, labels))
        }
    }
}

/// None: the selector says something that nobody knows, so it selects nothing.
fn selector(selector: &Selector) -> Option<LabelSelector> {
    let labels = selector.match_labels.iter().flatten();
    let labels = labels.map(|(key, value)| Some((key, Operator::In(vec![value.clone()]))));
    let expressions = selector.match_expressions.iter().flatten().map(|expression| {
        let values = expression.values.clone().unwrap_or_default();
        Some((&expression.key, Operator::parse(&expression.operator, values).ok()?))
    });
    let requirements = labels.chain(expressions).map(|requirement| {
        let (key, operator) = requirement?;
        Some(Requirement { key: key.clone(), operator })
    });
    requirements.collect::<Option<_>>().map(LabelSelector)
}
