//! Gateways of our class to the listeners that can be opened: their own, and those that ListenerSets bring.

use std::collections::BTreeSet;

use gateway_api::apis::standard::gatewayclasses::GatewayClassSpec;

use crate::ir::{ClientCertificate, JwtIssuer};
use crate::objects::{CONTROLLER_NAME, DEFAULT_CLASS, Gateway, Key, ListenerSet, Object, ProxyParameters, Shown};
use crate::placement::Feature;
use crate::status::{Finding, Origin, Reason, Severity};

use super::addresses::{self, Reach};
use super::allowed;
use super::client_certificate;
use super::jwt_issuers;
use super::listener::{OpenListener, Source};
use super::parameters;
use super::refs::{GATEWAY, LISTENER_SET};
use super::view::View;

/// What is valid of one Gateway, which may be nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenListeners {
    pub origin: Origin,
    pub open: Vec<OpenListener>,
    /// What it shows to backends.
    pub client_certificate: ClientCertificate,
    /// Whose JWTs it verifies.
    pub jwt_issuers: Vec<JwtIssuer>,
    /// How it is reached, if a Service of ours leads to its proxies.
    pub reach: Option<Reach>,
    /// What its proxies are to be like.
    pub parameters: ProxyParameters,
}

/// The listeners of a Gateway that are valid and do not contradict each other. None: the Gateway is not ours.
pub fn listeners(view: View<'_>, gateway: &Object<Gateway>, findings: &mut Vec<Finding>) -> Option<OpenListeners> {
    if !view.placement().opens_gateways() {
        return None;
    }
    let class = &gateway.spec.gateway_class_name;
    match is_ours(view, class) {
        Some(true) => {}
        Some(false) => return None,
        None => {
            findings.push(gateway.meta.finding(
                Severity::Warning,
                Reason::UnknownClass,
                "spec.gatewayClassName",
                format_args!("there is no GatewayClass {}", Shown(class)),
                format_args!("gatewayClassName: {DEFAULT_CLASS}"),
            ));
            return None;
        }
    }
    let reach = addresses::reach(view, gateway, findings);
    let parameters = if gateway.spec.infrastructure.is_some()
        && let Some(lack) = view.lack(Feature::Infrastructure, &gateway.meta, "spec.infrastructure")
    {
        findings.push(lack);
        ProxyParameters::default()
    } else {
        parameters::parameters(view, gateway, findings)
    };
    let client_certificate = client_certificate::of_gateway(view, gateway, findings);
    let jwt_issuers = jwt_issuers::issuers(view, gateway, findings);
    let mut open: Vec<OpenListener> = Vec::new();
    let Object { meta, spec, refused } = gateway;
    Source { meta, kind: GATEWAY, refused, listeners: &spec.listeners, set: None, reach: reach.as_ref() }
        .open(view, gateway, &mut open, findings);
    for set in sets(view, gateway, findings) {
        let Object { meta, spec, refused } = set;
        let key = meta.key();
        let listeners = &spec.listeners;
        let source = Source { meta, kind: LISTENER_SET, refused, listeners, set: Some(&key), reach: reach.as_ref() };
        findings.extend(refused.findings().cloned());
        source.open(view, gateway, &mut open, findings);
    }
    let origin = gateway.meta.origin.clone();
    Some(OpenListeners { origin, open, client_certificate, jwt_issuers, reach, parameters })
}

/// The ListenerSets that may bring listeners, in the order in which they do (ListenerSetSpec.listeners).
fn sets<'a>(view: View<'a>, gateway: &Object<Gateway>, findings: &mut Vec<Finding>) -> Vec<&'a Object<ListenerSet>> {
    const FIELD: &str = "spec.allowedListeners";
    let given = gateway.spec.allowed_listeners.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
    let refused = gateway.refused.of(FIELD);
    findings.extend(refused.cloned());
    let allowed = if refused.is_some() { None } else { allowed::listener_sets(given) };
    let mut sets = view.listener_sets(&gateway.meta.key());
    sets.sort_by_key(|set| (set.meta.created.unwrap_or(i64::MAX), set.meta.key()));
    sets.retain(|set| {
        let meta = &set.meta;
        let is_allowed = allowed::include(view, allowed.as_ref(), gateway.meta.namespace(), meta.namespace());
        if !is_allowed {
            let message = "the Gateway takes no ListenerSets from this namespace";
            let hint = "spec.allowedListeners of the Gateway";
            findings.push(meta.finding(Severity::Error, Reason::NotAllowed, "spec.parentRef", message, hint));
        }
        is_allowed
    });
    sets
}

/// None: there is no such class.
fn is_ours(view: View<'_>, class: &str) -> Option<bool> {
    match view.object::<GatewayClassSpec>("", class) {
        Some(class) => Some(class.spec.controller_name == CONTROLLER_NAME),
        None => (class == DEFAULT_CLASS).then_some(true),
    }
}

// === impl OpenListeners ===

impl OpenListeners {
    /// Those that are opened.
    pub fn served(&self) -> impl Iterator<Item = &OpenListener> {
        self.open.iter().filter(|listener| listener.is_served())
    }

    /// The ListenerSets of which some listener is opened.
    pub fn sets(&self) -> BTreeSet<&Key> {
        self.served().filter_map(|listener| listener.set.as_ref()).collect()
    }
}
