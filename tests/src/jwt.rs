//! Who issues JWTs, and the filter by which Istio has them verified in a sidecar.

use anyhow::Context;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

/// An issuer with one key (ES256).
pub struct Issuer {
    name: String,
    key: EcdsaKeyPair,
    random: SystemRandom,
}

/// By which the set of keys and the JWTs name the key.
const KEY_ID: &str = "k1";

// === impl Issuer ===

impl Issuer {
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).ok().context("no key")?;
        let key = EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).ok().context("no key")?;
        Ok(Self { name: name.to_owned(), key, random })
    }

    /// A JWT with these claims, from this issuer, that holds for an hour.
    pub fn jwt(&self, claims: &Value) -> anyhow::Result<String> {
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let mut payload = json!({"iss": self.name, "iat": now, "exp": now + 3600});
        let all = payload.as_object_mut().context("an object")?;
        all.extend(claims.as_object().context("claims are an object")?.clone());
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": KEY_ID});
        let signed =
            format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(payload.to_string().as_bytes()));
        let signature = self.key.sign(&self.random, signed.as_bytes()).ok().context("it is not signed")?;
        Ok(format!("{signed}.{}", base64url(signature.as_ref())))
    }

    /// What istiod makes of a RequestAuthentication with this issuer and its keys
    /// (pilot/pkg/security/authn/policy_applier.go, convertToEnvoyJwtConfig): a JWT that is there must be good, and none need
    /// be there.
    pub fn request_authentication(&self, forward_original_token: bool) -> anyhow::Result<Value> {
        Ok(json!({
            "name": "envoy.filters.http.jwt_authn",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
                "providers": {"origins-0": {
                    "issuer": self.name,
                    "local_jwks": {"inline_string": self.keys()?},
                    "forward": forward_original_token,
                    "payload_in_metadata": "payload",
                    "normalize_payload_in_metadata": {"space_delimited_claims": ["permission", "scope"]},
                }},
                "rules": [{"match": {"prefix": "/"}, "requires": {"requires_any": {"requirements": [
                    {"provider_name": "origins-0"},
                    {"allow_missing": {}},
                ]}}}],
                "bypass_cors_preflight": true,
            },
        }))
    }

    /// The set of its keys (JWKS, RFC 7517).
    pub fn keys(&self) -> anyhow::Result<String> {
        Ok(json!({"keys": [self.public_key()?]}).to_string())
    }

    /// RFC 7518, 6.2.
    fn public_key(&self) -> anyhow::Result<Value> {
        let point = self.key.public_key().as_ref();
        let (x, y) = point.strip_prefix(&[4]).and_then(|point| point.split_at_checked(32)).context("a point")?;
        Ok(json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": KEY_ID, "x": base64url(x), "y": base64url(y)}))
    }
}

/// RFC 4648, 5, without padding.
fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().enumerate().fold(0u32, |bits, (place, byte)| bits | u32::from(*byte) << (16 - 8 * place));
        for place in 0..=chunk.len() {
            let letter = LETTERS.get((bits >> (18 - 6 * place)) as usize & 63);
            text.extend(letter.map(|letter| char::from(*letter)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_as_in_its_specification() {
        for (text, encoded) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64url(text.as_bytes()), encoded);
        }
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
    }
}
