//! Gateways of our class to the listeners that can be opened.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_api::apis::standard::gatewayclasses::GatewayClassSpec;
use gateway_api::apis::standard::gateways::{
    GatewayListeners, GatewayListenersAllowedRoutesNamespaces as AllowedNamespaces,
    GatewayListenersAllowedRoutesNamespacesFrom as From, GatewayListenersAllowedRoutesNamespacesSelector as Selector,
    GatewayListenersTlsMode,
};

use crate::ir::{Certificate, Domain};
use crate::objects::{
    CONTROLLER_NAME, DEFAULT_CLASS, GATEWAY_GROUP, Gateway, Key, LabelSelector, Namespaces, Object, Operator,
    Requirement, SecretRef, Shown, Store,
};
use crate::placement::{Feature, Placement};
use crate::status::{Finding, Origin, Reason, Severity};

use super::hostname::ANY;
use super::refs;
use super::view::View;

/// What is open of one Gateway, which may be nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenListeners {
    pub origin: Origin,
    pub open: Vec<OpenListener>,
}

/// A listener that is valid.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenListener {
    /// Its place in the Gateway.
    pub index: usize,
    pub name: Arc<str>,
    pub protocol: String,
    pub port: u16,
    pub hostname: Domain,
    pub certificate: Option<Certificate>,
    pub takes_http_routes: bool,
    /// The namespaces whose routes may attach. None: no namespace, because the selector says something that nobody
    /// knows.
    pub allowed: Option<Namespaces>,
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
    if gateway.spec.addresses.is_some() {
        findings.extend(view.lack(Feature::Addresses, &gateway.meta, "spec.addresses"));
    }
    let mut open: Vec<OpenListener> = Vec::new();
    for (index, spec) in gateway.spec.listeners.iter().enumerate() {
        match listener(view, gateway, (index, spec), findings)
            .and_then(|listener| without_conflict(gateway, &open, listener))
        {
            Ok(listener) => open.push(listener),
            Err(finding) => findings.push(finding),
        }
    }
    Some(OpenListeners { origin: gateway.meta.origin.clone(), open })
}

/// None: there is no such class.
fn is_ours(view: View<'_>, class: &str) -> Option<bool> {
    match view.object::<GatewayClassSpec>("", class) {
        Some(class) => Some(class.spec.controller_name == CONTROLLER_NAME),
        None => (class == DEFAULT_CLASS).then_some(true),
    }
}

fn field(index: usize) -> String {
    format!("spec.listeners[{index}]")
}

fn listener(
    view: View<'_>,
    gateway: &Object<Gateway>,
    (index, spec): (usize, &GatewayListeners),
    findings: &mut Vec<Finding>,
) -> Result<OpenListener, Finding> {
    let field = field(index);
    if let Some(finding) = gateway.refused.of(&field) {
        return Err(finding.clone());
    }
    let error = |reason: Reason, field: String, message: &str, hint: &str| {
        gateway.meta.finding(Severity::Error, reason, field, message, hint)
    };
    let certificate = match (spec.protocol.as_str(), &spec.tls) {
        ("HTTP", None) => None,
        ("HTTP", Some(_)) => {
            return Err(error(Reason::Invalid, format!("{field}.tls"), "protocol HTTP has no TLS", "protocol: HTTPS"));
        }
        ("HTTPS", Some(tls)) => {
            if tls.mode == Some(GatewayListenersTlsMode::Passthrough) {
                let field = format!("{field}.tls.mode");
                return Err(error(Reason::UnsupportedValue, field, "Passthrough is not served", "mode: Terminate"));
            }
            if tls.options.as_ref().is_some_and(|options| !options.is_empty()) {
                let field = format!("{field}.tls.options");
                return Err(error(Reason::UnsupportedValue, field, "no option is known", "remove them"));
            }
            Some(certificate(view, gateway, tls.certificate_refs.as_deref(), &field, findings)?)
        }
        ("HTTPS", None) => {
            return Err(error(
                Reason::Invalid,
                format!("{field}.tls"),
                "protocol HTTPS needs a certificate",
                "certificateRefs",
            ));
        }
        (protocol, _) => {
            let message = format!("protocol {} is not served", Shown(protocol));
            return Err(error(
                Reason::UnsupportedProtocol,
                format!("{field}.protocol"),
                &message,
                "one of HTTP, HTTPS",
            ));
        }
    };
    let kinds = spec.allowed_routes.as_ref().and_then(|allowed| allowed.kinds.as_deref()).unwrap_or_default();
    for (index, kind) in kinds.iter().enumerate() {
        if !is_http_route(kind.group.as_deref(), &kind.kind) {
            let field = format!("{field}.allowedRoutes.kinds[{index}]");
            let message = format!("routes of kind {} are not served", Shown(&kind.kind));
            findings.push(error(Reason::InvalidRouteKinds, field, &message, "only HTTPRoute"));
        }
    }
    Ok(OpenListener {
        index,
        name: spec.name.as_str().into(),
        protocol: spec.protocol.clone(),
        port: u16::try_from(spec.port).unwrap_or_default(),
        hostname: spec.hostname.as_deref().unwrap_or(ANY).into(),
        certificate,
        takes_http_routes: takes_http_routes(spec),
        allowed: allowed(spec.allowed_routes.as_ref().and_then(|allowed| allowed.namespaces.as_ref())),
    })
}

fn is_http_route(group: Option<&str>, kind: &str) -> bool {
    kind == "HTTPRoute" && group.is_none_or(|group| group == GATEWAY_GROUP)
}

/// Whether HTTPRoutes may attach to such a listener, if it can be opened.
pub fn takes_http_routes(spec: &GatewayListeners) -> bool {
    let kinds = spec.allowed_routes.as_ref().and_then(|allowed| allowed.kinds.as_deref()).unwrap_or_default();
    matches!(spec.protocol.as_str(), "HTTP" | "HTTPS")
        && (kinds.is_empty() || kinds.iter().any(|kind| is_http_route(kind.group.as_deref(), &kind.kind)))
}

fn certificate(
    view: View<'_>,
    gateway: &Object<Gateway>,
    references: Option<&[gateway_api::apis::standard::gateways::GatewayListenersTlsCertificateRefs]>,
    field: &str,
    findings: &mut Vec<Finding>,
) -> Result<Certificate, Finding> {
    let field = format!("{field}.tls.certificateRefs");
    let error = |field: &str, message: &str, hint: &str| {
        gateway.meta.finding(Severity::Error, Reason::InvalidCertificateRef, field, message, hint)
    };
    let (Some(reference), rest) = (match references.and_then(<[_]>::split_first) {
        Some((first, rest)) => (Some(first), rest.len()),
        None => (None, 0),
    }) else {
        return Err(error(&field, "protocol HTTPS needs a certificate", "name a Secret of type kubernetes.io/tls"));
    };
    if rest > 0 {
        findings.extend(view.lack(Feature::MoreCertificates, &gateway.meta, format_args!("{field}[1]")));
    }
    let field = format!("{field}[0]");
    if reference.group.as_deref().is_some_and(|group| !group.is_empty())
        || reference.kind.as_deref().unwrap_or("Secret") != "Secret"
    {
        return Err(error(&field, "a certificate is a Secret", "kind: Secret"));
    }
    let part = |key: &str, begin: &str| {
        let secret =
            SecretRef { namespace: reference.namespace.clone(), name: reference.name.clone(), key: key.to_owned() };
        let (origin, value) = refs::secret_value(view, &gateway.meta, refs::GATEWAY, &secret, &field)?;
        if value.expose().contains("-----BEGIN ") && value.expose().contains(begin) {
            Ok((origin, value))
        } else {
            Err(error(&field, &format!("key `{key}` is not PEM"), &format!("it has -----BEGIN ... {begin}")))
        }
    };
    let (origin, chain) = part("tls.crt", "CERTIFICATE-----")?;
    let (_, private_key) = part("tls.key", "PRIVATE KEY-----")?;
    let name = origin.key().to_string();
    Ok(Certificate { origin, name, chain, private_key })
}

/// See [`OpenListener::allowed`].
fn allowed(allowed: Option<&AllowedNamespaces>) -> Option<Namespaces> {
    match allowed.and_then(|allowed| allowed.from.as_ref()).unwrap_or(&From::Same) {
        From::All => Some(Namespaces::All),
        From::Same => Some(Namespaces::Same),
        From::Selector => {
            allowed.and_then(|allowed| allowed.selector.as_ref()).and_then(selector).map(Namespaces::Selector)
        }
    }
}

/// None: the selector says something that nobody knows.
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

/// Listeners of one Gateway on one port must have the same protocol and different hostnames. The first one wins.
fn without_conflict(
    gateway: &Object<Gateway>,
    open: &[OpenListener],
    listener: OpenListener,
) -> Result<OpenListener, Finding> {
    for other in open.iter().filter(|other| other.port == listener.port) {
        let name = &other.name;
        let conflict = if other.protocol != listener.protocol {
            Some((Reason::ProtocolConflict, format!("listener `{name}` has the port with another protocol")))
        } else if other.hostname == listener.hostname {
            Some((Reason::HostnameConflict, format!("listener `{name}` has the same port and hostname")))
        } else {
            None
        };
        if let Some((reason, message)) = conflict {
            let field = format!("{}.port", field(listener.index));
            return Err(gateway.meta.finding(Severity::Error, reason, field, message, ""));
        }
    }
    Ok(listener)
}

/// What is open of each Gateway, and what each cannot have because others have it.
pub type Open = (BTreeMap<Key, Arc<OpenListeners>>, BTreeMap<Key, Vec<Finding>>);

pub fn open(placement: Placement, gateways: &Store<Gateway>, valid: BTreeMap<Key, Arc<OpenListeners>>) -> Open {
    if placement.shares_ports() { share_ports(gateways, &valid) } else { (valid, BTreeMap::new()) }
}

/// All Gateways are opened on the same addresses. A port belongs to the first Gateway by name.
fn share_ports(gateways: &Store<Gateway>, valid: &BTreeMap<Key, Arc<OpenListeners>>) -> Open {
    let mut owners: BTreeMap<u16, &Key> = BTreeMap::new();
    let mut findings: BTreeMap<Key, Vec<Finding>> = BTreeMap::new();
    let mut open = BTreeMap::new();
    for (key, listeners) in valid {
        let is_lost = |listener: &&OpenListener| owners.get(&listener.port).is_some_and(|owner| *owner != key);
        let lost: Vec<&OpenListener> = listeners.open.iter().filter(is_lost).collect();
        let gateway = gateways.get(&key.namespace, &key.name);
        for (listener, gateway) in lost.iter().zip(gateway.into_iter().cycle()) {
            let Some(owner) = owners.get(&listener.port) else { continue };
            let message = format!("port {} belongs to Gateway {}/{}", listener.port, owner.namespace, owner.name);
            let field = format!("{}.port", field(listener.index));
            let hint = "take another port";
            let finding = gateway.meta.finding(Severity::Error, Reason::PortUnavailable, field, message, hint);
            findings.entry(key.clone()).or_default().push(finding);
        }
        let listeners = if lost.is_empty() {
            Arc::clone(listeners)
        } else {
            let own = listeners.open.iter().filter(|listener| !is_lost(listener)).cloned().collect();
            Arc::new(OpenListeners { origin: listeners.origin.clone(), open: own })
        };
        for listener in &listeners.open {
            owners.insert(listener.port, key);
        }
        open.insert(key.clone(), listeners);
    }
    (open, findings)
}
