//! RequestAuthentications to the issuers whose JWTs a Gateway verifies. What cannot be verified makes nobody known: a rule that
//! is refused opens nothing.

use std::collections::{BTreeMap, BTreeSet};

use http::Uri;
use http::uri::Scheme;
use serde_json::Value;
use tollgate_proto::jwt::MAX_SETS;

use crate::ir::{ClaimSet, JwtIssuer, JwtKeys};
use crate::objects::{Gateway, JwtRule, Object, RequestAuthentication, Shown};
use crate::status::{Finding, Reason, Severity};

use super::claim_sets::ClaimSets;
use super::view::View;

/// Bytes of the longest set of keys that is sent to proxies.
const MAX_JWKS: usize = 64 << 10;

pub fn issuers(view: View<'_>, gateway: &Object<Gateway>, findings: &mut Vec<Finding>) -> Vec<JwtIssuer> {
    let mut issuers: Vec<JwtIssuer> = Vec::new();
    for object in view.request_authentications(&gateway.meta.key()) {
        for (index, rule) in object.spec.rules.iter().enumerate() {
            let at = At { object, field: format!("spec.jwtRules[{index}]") };
            match issuer(&at, rule) {
                Err(finding) => findings.push(finding),
                Ok(issuer) if issuers.iter().any(|other| other.issuer == issuer.issuer) => {
                    let message = format!("another rule for {} is older or comes first", Shown(&issuer.issuer));
                    findings.push(at.refused(".issuer", Reason::Conflicted, message, "each issuer once"));
                }
                Ok(issuer) => issuers.push(issuer),
            }
        }
    }
    issuers
}

/// What Consumers ask of the JWTs of these issuers, in whatever namespace they are. A pool says whose Consumers count.
pub fn claim_sets(of_all: &BTreeMap<String, ClaimSets>, issuers: &[JwtIssuer]) -> BTreeSet<ClaimSet> {
    let is_verified = |set: &ClaimSet| issuers.iter().any(|issuer| issuer.issuer == set.issuer);
    let sets: BTreeSet<ClaimSet> = of_all.values().flat_map(ClaimSets::looked_at).filter(is_verified).collect();
    sets.into_iter().take(MAX_SETS).collect()
}

/// A rule, for what is said of it.
struct At<'a> {
    object: &'a Object<RequestAuthentication>,
    field: String,
}

fn issuer(at: &At<'_>, rule: &JwtRule) -> Result<JwtIssuer, Finding> {
    if rule.issuer.is_empty() {
        return Err(at.refused(".issuer", Reason::Invalid, "the issuer is missing", "as the claim `iss` has it"));
    }
    let elsewhere = [
        ("fromHeaders", &rule.from_headers),
        ("fromParams", &rule.from_params),
        ("fromCookies", &rule.from_cookies),
        ("outputClaimToHeaders", &rule.output_claim_to_headers),
    ];
    let mut elsewhere = elsewhere.into_iter().filter(|(_, given)| !given.is_empty()).map(|(field, _)| field);
    let header = (!rule.output_payload_to_header.is_empty()).then_some("outputPayloadToHeader");
    let spaces = (!rule.space_delimited_claims.is_empty()).then_some("spaceDelimitedClaims");
    if let Some(field) = elsewhere.next().or(header).or(spaces) {
        let message = "Gateways of Tollgate take a JWT from `Authorization: Bearer` alone, and pass nothing of it on";
        return Err(at.refused(&format!(".{field}"), Reason::UnsupportedValue, message, "remove it"));
    }
    let keys = match (rule.jwks.as_str(), rule.jwks_uri.as_str()) {
        ("", "") => {
            let message = "where its keys are is not said, and nobody is asked for it";
            return Err(at.refused(".jwksUri", Reason::Invalid, message, "jwksUri, or the keys as jwks"));
        }
        ("", uri) => remote(uri).map_err(|hint| {
            let message = format!("{} is no address of keys", Shown(uri));
            at.refused(".jwksUri", Reason::Invalid, message, hint)
        })?,
        (keys, _) if keys.len() > MAX_JWKS => {
            let message = format!("the keys are longer than {} KiB", MAX_JWKS >> 10);
            return Err(at.refused(".jwks", Reason::Invalid, message, "have them fetched by jwksUri"));
        }
        (keys, _) if !are_keys(keys) => {
            return Err(at.refused(".jwks", Reason::Invalid, "this is no set of keys", "{\"keys\": [...]}, RFC 7517"));
        }
        (keys, _) => JwtKeys::Inline { jwks: keys.to_owned() },
    };
    let origin = at.object.meta.origin.clone();
    Ok(JwtIssuer { origin, issuer: rule.issuer.clone(), audiences: rule.audiences.clone(), keys })
}

/// Of a set without a key that it can use, Envoy speaks in its log alone.
fn are_keys(jwks: &str) -> bool {
    const TYPES: [&str; 4] = ["RSA", "EC", "OKP", "oct"];
    let set: Option<Value> = serde_json::from_str(jwks).ok();
    let keys = set.as_ref().and_then(|set| set.get("keys")?.as_array());
    let is_key = |key: &Value| key.get("kty").and_then(Value::as_str).is_some_and(|kind| TYPES.contains(&kind));
    keys.is_some_and(|keys| !keys.is_empty() && keys.iter().all(is_key))
}

fn remote(uri: &str) -> Result<JwtKeys, &'static str> {
    let parsed: Uri = uri.parse().map_err(|_| "for example https://sso.example/keys")?;
    let tls = match parsed.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        Some(scheme) if *scheme == Scheme::HTTP => false,
        _ => return Err("with https:// or http://"),
    };
    let authority = parsed.authority().filter(|authority| !authority.as_str().contains('@'));
    let host = authority.map(http::uri::Authority::host).filter(|host| !host.is_empty());
    let Some(host) = host else { return Err("with a hostname, and without a user") };
    let port = parsed.port_u16().unwrap_or(if tls { 443 } else { 80 });
    Ok(JwtKeys::Remote { uri: uri.to_owned(), host: host.to_owned(), port, tls })
}

// === impl At ===

impl At<'_> {
    fn refused(&self, field: &str, reason: Reason, message: impl std::fmt::Display, hint: &str) -> Finding {
        let Self { object, field: rule } = self;
        object.meta.finding(Severity::Error, reason, format_args!("{rule}{field}"), message, hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{NoSecretSource, Objects};

    #[test]
    fn keys_are_fetched_from_an_address() {
        let found = |uri: &str| match remote(uri) {
            Ok(JwtKeys::Remote { host, port, tls, .. }) => Ok((host, port, tls)),
            Ok(keys) => panic!("{keys:?}"),
            Err(hint) => Err(hint),
        };
        assert_eq!(found("https://sso.example/keys"), Ok(("sso.example".to_owned(), 443, true)));
        assert_eq!(found("http://dex.auth:5556/keys?x=1"), Ok(("dex.auth".to_owned(), 5556, false)));
        assert_eq!(found("http://[::1]/"), Ok(("[::1]".to_owned(), 80, false)));
        for bad in ["", "/keys", "sso.example/keys", "ftp://a/b", "https://u:p@a/b", "https://", "a b"] {
            assert!(found(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_set_of_keys_has_keys_of_known_types() {
        assert!(are_keys(r#"{"keys": [{"kty": "RSA"}, {"kty": "EC", "crv": "P-256"}]}"#));
        for bad in ["", "{}", "[]", r#"{"keys": []}"#, r#"{"keys": [{}]}"#, r#"{"keys": [{"kty": "DSA"}]}"#] {
            assert!(!are_keys(bad), "{bad}");
        }
    }

    #[test]
    fn a_set_of_keys_is_as_long_as_it_may_be() {
        let with = |bytes: usize| {
            let padding = "x".repeat(bytes - r#"{"keys":[{"kty":"RSA","x":""}]}"#.len());
            let text = format!(
                "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: sso}}\n\
                 spec: {{jwtRules: [{{issuer: i, jwks: '{{\"keys\":[{{\"kty\":\"RSA\",\"x\":\"{padding}\"}}]}}'}}]}}\n"
            );
            let mut objects = Objects::default();
            assert_eq!(objects.add_yaml("f", &text, &NoSecretSource), []);
            let object = objects.request_authentications.iter().next().unwrap();
            let [rule] = &object.spec.rules[..] else { panic!("{object:?}") };
            issuer(&At { object, field: "spec.jwtRules[0]".to_owned() }, rule)
        };
        assert!(with(MAX_JWKS).is_ok());
        assert_eq!(with(MAX_JWKS + 1).unwrap_err().field, "spec.jwtRules[0].jwks");
    }
}
