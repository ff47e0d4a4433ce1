//! Another place than this control plane where Istio's agents fetch the filter's code: an HTTP server, or a registry.
//!
//! What an agent holds against `sha256` is not the same for both (Istio's pkg/wasm/cache.go): of a file it is the code, of an
//! image the manifest. So the hash of our code can stand for a file alone, and an image is named by its digest. A tag may be
//! moved to other code at any time, and nobody would notice.

use std::str::FromStr;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CodePlace {
    /// The URL of a file that is the code.
    Http(String),
    /// An image with the code in it, and the digest of its manifest, in lowercase hex.
    Oci { image: String, digest: String },
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidCodePlace {
    #[error("it begins with neither http://, https:// nor oci://")]
    Scheme,
    #[error("it has no host and path")]
    NoPath,
    #[error("it has a character that a URL cannot have")]
    Character,
    #[error("an image is named by its digest: oci://REGISTRY/IMAGE@sha256:HEX (a tag may be moved to other code)")]
    NoDigest,
}

// === impl CodePlace ===

impl CodePlace {
    /// What agents fetch, and the SHA-256 that they hold it against. `code` is that of our own code.
    pub fn fetched(&self, code: &str) -> (String, String) {
        match self {
            Self::Http(url) => (url.clone(), code.to_owned()),
            Self::Oci { image, digest } => (format!("oci://{image}@sha256:{digest}"), digest.clone()),
        }
    }
}

impl FromStr for CodePlace {
    type Err = InvalidCodePlace;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidCodePlace::Character);
        }
        let has_path =
            |rest: &str| rest.split_once('/').is_some_and(|(host, path)| !host.is_empty() && !path.is_empty());
        if let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) {
            return if has_path(rest) { Ok(Self::Http(text.to_owned())) } else { Err(InvalidCodePlace::NoPath) };
        }
        let rest = text.strip_prefix("oci://").ok_or(InvalidCodePlace::Scheme)?;
        let (image, digest) = rest.split_once("@sha256:").ok_or(InvalidCodePlace::NoDigest)?;
        let is_hex = digest.len() == 64 && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_hex {
            return Err(InvalidCodePlace::NoDigest);
        }
        if !has_path(image) {
            return Err(InvalidCodePlace::NoPath);
        }
        Ok(Self::Oci { image: image.to_owned(), digest: digest.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<CodePlace, InvalidCodePlace> {
        text.parse()
    }

    #[test]
    fn a_file_is_held_against_our_code_and_an_image_against_its_digest() {
        let digest = "0123456789abcdef".repeat(4);
        let image = format!("oci://registry.example:5000/team/filter:1.2@sha256:{digest}");
        assert_eq!(read(&image).unwrap().fetched("abc"), (image, digest));
        for file in ["https://files.example/filter.wasm", "http://10.0.0.1:8080/filter.wasm?version=1"] {
            assert_eq!(read(file).unwrap().fetched("abc"), (file.to_owned(), "abc".to_owned()));
        }
    }

    #[test]
    fn an_image_without_a_digest_is_refused() {
        let upper = format!("oci://registry.example/filter@sha256:{}", "A".repeat(64));
        let short = format!("oci://registry.example/filter@sha256:{}", "a".repeat(63));
        for image in ["oci://registry.example/filter", "oci://registry.example/filter:1.2", &upper, &short] {
            assert_eq!(read(image), Err(InvalidCodePlace::NoDigest), "{image}");
        }
    }

    #[test]
    fn what_no_agent_can_fetch_is_refused() {
        let nowhere = format!("oci://filter@sha256:{}", "a".repeat(64));
        for text in [nowhere.as_str(), "http://", "https://host", "https://host/", "http:///path"] {
            assert_eq!(read(text), Err(InvalidCodePlace::NoPath), "{text}");
        }
        for text in ["", "filter.wasm", "file:///filter.wasm", "HTTP://host/path"] {
            assert_eq!(read(text), Err(InvalidCodePlace::Scheme), "{text}");
        }
        for text in ["https://host/a b", "https://host/\u{e4}", "https://host/a\n"] {
            assert_eq!(read(text), Err(InvalidCodePlace::Character), "{text}");
        }
    }
}
