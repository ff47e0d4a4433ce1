//! What a Consumer asks of a JWT that Envoy has verified, as a proof in the table of keys.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tollgate_proto::jwt::{PREFIX, canonical};

use crate::status::Origin;

/// An issuer and claims. Who has such a JWT is known by them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JwtProof {
    /// `jwt/` and a hash of the rest.
    name: String,
    issuer: String,
    #[serde(rename = "match")]
    claims: BTreeMap<String, String>,
}

/// Which claims of an issuer's JWTs somebody asks for. The filter looks at no others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ClaimSet {
    pub issuer: String,
    /// In order. None: any JWT of the issuer.
    pub claims: Vec<String>,
}

/// Whose JWTs the proxies of a Gateway verify.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JwtIssuer {
    /// The RequestAuthentication.
    pub origin: Origin,
    /// As the claim `iss` has it.
    pub issuer: String,
    /// A JWT is for one of them (`aud`). None: for anybody.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
    pub keys: JwtKeys,
}

/// The keys of an issuer (JWKS, RFC 7517).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum JwtKeys {
    Inline {
        jwks: String,
    },
    /// Envoy fetches them and keeps them current.
    Remote {
        uri: String,
        host: String,
        port: u16,
        tls: bool,
    },
}

// === impl JwtProof ===

impl JwtProof {
    pub fn new(issuer: String, claims: BTreeMap<String, String>) -> Self {
        let text = canonical(&issuer, claims.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let name = format!("{PREFIX}{}", hex::encode(Sha256::digest(text)));
        Self { name, issuer, claims }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// How people find it in the Consumer.
    pub fn label(&self) -> String {
        format!("claims of {}", self.issuer)
    }

    pub fn claim_set(&self) -> ClaimSet {
        ClaimSet { issuer: self.issuer.clone(), claims: self.claims.keys().cloned().collect() }
    }
}

#[cfg(test)]
mod tests {
    use tollgate_filter::key::{KeyHash, Proof};

    use super::*;

    #[test]
    fn the_filter_finds_it_by_the_same_name() {
        let claims = [("team", "research"), ("sub", "alice")];
        let claims = claims.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let proof = JwtProof::new("https://idp.example".to_owned(), claims);
        let sorted = [("sub", "alice"), ("team", "research")].into_iter();
        let of_filter = Proof::Jwt(KeyHash::of(&canonical("https://idp.example", sorted)));
        assert_eq!(format!("k/{}", proof.name()), of_filter.record());
        assert_eq!(proof.claim_set().claims, ["sub", "team"]);
    }
}
