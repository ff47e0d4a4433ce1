//! The CORS filter of a rule.

use gateway_api::apis::experimental::httproutes::HttpRouteRulesFiltersCors as CorsFilter;

use crate::ir::{Cors, OriginMatch};

/// The Gateway API's default.
const SECONDS: u32 = 5;
const ANY: &str = "*";

pub fn cors(filter: &CorsFilter) -> Cors {
    let list = |given: &Option<Vec<String>>| given.clone().unwrap_or_default();
    let credentials = filter.allow_credentials.unwrap_or_default();
    let mut exposed_headers = list(&filter.expose_headers);
    if credentials {
        // To a request with credentials it is the name of a header (HTTPCORSFilter.exposeHeaders).
        exposed_headers.retain(|name| name != ANY);
    }
    Cors {
        origins: filter.allow_origins.iter().flatten().map(|origin| self::origin(origin)).collect(),
        methods: list(&filter.allow_methods),
        headers: list(&filter.allow_headers),
        exposed_headers,
        credentials,
        seconds: filter.max_age.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(SECONDS),
    }
}

/// A browser leaves out the port that its scheme has anyway, and writes the host in lower case.
fn origin(given: &str) -> OriginMatch {
    let origin = given.to_ascii_lowercase();
    let own_port = if origin.starts_with("https:") { ":443" } else { ":80" };
    let origin = origin.strip_suffix(own_port).unwrap_or(&origin);
    match origin.split_once('*') {
        Some(("", "")) => OriginMatch::Any,
        Some((before, after)) => OriginMatch::Around(before.to_owned(), after.to_owned()),
        None => OriginMatch::Exact(origin.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_as_browsers_write_them() {
        let exact = |text: &str| OriginMatch::Exact(text.to_owned());
        let around = |before: &str, after: &str| OriginMatch::Around(before.to_owned(), after.to_owned());
        for (given, meant) in [
            ("*", OriginMatch::Any),
            ("https://A.com:443", exact("https://a.com")),
            ("http://a.com:443", exact("http://a.com:443")),
            ("http://a.com:80", exact("http://a.com")),
            ("https://*.a.com", around("https://", ".a.com")),
            ("http://*", around("http://", "")),
            ("http://*:80", around("http://", "")),
        ] {
            assert_eq!(origin(given), meant, "{given}");
        }
    }

    #[test]
    fn any_header_is_exposed_only_without_credentials() {
        let given = |credentials| CorsFilter {
            allow_credentials: Some(credentials),
            expose_headers: Some(vec!["*".to_owned(), "x-a".to_owned()]),
            ..CorsFilter::default()
        };
        assert_eq!(cors(&given(false)).exposed_headers, ["*", "x-a"]);
        assert_eq!(cors(&given(true)).exposed_headers, ["x-a"]);
    }
}
