//! RequestAuthentication of Istio: whose JWTs are verified, and where. Istio acts on it in sidecars and at its own Gateways, and
//! we do at ours. So what is wrong with a rule is told where it is acted on, and not here.

use serde::Deserialize;
use serde_json::Value;

use super::check::Check;
use super::{GATEWAY_GROUP, Gateway, Kind as _};

pub const SECURITY_GROUP: &str = "security.istio.io";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestAuthentication {
    /// The Gateways of its namespace that it is for. Without any it is for workloads, which are Istio's business.
    pub gateways: Vec<String>,
    pub rules: Vec<JwtRule>,
}

/// One issuer (JWTRule).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JwtRule {
    pub issuer: String,
    pub audiences: Vec<String>,
    /// Where its keys are (JWKS, RFC 7517, 5).
    #[serde(alias = "jwks_uri")]
    pub jwks_uri: String,
    /// The keys themselves.
    pub jwks: String,
    pub from_headers: Vec<Value>,
    pub from_params: Vec<Value>,
    pub from_cookies: Vec<Value>,
    pub output_payload_to_header: String,
    pub output_claim_to_headers: Vec<Value>,
    /// A route that leads to no model passes all headers on, and one to a model never a JWT.
    #[serde(rename = "forwardOriginalToken")]
    _forward_original_token: bool,
    #[serde(rename = "timeout")]
    _timeout: Option<String>,
    pub space_delimited_claims: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestAuthenticationWire {
    #[serde(rename = "selector")]
    _selector: Option<Value>,
    target_ref: Option<TargetWire>,
    #[serde(default)]
    target_refs: Vec<TargetWire>,
    #[serde(default)]
    jwt_rules: Vec<JwtRule>,
}

#[derive(Deserialize)]
struct TargetWire {
    #[serde(default)]
    group: String,
    kind: String,
    name: String,
    #[serde(rename = "namespace")]
    _namespace: Option<String>,
}

pub fn request_authentication(wire: RequestAuthenticationWire, _: &mut Check<'_>) -> Option<RequestAuthentication> {
    let is_gateway = |target: &TargetWire| (&*target.group, &*target.kind) == (GATEWAY_GROUP, Gateway::NAME);
    let targets = wire.target_ref.into_iter().chain(wire.target_refs);
    let gateways = targets.filter(is_gateway).map(|target| target.name).collect();
    Some(RequestAuthentication { gateways, rules: wire.jwt_rules })
}
