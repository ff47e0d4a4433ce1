//! GRPCRoutes. But for what a match says of services and methods, they have what HTTPRoutes have, so the rest is kept in
//! the types of HTTPRoute.

use gateway_api::apis::experimental::httproutes::HttpRouteSpec;
use gateway_api::apis::standard::grpcroutes::{
    GrpcRouteRulesMatchesMethod as Method, GrpcRouteRulesMatchesMethodType as MethodType, GrpcRouteSpec,
};
use serde_json::Value;

use super::check::Check;
use super::decode::{Decoded, Misfit, Strictness, decode};
use super::http_route::{self, HttpRoute};
use super::redact::Shown;

#[derive(Debug, Clone)]
pub struct GrpcRoute {
    /// All but the services and methods. The matches have headers alone.
    pub common: HttpRoute,
    /// Of each match of each rule.
    methods: Vec<Vec<GrpcMethod>>,
}

/// Which calls a match is for. What is absent may be anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrpcMethod {
    /// Both are regular expressions.
    pub is_regex: bool,
    pub service: Option<String>,
    pub method: Option<String>,
}

pub fn grpc_route(spec: GrpcRouteSpec, check: &mut Check<'_>) -> Option<GrpcRoute> {
    let mut methods = Vec::new();
    for (rule, given) in spec.rules.iter().flatten().enumerate() {
        let matches = given.matches.iter().flatten().enumerate();
        let field = |number: usize| format!("spec.rules[{rule}].matches[{number}].method");
        methods.push(matches.map(|(number, found)| method(found.method.as_ref(), &field(number), check)).collect());
    }
    let common = match common(&spec) {
        Ok(Decoded { value, .. }) => value,
        Err(misfits) => {
            for misfit in misfits {
                check.unreadable(Misfit { field: format!("spec.{}", misfit.field), ..misfit });
            }
            return None;
        }
    };
    Some(GrpcRoute { common: http_route::common(common, check), methods })
}

fn method(given: Option<&Method>, field: &str, check: &mut Check<'_>) -> GrpcMethod {
    let Some(given) = given else { return GrpcMethod::default() };
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let method = GrpcMethod {
        is_regex: given.r#type == Some(MethodType::RegularExpression),
        service: text(&given.service),
        method: text(&given.method),
    };
    if method.service.is_none() && method.method.is_none() {
        check.error(field, "neither a service nor a method is named", "service, method or both");
    }
    let parts =
        [("service", &method.service, "letters, digits, _ and ."), ("method", &method.method, "letters, digits and _")];
    for (name, value, hint) in parts {
        let Some(value) = value else { continue };
        let field = format!("{field}.{name}");
        if method.is_regex {
            check.regex(field, value);
        } else if !is_name(value, name == "service") {
            check.error(field, format_args!("{} is not the name of a {name}", Shown(value)), hint);
        }
    }
    method
}

/// The rules of GRPCMethodMatch. A service has its package in front, with dots.
fn is_name(name: &str, is_service: bool) -> bool {
    let is_word = |word: &str| {
        !word.starts_with(|first: char| first.is_ascii_digit())
            && !word.is_empty()
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if is_service { name.strip_prefix('.').unwrap_or(name).split('.').all(is_word) } else { is_word(name) }
}

/// What both kinds have, under the same names.
fn common(spec: &GrpcRouteSpec) -> Result<Decoded<HttpRouteSpec>, Vec<Misfit>> {
    let mut spec = serde_json::to_value(spec).unwrap_or_default();
    let rules = spec.get_mut("rules").and_then(Value::as_array_mut).into_iter().flatten();
    let matches = rules.filter_map(|rule| rule.get_mut("matches")?.as_array_mut()).flatten();
    for found in matches.filter_map(Value::as_object_mut) {
        found.shift_remove("method");
    }
    decode(spec, Strictness::Lenient)
}

// === impl GrpcRoute ===

impl GrpcRoute {
    /// None: the rule has no such match.
    pub fn method(&self, rule: usize, number: usize) -> Option<&GrpcMethod> {
        self.methods.get(rule)?.get(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_have_packages_and_methods_do_not() {
        for service in ["Echo", "a.b_c.Echo2", ".a.Echo"] {
            assert!(is_name(service, true), "{service}");
        }
        for other in ["", ".", "a..b", "a/b", "1a", "a.1b", "a-b"] {
            assert!(!is_name(other, true), "{other}");
        }
        assert!(is_name("Echo_2", false) && !is_name("a.Echo", false) && !is_name("", false));
    }
}
