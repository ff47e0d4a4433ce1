//! Matches of a rule: the Gateway API's defaults filled in, names of headers in lower case.

use gateway_api::apis::experimental::httproutes::{
    HttpRouteRulesMatches, HttpRouteRulesMatchesHeadersType as HeaderType, HttpRouteRulesMatchesPathType as PathType,
    HttpRouteRulesMatchesQueryParamsType as QueryType,
};

use crate::ir::{HeaderMatch, Match, PathMatch, TextMatch};
use crate::objects::GrpcMethod;

/// A match of calls. `found` has its headers.
pub fn calls(method: Option<&GrpcMethod>, found: &HttpRouteRulesMatches) -> Match {
    let part = |part: fn(&GrpcMethod) -> &Option<String>| {
        let method = method?;
        part(method).as_ref().map(|value| text(method.is_regex, value))
    };
    let path = PathMatch::Call { service: part(|method| &method.service), method: part(|method| &method.method) };
    Match { path, headers: headers(found), ..Match::default() }
}

pub fn matches(found: &HttpRouteRulesMatches) -> Match {
    let path = found.path.as_ref();
    let value = path.and_then(|path| path.value.clone()).unwrap_or_else(|| "/".to_owned());
    let path = match path.and_then(|path| path.r#type.as_ref()).unwrap_or(&PathType::PathPrefix) {
        PathType::Exact => PathMatch::Exact(value),
        PathType::RegularExpression => PathMatch::Regex(value),
        PathType::PathPrefix => match value.trim_end_matches('/') {
            "" => PathMatch::Prefix("/".to_owned()),
            prefix => PathMatch::Prefix(prefix.to_owned()),
        },
    };
    let mut query: Vec<HeaderMatch> = Vec::new();
    for parameter in found.query_params.iter().flatten() {
        if query.iter().all(|other| other.name != parameter.name) {
            let regex = parameter.r#type == Some(QueryType::RegularExpression);
            query.push(HeaderMatch { name: parameter.name.clone(), value: text(regex, &parameter.value) });
        }
    }
    let method = found.method.as_ref().map(|method| format!("{method:?}").to_ascii_uppercase());
    Match { path, method, headers: headers(found), query: query.into() }
}

fn headers(found: &HttpRouteRulesMatches) -> Box<[HeaderMatch]> {
    let mut headers: Vec<HeaderMatch> = Vec::new();
    for header in found.headers.iter().flatten() {
        let name = header.name.to_ascii_lowercase();
        // Only the first of equal names counts (HTTPHeaderMatch.name).
        if headers.iter().all(|other| other.name != name) {
            let regex = header.r#type == Some(HeaderType::RegularExpression);
            headers.push(HeaderMatch { name, value: text(regex, &header.value) });
        }
    }
    headers.into()
}

fn text(regex: bool, value: &str) -> TextMatch {
    if regex { TextMatch::Regex(value.to_owned()) } else { TextMatch::Exact(value.to_owned()) }
}
