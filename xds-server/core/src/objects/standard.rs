//! Kinds of the Gateway API and of Kubernetes: their own types, held to the rules that their CRDs have
//! besides the types, and to what Tollgate serves.

use gateway_api::apis::standard::gateways::GatewaySpec;
use gateway_api::apis::standard::httproutes::{
    HttpRouteRulesFilters as Filter, HttpRouteRulesFiltersType as FilterType,
    HttpRouteRulesMatchesHeadersType as HeaderType, HttpRouteRulesMatchesPathType as PathType,
    HttpRouteRulesMatchesQueryParamsType as QueryType, HttpRouteSpec,
};
use gateway_api::apis::standard::referencegrants::ReferenceGrantSpec;
use k8s_openapi::api::core::v1::ServiceSpec;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort};
use serde::Deserialize;

use super::check::Check;
use super::redact::Shown;
use crate::terms::names::{is_dns_label, is_wildcard_hostname};

pub type Gateway = GatewaySpec;
pub type HttpRoute = HttpRouteSpec;
pub type ReferenceGrant = ReferenceGrantSpec;
pub type Service = ServiceSpec;

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
    if spec.tls.is_some() {
        check.unsupported("spec.tls", "client certificates are not served yet", "remove it");
    }
    for (index, listener) in spec.listeners.iter().enumerate() {
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
        let twice = spec.listeners.iter().take(index).any(|other| other.name == listener.name);
        if twice {
            check.error(
                format_args!("{field}.name"),
                format_args!("listener {} is listed twice", Shown(&listener.name)),
                "",
            );
        }
    }
    Some(spec)
}

pub fn http_route(spec: HttpRouteSpec, check: &mut Check<'_>) -> Option<HttpRouteSpec> {
    for (index, hostname) in spec.hostnames.iter().flatten().enumerate() {
        if !is_wildcard_hostname(hostname) {
            check.error(
                format_args!("spec.hostnames[{index}]"),
                format_args!("{} is not a hostname", Shown(hostname)),
                "lowercase, its first label may be *, for example *.example.com",
            );
        }
    }
    for (index, rule) in spec.rules.iter().flatten().enumerate() {
        let field = format!("spec.rules[{index}]");
        for (index, found) in rule.matches.iter().flatten().enumerate() {
            let field = format!("{field}.matches[{index}]");
            if let Some(path) = &found.path {
                let kind = path.r#type.as_ref().unwrap_or(&PathType::PathPrefix);
                let value = path.value.as_deref().unwrap_or("/");
                if *kind == PathType::RegularExpression {
                    check.regex(format_args!("{field}.path.value"), value);
                } else if !is_absolute_path(value) {
                    let hint = "begins with /, without //, /./, /../, %2f, # or a trailing /..";
                    check.error(
                        format_args!("{field}.path.value"),
                        format_args!("{} is not a path", Shown(value)),
                        hint,
                    );
                }
            }
            for (index, header) in found.headers.iter().flatten().enumerate() {
                let field = format!("{field}.headers[{index}]");
                header_name(format!("{field}.name"), &header.name, check);
                if header.r#type == Some(HeaderType::RegularExpression) {
                    check.regex(format_args!("{field}.value"), &header.value);
                }
            }
            for (index, parameter) in found.query_params.iter().flatten().enumerate() {
                if parameter.r#type == Some(QueryType::RegularExpression) {
                    check.regex(format_args!("{field}.queryParams[{index}].value"), &parameter.value);
                }
            }
        }
        for (index, filter) in rule.filters.iter().flatten().enumerate() {
            self::filter(filter, &format!("{field}.filters[{index}]"), check);
        }
        for (index, backend) in rule.backend_refs.iter().flatten().enumerate() {
            let field = format!("{field}.backendRefs[{index}]");
            check.weight(format_args!("{field}.weight"), backend.weight.map(i64::from));
            if let Some(port) = backend.port {
                check.port(format_args!("{field}.port"), port.into());
            }
        }
        if let Some(timeouts) = &rule.timeouts {
            for (name, text) in [("request", &timeouts.request), ("backendRequest", &timeouts.backend_request)] {
                if let Some(text) = text
                    && let Err(error) = super::parse_duration(text)
                {
                    check.error(format_args!("{field}.timeouts.{name}"), error, super::duration::HINT);
                }
            }
        }
    }
    Some(spec)
}

/// A filter's fields are a union, told apart by its type.
fn filter(filter: &Filter, field: &str, check: &mut Check<'_>) {
    let (name, given) = match filter.r#type {
        FilterType::RequestHeaderModifier => ("requestHeaderModifier", filter.request_header_modifier.is_some()),
        FilterType::ResponseHeaderModifier => ("responseHeaderModifier", filter.response_header_modifier.is_some()),
        FilterType::RequestMirror => ("requestMirror", filter.request_mirror.is_some()),
        FilterType::RequestRedirect => ("requestRedirect", filter.request_redirect.is_some()),
        FilterType::UrlRewrite => ("urlRewrite", filter.url_rewrite.is_some()),
        FilterType::ExtensionRef => ("extensionRef", filter.extension_ref.is_some()),
        FilterType::Cors => ("cors", filter.cors.is_some()),
    };
    let count = [
        filter.request_header_modifier.is_some(),
        filter.response_header_modifier.is_some(),
        filter.request_mirror.is_some(),
        filter.request_redirect.is_some(),
        filter.url_rewrite.is_some(),
        filter.extension_ref.is_some(),
        filter.cors.is_some(),
    ]
    .into_iter()
    .filter(|given| *given)
    .count();
    if !given || count != 1 {
        check.error(field, format_args!("the filter's type and fields differ: only `{name}` belongs to it"), "");
    }
    let modifier = filter.request_header_modifier.iter().flat_map(|modifier| {
        let set = modifier.set.iter().flatten().map(|header| &header.name);
        set.chain(modifier.add.iter().flatten().map(|header| &header.name)).chain(modifier.remove.iter().flatten())
    });
    let response = filter.response_header_modifier.iter().flat_map(|modifier| {
        let set = modifier.set.iter().flatten().map(|header| &header.name);
        set.chain(modifier.add.iter().flatten().map(|header| &header.name)).chain(modifier.remove.iter().flatten())
    });
    for name in modifier.chain(response) {
        header_name(format!("{field}.{}", modifier_field(filter)), name, check);
    }
}

fn modifier_field(filter: &Filter) -> &'static str {
    if filter.request_header_modifier.is_some() { "requestHeaderModifier" } else { "responseHeaderModifier" }
}

fn header_name(field: String, name: &str, check: &mut Check<'_>) {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        check.error(field, format_args!("{} is not a header name", Shown(name)), "letters, digits and -");
    }
}

/// The rules of HTTPPathMatch.
fn is_absolute_path(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    path.starts_with('/')
        && path.bytes().all(|byte| byte.is_ascii_graphic())
        && !["//", "/./", "/../", "%2f", "#", "?"].iter().any(|bad| lower.contains(bad))
        && !lower.ends_with("/..")
        && !lower.ends_with("/.")
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
