//! Virtual hosts of a listener: which routes are tried for a hostname, and in which order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir::{Domain, Match, PathMatch, Route, TextMatch, VirtualHost};
use crate::objects::Key;

use super::given::RouteId;
use super::hostname::{covering_stems, covers, specificity};
use super::listener::OpenListener;
use super::listeners::OpenListeners;
use super::routes::AttachedRoute;

/// A route on a listener, ready to be put into its virtual hosts.
#[derive(Debug)]
pub struct Candidate<'a> {
    pub hostnames: &'a [Domain],
    pub order: Precedence<'a>,
    pub route: &'a Arc<Route>,
}

/// What decides between routes with equal matches: age, then name, then the place in the object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence<'a> {
    pub created: i64,
    pub object: &'a RouteId,
    pub place: (usize, usize),
}

/// Places of candidates, by the stems of their hostnames.
type ByStem<'a> = BTreeMap<&'a str, Vec<usize>>;

/// The hostnames of the listeners from which `listener` is isolated: a request belongs to the listener of its port with
/// the most specific hostname, whatever routes it has.
pub fn more_specific<'a>(listener: &OpenListener, all: &'a OpenListeners) -> Vec<&'a Domain> {
    let on_port = all.served().filter(|other| other.port == listener.port).map(|other| &other.hostname);
    on_port.filter(|other| specificity(other) < specificity(&listener.hostname)).collect()
}

/// The virtual hosts of a listener. `elsewhere` are the hostnames of [`more_specific`].
pub fn virtual_hosts(
    hostname: &Domain,
    elsewhere: &[&Domain],
    candidates: &[Candidate<'_>],
) -> BTreeMap<Domain, Arc<VirtualHost>> {
    let mut domains: BTreeSet<&Domain> = candidates
        .iter()
        .flat_map(|candidate| candidate.hostnames)
        .filter(|domain| !elsewhere.iter().any(|other| covers(other, domain)))
        .collect();
    domains.insert(hostname);
    let mut by_stem = ByStem::new();
    for (index, candidate) in candidates.iter().enumerate() {
        for hostname in candidate.hostnames {
            by_stem.entry(hostname.stem()).or_default().push(index);
        }
    }
    let host = |domain: &Domain| {
        let routes = routes(domain, candidates, &by_stem);
        (domain.clone(), Arc::new(VirtualHost { domain: domain.clone(), routes }))
    };
    domains.into_iter().map(host).collect()
}

/// Routes of less specific hostnames come after those of more specific ones (HTTPRouteSpec.hostnames). A route that has
/// the domain by several of its hostnames is there once, by the most specific.
fn routes(domain: &Domain, candidates: &[Candidate<'_>], by_stem: &ByStem<'_>) -> Vec<Arc<Route>> {
    let mut seen = BTreeSet::new();
    let mut routes = Vec::new();
    for stem in covering_stems(domain) {
        let here = by_stem.get(stem).into_iter().flatten();
        let new = here.filter(|index| seen.insert(**index)).filter_map(|index| candidates.get(*index));
        routes.extend(in_order(new.map(|candidate| (candidate.order.clone(), candidate.route)).collect()));
    }
    routes
}

/// The routes of one object at a Gateway, each with its precedence.
pub fn with_precedence<'a>(
    object: &'a RouteId,
    route: &'a AttachedRoute,
    gateway: &Key,
) -> impl Iterator<Item = (Precedence<'a>, &'a Arc<Route>)> {
    let created = route.created;
    let rules = route.routes.at(gateway).iter();
    rules.map(move |route| (Precedence { created, object, place: route.place }, route))
}

/// The order in which routes of the same hostname are tried.
pub fn in_order<'a>(mut found: Vec<(Precedence<'_>, &'a Arc<Route>)>) -> impl Iterator<Item = Arc<Route>> + use<'a> {
    found.sort_by(|(a_order, a), (b_order, b)| {
        (precedence(&a.matches), a_order).cmp(&(precedence(&b.matches), b_order))
    });
    let routes: Vec<Arc<Route>> = found.into_iter().map(|(_, route)| Arc::clone(route)).collect();
    routes.into_iter()
}

/// HTTPRouteRule.matches: exact paths, then the longest prefixes; then a method, then the number of
/// headers and of query parameters. Regular expressions stand between the two kinds of paths.
///
/// GRPCRouteRule.matches: the longest services, then the longest methods, then the number of headers.
fn precedence(matches: &Match) -> (u8, Reverse<[usize; 2]>, bool, Reverse<[usize; 2]>) {
    let length = |text: &Option<TextMatch>| match text {
        Some(TextMatch::Exact(text) | TextMatch::Regex(text)) => text.len(),
        None => 0,
    };
    let (rank, lengths) = match &matches.path {
        PathMatch::Exact(path) => (0, [path.len(), 0]),
        PathMatch::Regex(path) => (1, [path.len(), 0]),
        PathMatch::Prefix(path) => (2, [path.len(), 0]),
        PathMatch::Call { service, method } => (3, [length(service), length(method)]),
    };
    (rank, Reverse(lengths), matches.method.is_none(), Reverse([matches.headers.len(), matches.query.len()]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ir::{Action, HeaderEdits};
    use crate::status::Origin;
    use crate::translate::given::RouteKind;

    const HOSTNAMES: [&str; 8] = ["*", "*.com", "com", "a.com", "*.a.com", "x.a.com", "y.x.a.com", "b.com"];

    fn route(number: usize, path: &str) -> Arc<Route> {
        Arc::new(Route {
            origin: Origin::new("HTTPRoute", "default", "r"),
            place: (number, 0),
            matches: Match { path: PathMatch::Prefix(path.to_owned()), ..Match::default() },
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            rewrite: None,
            request_timeout: None,
            attempt_timeout: None,
            retry: None,
            cors: None,
            session: None,
            mirrors: [].into(),
            action: Action::Fail { status: 500 },
        })
    }

    /// The order as the Gateway API says it, for one candidate after the other.
    fn as_specified(domain: &str, candidates: &[Candidate<'_>]) -> Vec<usize> {
        let mut found: Vec<_> = candidates
            .iter()
            .filter_map(|candidate| {
                let covering = candidate.hostnames.iter().filter(|hostname| covers(hostname, domain));
                let hostname = covering.min_by_key(|hostname| specificity(hostname))?;
                Some((specificity(hostname), precedence(&candidate.route.matches), &candidate.order, candidate.route))
            })
            .collect();
        found.sort_by(|a, b| (a.0, &a.1, a.2).cmp(&(b.0, &b.1, b.2)));
        found.into_iter().map(|(.., route)| route.place.0).collect()
    }

    proptest! {
        #[test]
        fn each_domain_has_its_routes_in_the_specified_order(
            given in prop::collection::vec(
                (prop::collection::vec(prop::sample::select(HOSTNAMES.to_vec()), 1..4), prop::sample::select(vec!["/", "/a", "/a/b"])),
                0..8,
            ),
            listener in prop::sample::select(HOSTNAMES.to_vec()),
        ) {
            let given: Vec<(RouteId, Vec<Domain>, Arc<Route>)> = given
                .into_iter()
                .enumerate()
                .map(|(number, (hostnames, path))| {
                    let hostnames = hostnames.into_iter().map(Domain::from).collect();
                    (RouteId { key: Key::new("", format!("{number:03}")), kind: RouteKind::Http }, hostnames, route(number, path))
                })
                .collect();
            let candidates: Vec<Candidate<'_>> = given
                .iter()
                .map(|(object, hostnames, route)| {
                    Candidate { hostnames, order: Precedence { created: 0, object, place: (0, 0) }, route }
                })
                .collect();
            for (domain, host) in virtual_hosts(&listener.into(), &[], &candidates) {
                let names: Vec<usize> = host.routes.iter().map(|route| route.place.0).collect();
                prop_assert_eq!(names, as_specified(&domain, &candidates), "{}", domain);
            }
        }
    }
}
