//! Consumer: who may ask.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Deserialize;

use crate::status::Reason;

use super::check::Check;
use super::jwt_claims::{JwtClaims, JwtClaimsWire, jwt_claims};
use super::redact::Shown;
use super::secret_ref::{SecretRef, SecretRefWire};

#[derive(Debug, Clone)]
pub struct Consumer {
    pub keys: Vec<ConsumerKey>,
    /// SPIFFE IDs. Who shows a certificate of the mesh for one of them needs no key.
    pub identities: Vec<String>,
    /// JWTs that Envoy has verified. Who has one of them needs no key.
    pub claims: Vec<JwtClaims>,
    /// Absent: all.
    pub models: Option<Vec<String>>,
}

#[derive(Debug, Clone)]
pub struct ConsumerKey {
    /// Its place in the object.
    pub index: usize,
    pub source: KeySource,
    /// Unix seconds.
    pub not_after: Option<i64>,
}

#[derive(Debug, Clone)]
pub enum KeySource {
    Secret(SecretRef),
    /// Lowercase hex, 64 characters.
    Sha256(String),
}

// === impl KeySource ===

impl KeySource {
    /// How people find the key in its Consumer. A hash is told apart by its beginning.
    pub fn name(&self) -> String {
        match self {
            Self::Secret(secret) => format!("secretRef {}", secret.name),
            Self::Sha256(hash) => hash_name(hash),
        }
    }
}

/// `sha256 2bb80d53…`
pub fn hash_name(sha256: &str) -> String {
    format!("sha256 {}…", sha256.get(..8).unwrap_or(sha256))
}

/// The consumer that all callers of a pool with `access: Anonymous` are.
pub const ANONYMOUS: &str = "anonymous";

/// Who may ask.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConsumerWire {
    /// The keys that callers show.
    #[cfg_attr(feature = "schema", schemars(length(max = 64)))]
    #[serde(default)]
    keys: Vec<KeyWire>,
    /// SPIFFE IDs of callers that need no key, because they show a certificate of the mesh.
    #[cfg_attr(
        feature = "schema",
        schemars(
            length(max = 64),
            inner(length(max = 2048), regex(pattern = r"^spiffe://[a-z0-9._-]+(/[A-Za-z0-9._-]+)+$"))
        )
    )]
    #[serde(default)]
    identities: Vec<String>,
    /// JWTs of callers that need no key, because the sidecar that they come to has verified them.
    #[cfg_attr(feature = "schema", schemars(length(max = 8)))]
    #[serde(default)]
    claims: Vec<JwtClaimsWire>,
    /// Models that the consumer may use; a trailing `*` matches a prefix. Absent: all.
    #[cfg_attr(
        feature = "schema",
        schemars(length(max = 128), inner(regex(pattern = r"^[^*\x00-\x1f\x7f]*[*]?$"), length(min = 1, max = 256)))
    )]
    models: Option<Vec<String>>,
}

/// A key: a Secret, or the SHA-256 of the key.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = [{"rule": "has(self.secretRef) != has(self.sha256)", "message": "either secretRef or sha256"}])))]
struct KeyWire {
    /// The Secret that holds the key.
    secret_ref: Option<SecretRefWire>,
    /// The SHA-256 of the key in hex.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^[0-9a-fA-F]{64}$"), length(max = 64)))]
    sha256: Option<String>,
    /// When the key ends to count, in RFC 3339. Default: never.
    #[cfg_attr(feature = "schema", schemars(extend("format" = "date-time"), length(max = 64)))]
    not_after: Option<String>,
}

pub fn consumer(wire: ConsumerWire, check: &mut Check<'_>) -> Option<Consumer> {
    check.reserved_name(ANONYMOUS, "it stands for the callers of pools with access: Anonymous");
    if wire.keys.is_empty() && wire.identities.is_empty() && wire.claims.is_empty() {
        let message = "the consumer has no key, no identity and no claims";
        check.warning(Reason::NoKey, "spec.keys", message, "nobody can be it");
    }
    let mut seen = BTreeSet::new();
    for (index, identity) in wire.identities.iter().enumerate() {
        let field = format!("spec.identities[{index}]");
        if check.spiffe_id(&field, identity) && !seen.insert(identity) {
            check.error(field, "the identity is listed twice", "");
        }
    }
    let claims = jwt_claims(wire.claims, check);
    for (index, pattern) in wire.models.iter().flatten().enumerate() {
        check.model_pattern(format_args!("spec.models[{index}]"), pattern);
    }
    let mut seen = BTreeSet::new();
    let keys = wire
        .keys
        .into_iter()
        .enumerate()
        .filter_map(|(index, key)| {
            let field = format!("spec.keys[{index}]");
            let key = self::key(key, index, &field, check)?;
            if let KeySource::Sha256(hash) = &key.source
                && !seen.insert(hash.clone())
            {
                check.error(format_args!("{field}.sha256"), "the key is listed twice", "");
            }
            (!check.has_refused(&field)).then_some(key)
        })
        .collect();
    Some(Consumer { keys, identities: wire.identities, claims, models: wire.models })
}

fn key(wire: KeyWire, index: usize, field: &str, check: &mut Check<'_>) -> Option<ConsumerKey> {
    let not_after = wire.not_after.and_then(|text| match text.parse::<Timestamp>() {
        Ok(time) => Some(time.as_second()),
        Err(_) => {
            check.error(
                format_args!("{field}.notAfter"),
                format_args!("{} is not a time", Shown(&text)),
                "RFC 3339, for example 2027-01-01T00:00:00Z",
            );
            None
        }
    });
    let source = match (wire.secret_ref, wire.sha256) {
        (Some(reference), None) => KeySource::Secret(reference.parse(&format!("{field}.secretRef"), "apiKey", check)),
        (None, Some(hash)) if hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            KeySource::Sha256(hash.to_ascii_lowercase())
        }
        (None, Some(hash)) => {
            // What stands here by mistake may be the key itself: its length is all that is shown.
            check.error(
                format_args!("{field}.sha256"),
                format_args!("not a SHA-256 in hex: {} characters instead of 64", hash.len()),
                "printf %s \"$KEY\" | sha256sum, or tollgate key new",
            );
            return None;
        }
        (Some(_), Some(_)) => {
            check.error(field, "both secretRef and sha256", "only one of them");
            return None;
        }
        (None, None) => {
            check.error(field, "the key has neither secretRef nor sha256", "one of them");
            return None;
        }
    };
    Some(ConsumerKey { index, source, not_after })
}
