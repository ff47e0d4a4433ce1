//! Virtual hosts of a listener: which routes are tried for a hostname, and in which order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::ir::{Match, PathMatch, Route, VirtualHost};

use super::hostname::{covering_stems, covers, specificity, stem};

/// A route on a listener, ready to be put into its virtual hosts.
#[derive(Debug)]
pub struct Candidate {
    pub hostnames: Vec<String>,
    pub order: Precedence,
    pub route: Route,
}

/// What decides between routes with equal matches: age, then name, then the place in the object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence {
    pub created: i64,
    pub namespace: String,
    pub name: String,
    pub rule: usize,
    pub index: usize,
}

/// Places of candidates, by the stems of their hostnames.
type ByStem<'a> = BTreeMap<&'a str, Vec<usize>>;

/// `others` are the hostnames of the other listeners on the port: a request belongs to the listener with
/// the most specific hostname, whatever routes it has (listener isolation).
pub fn virtual_hosts(hostname: &str, others: &[&str], candidates: &[Candidate]) -> Vec<VirtualHost> {
    let elsewhere =
        |domain: &str| others.iter().any(|other| specificity(other) < specificity(hostname) && covers(other, domain));
    let mut domains: BTreeSet<&str> = candidates
        .iter()
        .flat_map(|candidate| &candidate.hostnames)
        .map(String::as_str)
        .filter(|domain| !elsewhere(domain))
        .collect();
    domains.insert(hostname);
    let mut by_stem = ByStem::new();
    for (index, candidate) in candidates.iter().enumerate() {
        for hostname in &candidate.hostnames {
            by_stem.entry(stem(hostname)).or_default().push(index);
        }
    }
    let mut hosts: Vec<VirtualHost> = domains
        .into_iter()
        .map(|domain| VirtualHost { domain: domain.to_owned(), routes: routes(domain, candidates, &by_stem) })
        .collect();
    hosts.sort_by(|a, b| (specificity(&a.domain), &a.domain).cmp(&(specificity(&b.domain), &b.domain)));
    hosts
}

/// Routes of less specific hostnames come after those of more specific ones (HTTPRouteSpec.hostnames). A route that has
/// the domain by several of its hostnames is there once, by the most specific.
fn routes(domain: &str, candidates: &[Candidate], by_stem: &ByStem<'_>) -> Vec<Route> {
    let mut seen = BTreeSet::new();
    let mut routes = Vec::new();
    for stem in covering_stems(domain) {
        let here = by_stem.get(stem).into_iter().flatten();
        let new = here.filter(|index| seen.insert(**index)).filter_map(|index| candidates.get(*index));
        let mut found: Vec<&Candidate> = new.collect();
        found.sort_by_cached_key(|candidate| (precedence(&candidate.route.matches), candidate.order.clone()));
        routes.extend(found.into_iter().map(|candidate| candidate.route.clone()));
    }
    routes
}

/// HTTPRouteRule.matches: exact paths, then the longest prefixes; then a method, then the number of
/// headers and of query parameters. Regular expressions stand between the two kinds of paths.
fn precedence(matches: &Match) -> (u8, Reverse<usize>, bool, Reverse<usize>, Reverse<usize>) {
    let (rank, length) = match &matches.path {
        PathMatch::Exact(path) => (0, path.len()),
        PathMatch::Regex(path) => (1, path.len()),
        PathMatch::Prefix(path) => (2, path.len()),
    };
    (rank, Reverse(length), matches.method.is_none(), Reverse(matches.headers.len()), Reverse(matches.query.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ir::{Action, HeaderEdits, Rewrite};
    use crate::status::Origin;

    const HOSTNAMES: [&str; 8] = ["*", "*.com", "com", "a.com", "*.a.com", "x.a.com", "y.x.a.com", "b.com"];

    fn candidate(number: usize, hostnames: Vec<&'static str>, path: &str) -> Candidate {
        Candidate {
            hostnames: hostnames.into_iter().map(str::to_owned).collect(),
            order: Precedence { created: 0, namespace: String::new(), name: format!("{number:03}"), rule: 0, index: 0 },
            route: Route {
                origin: Origin::new("HTTPRoute", "default", "r"),
                name: number.to_string(),
                route: String::new(),
                matches: Match { path: PathMatch::Prefix(path.to_owned()), ..Match::default() },
                request_headers: HeaderEdits::default(),
                response_headers: HeaderEdits::default(),
                rewrite: Rewrite::default(),
                request_timeout: None,
                attempt_timeout: None,
                action: Action::Fail { status: 500 },
            },
        }
    }

    /// The order as the Gateway API says it, for one candidate after the other.
    fn as_specified(domain: &str, candidates: &[Candidate]) -> Vec<String> {
        let mut found: Vec<_> = candidates
            .iter()
            .filter_map(|candidate| {
                let covering = candidate.hostnames.iter().filter(|hostname| covers(hostname, domain));
                let hostname = covering.min_by_key(|hostname| specificity(hostname))?;
                Some((specificity(hostname), precedence(&candidate.route.matches), &candidate.order, &candidate.route))
            })
            .collect();
        found.sort_by(|a, b| (a.0, &a.1, a.2).cmp(&(b.0, &b.1, b.2)));
        found.into_iter().map(|(.., route)| route.name.clone()).collect()
    }

    proptest! {
        #[test]
        fn each_domain_has_its_routes_in_the_specified_order(
            given in prop::collection::vec(
                (prop::collection::vec(prop::sample::select(HOSTNAMES.to_vec()), 1..4), prop::sample::select(vec!["/", "/a", "/a/b"])),
                0..8,
            ),
            listener in prop::sample::select(HOSTNAMES.to_vec()),
            others in prop::collection::vec(prop::sample::select(HOSTNAMES.to_vec()), 0..3),
        ) {
            let candidates: Vec<Candidate> =
                given.into_iter().enumerate().map(|(number, (hostnames, path))| candidate(number, hostnames, path)).collect();
            for host in virtual_hosts(listener, &others, &candidates) {
                let names: Vec<String> = host.routes.iter().map(|route| route.name.clone()).collect();
                prop_assert_eq!(names, as_specified(&host.domain, &candidates), "{}", host.domain);
            }
        }
    }
}
