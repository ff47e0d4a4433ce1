//! Matches and rewrites of paths, headers and query parameters in Envoy's terms.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::r#type::matcher::v3::{
    RegexMatchAndSubstitute, RegexMatcher, StringMatcher, string_matcher::MatchPattern,
};
use envoy_types::pb::google::protobuf::BoolValue;

use crate::ir::{HeaderEdits, HeaderMatch, Match, PathMatch, PathRewrite, TextMatch};

pub fn route_match(matches: &Match) -> route::RouteMatch {
    use route::route_match::PathSpecifier;
    let path = match &matches.path {
        PathMatch::Exact(path) => PathSpecifier::Path(path.clone()),
        PathMatch::Prefix(prefix) if prefix == "/" => PathSpecifier::Prefix(prefix.clone()),
        PathMatch::Prefix(prefix) => PathSpecifier::PathSeparatedPrefix(prefix.clone()),
        PathMatch::Regex(regex) => PathSpecifier::SafeRegex(self::regex(regex)),
        PathMatch::Call { service, method } => call(service.as_ref(), method.as_ref()),
    };
    let method = matches.method.as_ref().map(|method| header(":method", exact(method)));
    let headers = matches.headers.iter().map(|found| header(&found.name, text(&found.value)));
    route::RouteMatch {
        path_specifier: Some(path),
        headers: method.into_iter().chain(headers).collect(),
        query_parameters: matches.query.iter().map(query).collect(),
        // The content type says whether a request is a call.
        grpc: matches!(matches.path, PathMatch::Call { .. }).then_some(route::route_match::GrpcRouteMatchOptions {}),
        ..Default::default()
    }
}

/// The path of a call is `/<service>/<method>`.
fn call(service: Option<&TextMatch>, method: Option<&TextMatch>) -> route::route_match::PathSpecifier {
    use route::route_match::PathSpecifier;
    let part = |part: Option<&TextMatch>| match part {
        Some(TextMatch::Exact(name)) => escape_regex(name),
        Some(TextMatch::Regex(regex)) => format!("(?:{regex})"),
        None => "[^/]+".to_owned(),
    };
    match (service, method) {
        (None, None) => PathSpecifier::Prefix("/".to_owned()),
        (Some(TextMatch::Exact(service)), None) => PathSpecifier::PathSeparatedPrefix(format!("/{service}")),
        (Some(TextMatch::Exact(service)), Some(TextMatch::Exact(method))) => {
            PathSpecifier::Path(format!("/{service}/{method}"))
        }
        (service, method) => PathSpecifier::SafeRegex(regex(&format!("/{}/{}", part(service), part(method)))),
    }
}

fn query(found: &HeaderMatch) -> route::QueryParameterMatcher {
    use route::query_parameter_matcher::QueryParameterMatchSpecifier;
    route::QueryParameterMatcher {
        name: found.name.clone(),
        query_parameter_match_specifier: Some(QueryParameterMatchSpecifier::StringMatch(text(&found.value))),
    }
}

fn header(name: &str, value: StringMatcher) -> route::HeaderMatcher {
    route::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(route::header_matcher::HeaderMatchSpecifier::StringMatch(value)),
        ..Default::default()
    }
}

/// Matches a header with exactly this value.
pub fn exact_header(name: &str, value: &str) -> route::HeaderMatcher {
    header(name, exact(value))
}

fn text(value: &TextMatch) -> StringMatcher {
    match value {
        TextMatch::Exact(value) => exact(value),
        TextMatch::Regex(regex) => {
            StringMatcher { match_pattern: Some(MatchPattern::SafeRegex(self::regex(regex))), ..Default::default() }
        }
    }
}

pub fn exact(value: &str) -> StringMatcher {
    StringMatcher { match_pattern: Some(MatchPattern::Exact(value.to_owned())), ..Default::default() }
}

pub fn regex(regex: &str) -> RegexMatcher {
    RegexMatcher { regex: regex.to_owned(), ..Default::default() }
}

/// How the path of a matched request changes.
pub enum Change {
    /// The matched prefix becomes this.
    Prefix(String),
    Pattern(RegexMatchAndSubstitute),
}

pub fn change(matched: &PathMatch, rewrite: &PathRewrite) -> Change {
    let pattern = |regex: String, substitution: String| {
        Change::Pattern(RegexMatchAndSubstitute { pattern: Some(self::regex(&regex)), substitution })
    };
    match (rewrite, matched) {
        (PathRewrite::Full(path), _) => pattern("^/.*$".to_owned(), escape_substitution(path)),
        (PathRewrite::Prefix(new), PathMatch::Prefix(old)) => {
            let new = new.trim_end_matches('/');
            match (old.as_str(), new) {
                // When the root becomes a prefix, or a prefix the root, a slash comes or goes with the prefix.
                ("/", new) => pattern("^/".to_owned(), format!("{}/", escape_substitution(new))),
                (old, "") => pattern(format!("^{}/*", escape_regex(old)), "/".to_owned()),
                (_, new) => Change::Prefix(new.to_owned()),
            }
        }
        // The translate stage refuses this combination.
        (PathRewrite::Prefix(new), _) => Change::Prefix(new.clone()),
    }
}

fn escape_substitution(text: &str) -> String {
    text.replace('\\', "\\\\")
}

pub fn escape_regex(text: &str) -> String {
    text.chars().flat_map(|c| (!c.is_ascii_alphanumeric() && c != '/').then_some('\\').into_iter().chain([c])).collect()
}

pub fn header_options(edits: &HeaderEdits) -> Vec<core::HeaderValueOption> {
    use core::header_value_option::HeaderAppendAction;
    let option = |(name, value): &(String, String), action: HeaderAppendAction| core::HeaderValueOption {
        header: Some(core::HeaderValue {
            key: name.clone(),
            // Values are text, not Envoy's format strings.
            value: value.replace('%', "%%"),
            ..Default::default()
        }),
        append_action: action.into(),
        keep_empty_value: true,
        ..Default::default()
    };
    let set = edits.set.iter().map(|header| option(header, HeaderAppendAction::OverwriteIfExistsOrAdd));
    set.chain(edits.add.iter().map(|header| option(header, HeaderAppendAction::AppendIfExistsOrAdd))).collect()
}

/// A virtual host for a domain. Names are compared without their port.
pub fn virtual_host(name: String, domain: &str, routes: Vec<route::Route>) -> route::VirtualHost {
    route::VirtualHost { name, domains: vec![domain.to_owned()], routes, ..Default::default() }
}

pub fn route_configuration(name: String, virtual_hosts: Vec<route::VirtualHost>) -> route::RouteConfiguration {
    route::RouteConfiguration {
        name,
        virtual_hosts,
        // Hostnames of the Gateway API have no port; the client's Host may have one.
        ignore_port_in_host_matching: true,
        // Clusters come before the routes that name them.
        validate_clusters: Some(BoolValue { value: false }),
        ..Default::default()
    }
}
