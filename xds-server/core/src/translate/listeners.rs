//! Gateways of our class to the listeners that can be opened.

use std::collections::BTreeMap;

use gateway_api::apis::standard::gateways::{GatewayListeners, GatewayListenersTlsMode};

use crate::ir::Certificate;
use crate::objects::{CONTROLLER_NAME, DEFAULT_CLASS, GATEWAY_GROUP, Gateway, Key, Object, Objects, SecretRef, Shown};
use crate::status::{Finding, Severity};

use super::hostname::ANY;
use super::refs;

/// The open listeners by Gateway. A Gateway without an open listener is in it too.
pub type Listeners<'a> = BTreeMap<Key, GatewayListenersOf<'a>>;

#[derive(Debug)]
pub struct GatewayListenersOf<'a> {
    pub gateway: &'a Object<Gateway>,
    pub open: Vec<OpenListener<'a>>,
}

/// A listener that is valid and has its port.
#[derive(Debug)]
pub struct OpenListener<'a> {
    pub spec: &'a GatewayListeners,
    pub port: u16,
    pub hostname: &'a str,
    pub certificate: Option<Certificate>,
    pub takes_http_routes: bool,
}

pub fn listeners<'a>(objects: &'a Objects, findings: &mut Vec<Finding>) -> Listeners<'a> {
    // All Gateways of a folder are opened on the same addresses.
    let mut ports = BTreeMap::new();
    let mut listeners = Listeners::new();
    for gateway in objects.gateways.iter() {
        let class = &gateway.spec.gateway_class_name;
        match is_ours(objects, class) {
            Some(true) => {}
            Some(false) => continue,
            None => {
                findings.push(gateway.meta.finding(
                    Severity::Warning,
                    "UnknownClass",
                    "spec.gatewayClassName",
                    format_args!("there is no GatewayClass {}", Shown(class)),
                    format_args!("gatewayClassName: {DEFAULT_CLASS}"),
                ));
                continue;
            }
        }
        let mut open: Vec<OpenListener<'_>> = Vec::new();
        for (index, spec) in gateway.spec.listeners.iter().enumerate() {
            let field = format!("spec.listeners[{index}]");
            match listener(objects, gateway, spec, &field, findings)
                .and_then(|listener| without_conflict(gateway, &open, listener, &field))
                .and_then(|listener| claim_port(gateway, &mut ports, listener, &field))
            {
                Ok(listener) => open.push(listener),
                Err(finding) => findings.push(finding),
            }
        }
        listeners.insert(gateway.meta.key(), GatewayListenersOf { gateway, open });
    }
    listeners
}

/// None: there is no such class.
fn is_ours(objects: &Objects, class: &str) -> Option<bool> {
    match objects.gateway_classes.get("", class) {
        Some(class) => Some(class.spec.controller_name == CONTROLLER_NAME),
        None => (class == DEFAULT_CLASS).then_some(true),
    }
}

fn listener<'a>(
    objects: &Objects,
    gateway: &Object<Gateway>,
    spec: &'a GatewayListeners,
    field: &str,
    findings: &mut Vec<Finding>,
) -> Result<OpenListener<'a>, Finding> {
    let error = |reason: &str, field: String, message: &str, hint: &str| {
        gateway.meta.finding(Severity::Error, reason, field, message, hint)
    };
    let certificate = match (spec.protocol.as_str(), &spec.tls) {
        ("HTTP", None) => None,
        ("HTTP", Some(_)) => {
            return Err(error("Invalid", format!("{field}.tls"), "protocol HTTP has no TLS", "protocol: HTTPS"));
        }
        ("HTTPS", Some(tls)) => {
            if tls.mode == Some(GatewayListenersTlsMode::Passthrough) {
                let field = format!("{field}.tls.mode");
                return Err(error("UnsupportedValue", field, "Passthrough is not served", "mode: Terminate"));
            }
            if tls.options.as_ref().is_some_and(|options| !options.is_empty()) {
                let field = format!("{field}.tls.options");
                return Err(error("UnsupportedValue", field, "no option is known", "remove them"));
            }
            Some(certificate(objects, gateway, tls.certificate_refs.as_deref(), field, findings)?)
        }
        ("HTTPS", None) => {
            return Err(error(
                "Invalid",
                format!("{field}.tls"),
                "protocol HTTPS needs a certificate",
                "certificateRefs",
            ));
        }
        (protocol, _) => {
            let message = format!("protocol {} is not served", Shown(protocol));
            return Err(error("UnsupportedProtocol", format!("{field}.protocol"), &message, "one of HTTP, HTTPS"));
        }
    };
    let kinds = spec.allowed_routes.as_ref().and_then(|allowed| allowed.kinds.as_deref()).unwrap_or_default();
    let is_http_route =
        |group: Option<&str>, kind: &str| kind == "HTTPRoute" && group.is_none_or(|group| group == GATEWAY_GROUP);
    for (index, kind) in kinds.iter().enumerate() {
        if !is_http_route(kind.group.as_deref(), &kind.kind) {
            let field = format!("{field}.allowedRoutes.kinds[{index}]");
            let message = format!("routes of kind {} are not served", Shown(&kind.kind));
            findings.push(error("InvalidRouteKinds", field, &message, "only HTTPRoute"));
        }
    }
    let takes_http_routes =
        kinds.is_empty() || kinds.iter().any(|kind| is_http_route(kind.group.as_deref(), &kind.kind));
    Ok(OpenListener {
        spec,
        port: u16::try_from(spec.port).unwrap_or_default(),
        hostname: spec.hostname.as_deref().unwrap_or(ANY),
        certificate,
        takes_http_routes,
    })
}

fn certificate(
    objects: &Objects,
    gateway: &Object<Gateway>,
    references: Option<&[gateway_api::apis::standard::gateways::GatewayListenersTlsCertificateRefs]>,
    field: &str,
    findings: &mut Vec<Finding>,
) -> Result<Certificate, Finding> {
    let field = format!("{field}.tls.certificateRefs");
    let error = |field: &str, message: &str, hint: &str| {
        gateway.meta.finding(Severity::Error, "InvalidCertificateRef", field, message, hint)
    };
    let (Some(reference), rest) = (match references.and_then(<[_]>::split_first) {
        Some((first, rest)) => (Some(first), rest.len()),
        None => (None, 0),
    }) else {
        return Err(error(&field, "protocol HTTPS needs a certificate", "name a Secret of type kubernetes.io/tls"));
    };
    if rest > 0 {
        findings.push(gateway.meta.finding(
            Severity::Warning,
            "NotActedOn",
            format!("{field}[1]"),
            "only the first certificate is used",
            "a listener for each hostname",
        ));
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
        let (origin, value) = refs::secret_value(objects, &gateway.meta, refs::GATEWAY, &secret, &field)?;
        if value.expose().contains("-----BEGIN ") && value.expose().contains(begin) {
            Ok((origin, value))
        } else {
            Err(error(&field, &format!("key `{key}` is not PEM"), &format!("it has -----BEGIN ... {begin}")))
        }
    };
    let (origin, chain) = part("tls.crt", "CERTIFICATE-----")?;
    let (_, private_key) = part("tls.key", "PRIVATE KEY-----")?;
    let name = format!("{}/{}", origin.namespace, origin.name);
    Ok(Certificate { origin, name, chain, private_key })
}

/// Listeners of one Gateway on one port must have the same protocol and different hostnames. The first one wins.
fn without_conflict<'a>(
    gateway: &Object<Gateway>,
    open: &[OpenListener<'_>],
    listener: OpenListener<'a>,
    field: &str,
) -> Result<OpenListener<'a>, Finding> {
    for other in open.iter().filter(|other| other.port == listener.port) {
        let name = &other.spec.name;
        let conflict = if other.spec.protocol != listener.spec.protocol {
            Some(("ProtocolConflict", format!("listener `{name}` has the port with another protocol")))
        } else if other.hostname == listener.hostname {
            Some(("HostnameConflict", format!("listener `{name}` has the same port and hostname")))
        } else {
            None
        };
        if let Some((reason, message)) = conflict {
            return Err(gateway.meta.finding(Severity::Error, reason, format!("{field}.port"), message, ""));
        }
    }
    Ok(listener)
}

/// A port belongs to the first Gateway by name.
fn claim_port<'a>(
    gateway: &Object<Gateway>,
    ports: &mut BTreeMap<u16, Key>,
    listener: OpenListener<'a>,
    field: &str,
) -> Result<OpenListener<'a>, Finding> {
    let owner = ports.entry(listener.port).or_insert_with(|| gateway.meta.key());
    if *owner == gateway.meta.key() {
        return Ok(listener);
    }
    let message = format!("port {} belongs to Gateway {}/{}", listener.port, owner.namespace, owner.name);
    Err(gateway.meta.finding(Severity::Error, "PortUnavailable", format!("{field}.port"), message, "take another port"))
}
