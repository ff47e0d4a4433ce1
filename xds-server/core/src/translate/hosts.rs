//! Virtual hosts of a listener: which routes are tried for a hostname, and in which order.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::ir::{Match, PathMatch, Route, VirtualHost};

use super::hostname::{covers, specificity};

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
    let mut hosts: Vec<VirtualHost> = domains
        .into_iter()
        .map(|domain| VirtualHost { domain: domain.to_owned(), routes: routes(domain, candidates) })
        .collect();
    hosts.sort_by(|a, b| (specificity(&a.domain), &a.domain).cmp(&(specificity(&b.domain), &b.domain)));
    hosts
}

/// Routes of less specific hostnames come after those of more specific ones (HTTPRouteSpec.hostnames).
fn routes(domain: &str, candidates: &[Candidate]) -> Vec<Route> {
    let mut found: Vec<_> = candidates
        .iter()
        .filter_map(|candidate| {
            let hostname = candidate
                .hostnames
                .iter()
                .filter(|hostname| covers(hostname, domain))
                .min_by_key(|h| specificity(h))?;
            Some((specificity(hostname), precedence(&candidate.route.matches), &candidate.order, &candidate.route))
        })
        .collect();
    found.sort_by(|a, b| (a.0, &a.1, a.2).cmp(&(b.0, &b.1, b.2)));
    found.into_iter().map(|(.., route)| route.clone()).collect()
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
