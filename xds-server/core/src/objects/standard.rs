//! Kinds of the Gateway API and of Kubernetes: their own types, held to the rules that their CRDs have
//! besides the types, and to what Tollgate serves.

use gateway_api::apis::standard::gateways::{
    GatewayListeners, GatewayListenersTlsCertificateRefs as CertificateRef, GatewaySpec,
};
use gateway_api::apis::standard::referencegrants::ReferenceGrantSpec;
use k8s_openapi::api::core::v1::{ServiceSpec, ServiceStatus};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort};
use serde::Deserialize;

use super::check::Check;
use super::redact::Shown;
use crate::terms::names::{is_dns_label, is_wildcard_hostname};

pub type Gateway = GatewaySpec;
pub type ReferenceGrant = ReferenceGrantSpec;

/// A Service, with the addresses that a load balancer has given it.
#[derive(Debug, Clone, Deserialize)]
pub struct Service {
    pub spec: ServiceSpec,
    #[serde(default)]
    pub status: ServiceStatus,
}

/// Only its labels matter.
#[derive(Debug, Clone)]
pub struct Namespace;

/// An EndpointSlice; its Service is named by a label.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendSlice {
    pub address_type: String,
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    #[serde(default)]
    pub ports: Vec<EndpointPort>,
}

pub fn gateway(spec: GatewaySpec, check: &mut Check<'_>) -> Option<GatewaySpec> {
    if spec.listeners.is_empty() {
        check.error("spec.listeners", "the Gateway has no listeners", "list at least one");
    }
    listeners(&spec.listeners, check);
    Some(spec)
}

/// What a Gateway is to show to backends that it speaks TLS to.
pub fn client_certificate(gateway: &Gateway) -> Option<CertificateRef> {
    let reference = gateway.tls.as_ref()?.backend.as_ref()?.client_certificate_ref.clone()?;
    // One SecretObjectReference of the Gateway API, generated as two types.
    Some(CertificateRef {
        group: reference.group,
        kind: reference.kind,
        name: reference.name,
        namespace: reference.namespace,
    })
}

/// Those of a Gateway or of a ListenerSet.
pub fn listeners(listeners: &[GatewayListeners], check: &mut Check<'_>) {
    for (index, listener) in listeners.iter().enumerate() {
        let field = format!("spec.listeners[{index}]");
        check.name(format_args!("{field}.name"), &listener.name);
        check.port(format_args!("{field}.port"), listener.port.into());
        if let Some(hostname) = listener.hostname.as_deref().filter(|hostname| !is_wildcard_hostname(hostname)) {
            check.error(
                format_args!("{field}.hostname"),
                format_args!("{} is not a hostname", Shown(hostname)),
                "lowercase, its first label may be *, for example *.example.com",
            );
        }
        let twice = listeners.iter().take(index).any(|other| other.name == listener.name);
        if twice {
            check.error(
                format_args!("{field}.name"),
                format_args!("listener {} is listed twice", Shown(&listener.name)),
                "",
            );
        }
    }
}

pub fn endpoint_slice(slice: BackendSlice, check: &mut Check<'_>) -> Option<BackendSlice> {
    for (index, port) in slice.ports.iter().enumerate() {
        if let Some(number) = port.port {
            check.port(format_args!("ports[{index}].port"), number.into());
        }
        if port.name.as_deref().is_some_and(|name| !name.is_empty() && !is_dns_label(name)) {
            check.error(format_args!("ports[{index}].name"), "not a valid name of a port", "");
        }
    }
    if slice.address_type == "FQDN" {
        check.unsupported("addressType", "FQDN is not served", "IPv4 or IPv6");
    } else {
        let endpoints = slice.endpoints.iter().enumerate();
        for (index, address) in endpoints.flat_map(|(i, endpoint)| endpoint.addresses.iter().map(move |a| (i, a))) {
            if address.parse::<std::net::IpAddr>().is_err() {
                check.error(
                    format_args!("endpoints[{index}].addresses"),
                    format_args!("{} is not an IP", Shown(address)),
                    "",
                );
            }
        }
    }
    Some(slice)
}
