//! Hostnames of listeners and routes: which of two covers the other, and which is more specific.

use std::cmp::Reverse;

/// Every hostname.
pub const ANY: &str = "*";

/// Whether `pattern` covers all that `host` stands for.
pub fn covers(pattern: &str, host: &str) -> bool {
    if pattern == ANY {
        return true;
    }
    match pattern.strip_prefix('*') {
        // A wildcard stands for one or more labels, so the suffix alone is not covered.
        Some(suffix) => {
            host == pattern
                || (host != ANY && host.trim_start_matches('*').len() > suffix.len() && host.ends_with(suffix))
        }
        None => pattern == host,
    }
}

/// The hostname without its `*`. No name has the stem of a wildcard, which begins with a dot or is empty.
pub fn stem(hostname: &str) -> &str {
    hostname.trim_start_matches('*')
}

/// The stems of all hostnames that cover `host`, in the order of [`specificity`].
pub fn covering_stems(host: &str) -> impl Iterator<Item = &str> {
    let own = stem(host);
    let wildcards = own.match_indices('.').filter(|(place, _)| *place > 0).filter_map(|(place, _)| own.get(place..));
    std::iter::once(own).chain(wildcards).chain((!own.is_empty()).then_some(""))
}

/// The hostname for what both stand for. None: they have nothing in common.
pub fn intersection<'a>(a: &'a str, b: &'a str) -> Option<&'a str> {
    if covers(a, b) {
        Some(b)
    } else if covers(b, a) {
        Some(a)
    } else {
        None
    }
}

/// Sorts the more specific first: names before wildcards, longer before shorter.
pub fn specificity(hostname: &str) -> Reverse<(bool, usize)> {
    Reverse((!hostname.starts_with('*'), hostname.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cover_and_meet() {
        assert!(covers("*", "*"));
        assert!(covers("*", "a.com"));
        assert!(covers("*.a.com", "x.y.a.com"));
        assert!(covers("*.a.com", "*.y.a.com"));
        assert!(covers("*.a.com", "*.a.com"));
        assert!(!covers("*.a.com", "a.com"));
        assert!(!covers("*.a.com", "xa.com"));
        assert!(!covers("*.a.com", "*"));
        assert!(!covers("*.y.a.com", "*.a.com"));
        assert_eq!(intersection("*.a.com", "x.a.com"), Some("x.a.com"));
        assert_eq!(intersection("x.a.com", "*"), Some("x.a.com"));
        assert_eq!(intersection("a.com", "b.com"), None);
    }

    #[test]
    fn covering_stems_are_those_of_what_covers_the_host() {
        let hosts = ["*", "*.com", "com", "a.com", "*.a.com", "x.a.com", "*.x.a.com", "y.x.a.com", "b.com", "xa.com"];
        for host in hosts {
            let mut covering: Vec<&str> = hosts.into_iter().filter(|pattern| covers(pattern, host)).collect();
            covering.sort_by_key(|pattern| specificity(pattern));
            let stems: Vec<&str> = covering_stems(host).collect();
            let mut found: Vec<&str> = hosts.into_iter().filter(|pattern| stems.contains(&stem(pattern))).collect();
            found.sort_by_key(|pattern| stems.iter().position(|stem| *stem == self::stem(pattern)));
            assert_eq!(found, covering, "{host}");
        }
    }

    #[test]
    fn names_before_wildcards() {
        let mut hosts = ["*", "*.com", "a.com", "*.long.a.com", "bb.com"];
        hosts.sort_by_key(|host| specificity(host));
        assert_eq!(hosts, ["bb.com", "a.com", "*.long.a.com", "*.com", "*"]);
    }
}
