//! How the claims that a Consumer asks of JWTs become the name of its `ApiKey`. Control plane and filter make that name from
//! the same text.

/// What the names of such `ApiKey`s begin with. The SHA-256 of [`canonical`] follows, in lowercase hex.
pub const PREFIX: &str = "jwt/";

/// The most claims that one Consumer asks of a JWT in one entry.
pub const MAX_CLAIMS: usize = 16;

/// The most sets of claims in one filter.
pub const MAX_SETS: usize = 64;

/// Bytes of the longest value that a claim may be asked to have. A longer value of a JWT counts as none.
pub const MAX_VALUE: usize = 256;

/// An issuer and claims with their values as one text. The claims come in order of their names. Each part has its length in
/// front, because issuers, names and values may have any separator in them.
pub fn canonical<'a>(issuer: &str, claims: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut text = b"tollgate claims 1".to_vec();
    let mut add = |part: &str| {
        text.extend_from_slice(&(part.len() as u64).to_le_bytes());
        text.extend_from_slice(part.as_bytes());
    };
    add(issuer);
    for (name, value) in claims {
        add(name);
        add(value);
    }
    text
}
