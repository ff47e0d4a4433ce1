//! The version of a resource.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// The first 8 bytes of the SHA-256 of what a resource says. It is written as 16 hexadecimal digits, and proxies repeat
/// it in that form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

// === impl Version ===

impl Version {
    pub fn of(content: &[u8]) -> Self {
        let digest: [u8; 32] = Sha256::digest(content).into();
        Self(u64::from_be_bytes(*digest.first_chunk().unwrap_or(&[0; 8])))
    }

    /// None: it is none of ours, so no resource has it.
    pub fn parse(text: &str) -> Option<Self> {
        let is_ours = text.len() == 16 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        if is_ours { u64::from_str_radix(text, 16).ok().map(Self) } else { None }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_the_beginning_of_the_hash() {
        // SHA-256 of nothing and of "a" (FIPS 180-4).
        assert_eq!(Version::of(b"").to_string(), "e3b0c44298fc1c14");
        assert_eq!(Version::of(b"a").to_string(), "ca978112ca1bbdca");
    }

    #[test]
    fn only_the_written_form_is_read() {
        let version = Version(0xab);
        assert_eq!(version.to_string(), "00000000000000ab");
        assert_eq!(Version::parse("00000000000000ab"), Some(version));
        for other in ["", "ab", "00000000000000AB", "+0000000000000ab", "00000000000000abc", "00000000000000ag"] {
            assert_eq!(Version::parse(other), None, "{other}");
        }
    }
}
