//! `claims` of a Consumer: by which JWTs, verified by Envoy, its callers are known.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use tollgate_proto::jwt::{MAX_CLAIMS, MAX_VALUE};

use super::check::Check;
use super::redact::Shown;
use crate::terms::names::is_claim_name;

/// A JWT of this issuer that has all of these claims.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct JwtClaims {
    pub issuer: String,
    /// By name. A number or a boolean of a JWT has its text here.
    pub claims: BTreeMap<String, String>,
}

/// A JWT that Envoy has verified, with this issuer and all of these claims.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JwtClaimsWire {
    /// The issuer (`iss`) of the JWT, as it stands there.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 2048), regex(pattern = r"^[^\x00-\x1f\x7f]*$")))]
    issuer: String,
    /// Claims and their values, as texts; where the JWT has a list, one of its elements is enough. Absent: any JWT of the
    /// issuer.
    #[cfg_attr(feature = "schema", schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "minLength": 1, "maxLength": 256})))]
    #[serde(default, rename = "match")]
    claims: BTreeMap<String, String>,
}

/// The most entries of one Consumer.
const MAX_ENTRIES: usize = 8;

pub fn jwt_claims(wires: Vec<JwtClaimsWire>, check: &mut Check<'_>) -> Vec<JwtClaims> {
    if wires.len() > MAX_ENTRIES {
        check.error("spec.claims", format_args!("{} entries", wires.len()), format_args!("at most {MAX_ENTRIES}"));
    }
    let mut seen = BTreeSet::new();
    let entries = wires.into_iter().map(|JwtClaimsWire { issuer, claims }| JwtClaims { issuer, claims });
    let entries = entries.collect::<Vec<_>>();
    for (index, entry) in entries.iter().enumerate() {
        let field = format!("spec.claims[{index}]");
        self::entry(entry, &field, check);
        if !seen.insert(entry) {
            check.error(field, "these claims are listed twice", "");
        }
    }
    entries
}

fn entry(entry: &JwtClaims, field: &str, check: &mut Check<'_>) {
    let JwtClaims { issuer, claims } = entry;
    if !(1..=2048).contains(&issuer.len()) || issuer.chars().any(char::is_control) {
        let message = format_args!("{} is not an issuer", Shown(issuer));
        check.error(format_args!("{field}.issuer"), message, "the text that JWTs have as iss");
    }
    if claims.len() > MAX_CLAIMS {
        let message = format_args!("{} claims", claims.len());
        check.error(format_args!("{field}.match"), message, format_args!("at most {MAX_CLAIMS}"));
    }
    for (name, value) in claims {
        if !is_claim_name(name) {
            check.error(format_args!("{field}.match"), format_args!("{} is not a name of a claim", Shown(name)), "");
        }
        if !(1..=MAX_VALUE).contains(&value.len()) {
            let message = format_args!("a value of {} bytes", value.len());
            check.error(format_args!("{field}.match.{name}"), message, format_args!("1 to {MAX_VALUE} bytes"));
        }
    }
}
