//! What names may look like in Kubernetes.

/// Lowercase letters, digits, `-` and `.`, at most 253 characters, each label starting and ending well.
pub fn is_dns_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_dns_label)
}

/// RFC 1123 label.
pub fn is_dns_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&label.len()) && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
}

/// The key of a label: a name, perhaps with a domain before it.
pub fn is_label_key(key: &str) -> bool {
    let (domain, name) = key.split_once('/').map_or((None, key), |(domain, name)| (Some(domain), name));
    domain.is_none_or(is_dns_subdomain) && !name.is_empty() && is_label_value(name)
}

/// The value of a label: at most 63 letters, digits, `-`, `_` and `.`, beginning and ending with one of the former.
pub fn is_label_value(value: &str) -> bool {
    let ends_well = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = value.as_bytes();
    bytes.len() <= 63
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
        && ends_well(bytes.first())
        && ends_well(bytes.last())
}

/// The name of a claim of a JWT: any text without control characters. Some are URIs.
pub fn is_claim_name(name: &str) -> bool {
    (1..=256).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// A hostname as Gateways and HTTPRoutes have it: the first label may be `*`.
pub fn is_wildcard_hostname(hostname: &str) -> bool {
    is_dns_subdomain(hostname.strip_prefix("*.").unwrap_or(hostname))
}

/// A name of a workload: `spiffe://`, a trust domain, and a path (SPIFFE-ID, 2).
pub fn is_spiffe_id(id: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_segment = |segment: &str| !segment.is_empty() && segment.bytes().all(inner);
    let Some((domain, path)) = id.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    id.len() <= 2048
        && is_segment(domain)
        && !domain.bytes().any(|byte| byte.is_ascii_uppercase())
        && path.split('/').all(is_segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_workloads() {
        let long = format!("spiffe://a/{}", "b".repeat(2037));
        for id in ["spiffe://cluster.local/ns/app/sa/web", "spiffe://a_b-1/C", &long] {
            assert!(is_spiffe_id(id), "{id}");
        }
        for id in [
            "",
            "spiffe://",
            "spiffe://a",
            "spiffe://a/",
            "spiffe:///b",
            "spiffe://A/b",
            "spiffe://a/b/",
            "spiffe://a//b",
        ] {
            assert!(!is_spiffe_id(id), "{id}");
        }
        for id in ["https://a/b", "a/b", "spiffe://a/b c", "spiffe://a:1/b", "spiffe://u@a/b", &format!("{long}b")] {
            assert!(!is_spiffe_id(id), "{id}");
        }
    }

    #[test]
    fn names() {
        for good in ["a", "a-1", "0", "a.b", "127.0.0.1"] {
            assert!(is_dns_subdomain(good), "{good}");
        }
        for bad in ["", "A", "-a", "a-", "a_b", "a..b", ".a", "a/b"] {
            assert!(!is_dns_subdomain(bad), "{bad}");
        }
        for good in ["team", "tollgate.dev/runner", "A_b.c-1"] {
            assert!(is_label_key(good) && is_label_value(good.rsplit('/').next().unwrap()), "{good}");
        }
        for bad in ["", "a/", "/a", "a/b/c", "-a", "a b", "a\n"] {
            assert!(!is_label_key(bad), "{bad}");
        }
        assert!(is_label_value("") && !is_label_value("a\n"));
        assert!(is_wildcard_hostname("*.example.com"));
        assert!(!is_wildcard_hostname("*"));
        assert!(!is_wildcard_hostname("a.*.com"));
    }
}
