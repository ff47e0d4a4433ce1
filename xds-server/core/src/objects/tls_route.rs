//! TLSRoutes: the Gateway API's own type, held to the rules that its CRD has besides the types.

use gateway_api::apis::standard::tlsroutes::TlsRouteSpec;

use super::check::Check;
use super::redact::Shown;
use crate::terms::names::is_wildcard_hostname;

pub type TlsRoute = TlsRouteSpec;

pub fn tls_route(spec: TlsRouteSpec, check: &mut Check<'_>) -> Option<TlsRouteSpec> {
    if spec.hostnames.is_empty() {
        check.error("spec.hostnames", "the route has no hostname", "list at least one");
    }
    for (index, hostname) in spec.hostnames.iter().enumerate() {
        if !is_wildcard_hostname(hostname) {
            check.error(
                format_args!("spec.hostnames[{index}]"),
                format_args!("{} is not a hostname", Shown(hostname)),
                "lowercase, its first label may be *, for example *.example.com",
            );
        }
    }
    if spec.rules.len() != 1 {
        check.error("spec.rules", "a TLSRoute has one rule", "a TLSRoute for each rule");
    }
    for (index, rule) in spec.rules.iter().enumerate() {
        let field = format!("spec.rules[{index}].backendRefs");
        if rule.backend_refs.is_empty() {
            check.error(&field, "the rule has no backend", "list at least one");
        }
        for (index, backend) in rule.backend_refs.iter().enumerate() {
            check.weight(format_args!("{field}[{index}].weight"), backend.weight.map(i64::from));
            if let Some(port) = backend.port {
                check.port(format_args!("{field}[{index}].port"), port.into());
            }
        }
    }
    Some(spec)
}
