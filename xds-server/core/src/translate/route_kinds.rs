//! Which kinds of routes a listener serves, and which of them may attach to it.

use gateway_api::apis::standard::gateways::{GatewayListeners, GatewayListenersAllowedRoutesKinds as AllowedKind};

use crate::objects::{GATEWAY_GROUP, Meta, Shown};
use crate::status::{Finding, Reason, Severity, StatusKind};

/// Those that a listener of this protocol serves. None: the protocol is not served.
fn of_protocol(protocol: &str) -> &'static [StatusKind] {
    match protocol {
        "HTTP" | "HTTPS" => &[StatusKind::HttpRoute, StatusKind::GrpcRoute],
        "TLS" => &[StatusKind::TlsRoute],
        _ => &[],
    }
}

/// Those that may attach to such a listener, if it can be opened.
pub fn allowed(spec: &GatewayListeners) -> Vec<StatusKind> {
    let served = of_protocol(&spec.protocol).iter().copied();
    match named(spec) {
        [] => served.collect(),
        named => served.filter(|kind| named.iter().any(|named| is(named, *kind))).collect(),
    }
}

/// Says of each kind that is named whether it is not served. `field` is that of the listener.
pub fn check(spec: &GatewayListeners, (meta, field): (&Meta, &str), findings: &mut Vec<Finding>) {
    let served = of_protocol(&spec.protocol);
    for (index, kind) in named(spec).iter().enumerate() {
        if !served.iter().any(|served| is(kind, *served)) {
            let field = format!("{field}.allowedRoutes.kinds[{index}]");
            let message = format!("routes of kind {} are not served", Shown(&kind.kind));
            let names: Vec<&str> = served.iter().map(|kind| kind.name()).collect();
            let hint = names.join(" or ");
            findings.push(meta.finding(Severity::Error, Reason::InvalidRouteKinds, field, message, hint));
        }
    }
}

fn named(spec: &GatewayListeners) -> &[AllowedKind] {
    spec.allowed_routes.as_ref().and_then(|allowed| allowed.kinds.as_deref()).unwrap_or_default()
}

fn is(named: &AllowedKind, kind: StatusKind) -> bool {
    named.kind == kind.name() && named.group.as_deref().is_none_or(|group| group == GATEWAY_GROUP)
}
