//! HTTPRoutes, held to the rules that their CRD has besides the types. GRPCRoutes are held to most of them too.
//!
//! The type is that of the experimental channel. It has fields that the standard one lacks, such as `retry`.

use gateway_api::apis::experimental::httproutes::{
    HttpRouteParentRefs, HttpRouteRules, HttpRouteRulesFilters as Filter, HttpRouteRulesFiltersCors as Cors,
    HttpRouteRulesFiltersRequestMirror as Mirror, HttpRouteRulesFiltersType as FilterType, HttpRouteRulesMatches,
    HttpRouteRulesMatchesHeadersType as HeaderType, HttpRouteRulesMatchesPathType as PathType,
    HttpRouteRulesMatchesQueryParamsType as QueryType, HttpRouteRulesRetry as Retry,
    HttpRouteRulesSessionPersistence as Session,
    HttpRouteRulesSessionPersistenceCookieConfigLifetimeType as LifetimeType,
    HttpRouteRulesSessionPersistenceType as SessionType, HttpRouteSpec, HttpRouteUseDefaultGateways,
};

use super::check::Check;
use super::redact::Shown;
use super::route_rule::RouteRule;
use crate::status::Reason;
use crate::terms::names::is_wildcard_hostname;

/// A route as it is kept.
#[derive(Debug, Clone)]
pub struct HttpRoute {
    pub parent_refs: Option<Vec<HttpRouteParentRefs>>,
    pub hostnames: Option<Vec<String>>,
    pub rules: Box<[RouteRule]>,
}

/// SessionPersistence.sessionName
const SESSION_NAME: usize = 128;

pub fn http_route(spec: HttpRouteSpec, check: &mut Check<'_>) -> Option<HttpRoute> {
    if spec.use_default_gateways == Some(HttpRouteUseDefaultGateways::All) {
        let message = "there are no default Gateways here";
        check.warning(Reason::NotActedOn, "spec.useDefaultGateways", message, "parentRefs");
    }
    for (index, rule) in spec.rules.iter().flatten().enumerate() {
        let field = format!("spec.rules[{index}]");
        for (index, found) in rule.matches.iter().flatten().enumerate() {
            path_and_query(found, &format!("{field}.matches[{index}]"), check);
        }
        timeouts(rule, &field, check);
        if let Some(given) = &rule.retry {
            retry(given, &format!("{field}.retry"), check);
        }
        if let Some(given) = &rule.session_persistence {
            session(given, &format!("{field}.sessionPersistence"), check);
        }
    }
    Some(common(spec, check))
}

/// What GRPCRoutes have as well.
pub fn common(spec: HttpRouteSpec, check: &mut Check<'_>) -> HttpRoute {
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
            headers(found, &format!("{field}.matches[{index}]"), check);
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
    }
    let HttpRouteSpec { parent_refs, hostnames, rules, use_default_gateways: _ } = spec;
    HttpRoute { parent_refs, hostnames, rules: rules.into_iter().flatten().map(RouteRule::from).collect() }
}

fn path_and_query(found: &HttpRouteRulesMatches, field: &str, check: &mut Check<'_>) {
    if let Some(path) = &found.path {
        let kind = path.r#type.as_ref().unwrap_or(&PathType::PathPrefix);
        let value = path.value.as_deref().unwrap_or("/");
        if *kind == PathType::RegularExpression {
            check.regex(format_args!("{field}.path.value"), value);
        } else if !is_absolute_path(value) {
            let hint = "begins with /, without //, /./, /../, %2f, # or a trailing /..";
            check.error(format_args!("{field}.path.value"), format_args!("{} is not a path", Shown(value)), hint);
        }
    }
    for (index, parameter) in found.query_params.iter().flatten().enumerate() {
        if parameter.r#type == Some(QueryType::RegularExpression) {
            check.regex(format_args!("{field}.queryParams[{index}].value"), &parameter.value);
        }
    }
}

fn headers(found: &HttpRouteRulesMatches, field: &str, check: &mut Check<'_>) {
    for (index, header) in found.headers.iter().flatten().enumerate() {
        let field = format!("{field}.headers[{index}]");
        header_name(format!("{field}.name"), &header.name, check);
        if header.r#type == Some(HeaderType::RegularExpression) {
            check.regex(format_args!("{field}.value"), &header.value);
        }
    }
}

fn timeouts(rule: &HttpRouteRules, field: &str, check: &mut Check<'_>) {
    let Some(timeouts) = &rule.timeouts else { return };
    for (name, text) in [("request", &timeouts.request), ("backendRequest", &timeouts.backend_request)] {
        duration(format!("{field}.timeouts.{name}"), text.as_deref(), check);
    }
}

fn retry(retry: &Retry, field: &str, check: &mut Check<'_>) {
    if let Some(attempts) = retry.attempts {
        check.number(format_args!("{field}.attempts"), attempts, 1, u32::MAX.into());
    }
    for (index, code) in retry.codes.iter().flatten().enumerate() {
        check.number(format_args!("{field}.codes[{index}]"), *code, 400, 599);
    }
    duration(format!("{field}.backoff"), retry.backoff.as_deref(), check);
}

fn session(session: &Session, field: &str, check: &mut Check<'_>) {
    let is_header = session.r#type == Some(SessionType::Header);
    if let Some(name) = session.session_name.as_deref().filter(|name| !name.is_empty()) {
        header_name(format!("{field}.sessionName"), name, check);
        if name.len() > SESSION_NAME {
            check.error(format_args!("{field}.sessionName"), "the name is too long", "128 characters at most");
        }
        if is_header && name.to_ascii_lowercase().starts_with("x-tollgate-") {
            let message = "headers with this prefix are taken from clients' requests";
            check.error(format_args!("{field}.sessionName"), message, "another name");
        }
    }
    for (name, text) in [("absoluteTimeout", &session.absolute_timeout), ("idleTimeout", &session.idle_timeout)] {
        duration(format!("{field}.{name}"), text.as_deref(), check);
    }
    let cookie = session.cookie_config.as_ref();
    if is_header && cookie.is_some() {
        check.error(format_args!("{field}.cookieConfig"), "a header is no cookie", "type: Cookie");
    }
    let is_permanent = cookie.and_then(|cookie| cookie.lifetime_type.as_ref()) == Some(&LifetimeType::Permanent);
    if is_permanent && session.absolute_timeout.is_none() {
        check.error(format_args!("{field}.absoluteTimeout"), "a permanent cookie needs it", "for example 1h");
    }
}

fn duration(field: String, text: Option<&str>, check: &mut Check<'_>) {
    if let Some(text) = text
        && let Err(error) = super::parse_duration(text)
    {
        check.error(field, error, super::duration::HINT);
    }
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
        FilterType::ExternalAuth => ("externalAuth", filter.external_auth.is_some()),
    };
    let count = [
        filter.request_header_modifier.is_some(),
        filter.response_header_modifier.is_some(),
        filter.request_mirror.is_some(),
        filter.request_redirect.is_some(),
        filter.url_rewrite.is_some(),
        filter.extension_ref.is_some(),
        filter.cors.is_some(),
        filter.external_auth.is_some(),
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
    if let Some(given) = &filter.request_mirror {
        mirror(given, &format!("{field}.requestMirror"), check);
    }
    if let Some(given) = &filter.cors {
        cors(given, &format!("{field}.cors"), check);
    }
}

fn modifier_field(filter: &Filter) -> &'static str {
    if filter.request_header_modifier.is_some() { "requestHeaderModifier" } else { "responseHeaderModifier" }
}

fn mirror(mirror: &Mirror, field: &str, check: &mut Check<'_>) {
    if let Some(port) = mirror.backend_ref.port {
        check.port(format_args!("{field}.backendRef.port"), port.into());
    }
    if let Some(percent) = mirror.percent {
        check.number(format_args!("{field}.percent"), percent.into(), 0, 100);
    }
    let Some(fraction) = &mirror.fraction else { return };
    if mirror.percent.is_some() {
        check.error(format_args!("{field}.fraction"), "percent says it already", "one of percent and fraction");
    }
    let denominator = i64::from(fraction.denominator.unwrap_or(100));
    check.number(format_args!("{field}.fraction.denominator"), denominator, 1, i32::MAX.into());
    check.number(format_args!("{field}.fraction.numerator"), fraction.numerator.into(), 0, denominator.max(0));
}

fn cors(cors: &Cors, field: &str, check: &mut Check<'_>) {
    for (index, origin) in cors.allow_origins.iter().flatten().enumerate() {
        if !is_origin(origin) {
            check.error(
                format_args!("{field}.allowOrigins[{index}]"),
                format_args!("{} is not an origin", Shown(origin)),
                "*, or a scheme and a host, for example https://*.example.com",
            );
        }
    }
    let lists = [
        ("allowOrigins", &cors.allow_origins),
        ("allowMethods", &cors.allow_methods),
        ("allowHeaders", &cors.allow_headers),
    ];
    for (name, list) in lists {
        let list = list.as_deref().unwrap_or_default();
        if list.len() > 1 && list.iter().any(|entry| entry == "*") {
            check.error(
                format_args!("{field}.{name}"),
                "* stands beside other entries",
                "* alone, or a list without it",
            );
        }
    }
    let names = [("allowMethods", &cors.allow_methods), ("allowHeaders", &cors.allow_headers)];
    for (name, list) in names.into_iter().chain([("exposeHeaders", &cors.expose_headers)]) {
        for (index, entry) in list.iter().flatten().enumerate() {
            header_name(format!("{field}.{name}[{index}]"), entry, check);
        }
    }
    if let Some(seconds) = cors.max_age {
        check.number(format_args!("{field}.maxAge"), seconds.into(), 1, i32::MAX.into());
    }
}

/// `*`, or `<scheme>://<host>(:<port>)`, whose host may have one `*`, at its beginning.
fn is_origin(origin: &str) -> bool {
    let Some((scheme, rest)) = origin.split_once("://") else { return origin == "*" };
    let (host, port) = rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)));
    let name = host.strip_prefix('*').unwrap_or(host);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    matches!(scheme, "http" | "https")
        && !host.is_empty()
        && name.bytes().all(is_name)
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_a_scheme_and_a_host() {
        for origin in ["*", "https://a.com", "http://a.com:8080", "https://*.a.com", "https://*", "https://a-b_c.com"] {
            assert!(is_origin(origin), "{origin}");
        }
        for other in ["", "a.com", "ftp://a.com", "https://", "https://a.com/b", "https://a.*.com", "https://a.com:0"] {
            assert!(!is_origin(other), "{other}");
        }
    }
}
