//! HTTPRoutes and GRPCRoutes that want the same hostname of a listener. A hostname is for routes of one kind: the older
//! route has it, and the one of the other kind gives way (GRPCRouteSpec.hostnames).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ir::Domain;
use crate::objects::Key;
use crate::status::{Finding, Reason, Severity};

use super::attach::{Attachment, Parent};
use super::given::{GivenRoute, RouteId, RouteKind};
use super::hostname::intersection;
use super::listeners::OpenListeners;
use super::parents::ParentRef;
use super::routes::AttachedRoute;

/// Where a route gives way, by Gateway and listener, and to which route.
pub type Lost = BTreeMap<(Key, Arc<str>), RouteId>;

/// The routes of a listener by age and name, each with its hostnames there.
type InOrder<'a> = BTreeMap<(i64, &'a RouteId), Vec<&'a Domain>>;

/// The routes of a Gateway that give way there.
pub fn at<'a>(
    gateway: &Key,
    routes: impl Iterator<Item = (&'a RouteId, &'a AttachedRoute)>,
) -> BTreeMap<&'a RouteId, Lost> {
    let mut by_listener: BTreeMap<&Arc<str>, InOrder<'_>> = BTreeMap::new();
    for (id, route) in routes {
        for place in route.attachments.iter().filter(|place| place.gateway == *gateway) {
            let here = by_listener.entry(&place.listener).or_default();
            here.entry((route.created, id)).or_default().extend(&place.hostnames);
        }
    }
    let mut all: BTreeMap<&RouteId, Lost> = BTreeMap::new();
    for (listener, routes) in by_listener {
        for (loser, winner) in of_listener(&routes) {
            let place = (gateway.clone(), Arc::clone(listener));
            all.entry(loser).or_default().insert(place, winner.clone());
        }
    }
    all
}

/// In the order of age and name, each route has what no route of the other kind has before it.
fn of_listener<'a>(routes: &InOrder<'a>) -> Vec<(&'a RouteId, &'a RouteId)> {
    let of = |kind: RouteKind| routes.keys().filter(move |(_, id)| id.kind == kind).count();
    if RouteKind::ALL.into_iter().any(|kind| of(kind) == 0) {
        return Vec::new();
    }
    let mut taken: Vec<(&'a RouteId, &'a Domain)> = Vec::new();
    let mut lost = Vec::new();
    for ((_, id), hostnames) in routes {
        let rival = taken.iter().find(|(other, taken)| {
            other.kind != id.kind && hostnames.iter().any(|hostname| intersection(taken, hostname).is_some())
        });
        match rival {
            Some((winner, _)) => lost.push((*id, *winner)),
            None => taken.extend(hostnames.iter().map(|hostname| (*id, *hostname))),
        }
    }
    lost
}

/// What is left of a route that gives way.
pub fn without(route: &AttachedRoute, lost: &Lost) -> AttachedRoute {
    let stays = |gateway: &Key, listener: &Arc<str>| !lost.contains_key(&(gateway.clone(), Arc::clone(listener)));
    let attachments = route.attachments.iter().filter(|place| stays(&place.gateway, &place.listener));
    let attachments: Box<[_]> = attachments.cloned().collect();
    let routes = route.routes.only(|gateway| attachments.iter().any(|place| place.gateway == *gateway));
    let (created, parents, pools) = (route.created, route.parents.clone(), route.pools.clone());
    AttachedRoute { created, parents, attachments, pools, routes }
}

/// What its author is told. A parent is refused if nothing is left of the route there.
pub fn findings(
    given: GivenRoute<'_>,
    route: &AttachedRoute,
    lost: &Lost,
    gateways: &BTreeMap<Key, Arc<OpenListeners>>,
) -> Vec<Finding> {
    let parents = given.spec.parent_refs.iter().flatten().enumerate();
    let ours = parents.filter(|(index, _)| route.parents.contains(index));
    let findings = ours.filter_map(|(index, parent)| {
        let attached = listeners(ParentRef::from(parent), given, route, gateways);
        let rival = |place: &Attachment| lost.get(&(place.gateway.clone(), Arc::clone(&place.listener)));
        let (first, winner) = attached.iter().find_map(|place| Some((&place.listener, rival(place)?)))?;
        let is_lost = attached.iter().all(|place| rival(place).is_some());
        Some(given.meta.finding(
            if is_lost { Severity::Error } else { Severity::Warning },
            Reason::HostnameTaken,
            format_args!("spec.parentRefs[{index}]"),
            format_args!(
                "{} {}/{} has a hostname of this route at listener `{first}`, and a hostname is for routes of one kind",
                winner.kind.name(),
                winner.key.namespace,
                winner.key.name
            ),
            "other hostnames, or another listener",
        ))
    });
    findings.collect()
}

/// Where a route is attached by one of its parents.
fn listeners<'a>(
    parent: ParentRef<'_>,
    given: GivenRoute<'_>,
    route: &'a AttachedRoute,
    gateways: &BTreeMap<Key, Arc<OpenListeners>>,
) -> Vec<&'a Attachment> {
    let key = parent.key(given.meta.namespace());
    let set = parent.is_listener_set().then_some(&key);
    let named = Parent { set, section: parent.section, port: parent.port };
    let is_there = |place: &&Attachment| {
        let open = gateways.get(&place.gateway).filter(|_| set.is_some() || place.gateway == key);
        let mut listeners = open.iter().flat_map(|open| &open.open);
        listeners.any(|listener| listener.name == place.listener && named.names(listener))
    };
    route.attachments.iter().filter(is_there).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(kind: RouteKind, name: &str) -> RouteId {
        RouteId { key: Key::new("a", name), kind }
    }

    /// Routes by age, kind and name, each with its hostnames; returns who loses to whom.
    fn lost(routes: &[(i64, RouteKind, &str, &[&str])]) -> Vec<(String, String)> {
        let ids: Vec<(i64, RouteId, Vec<Domain>)> = routes
            .iter()
            .map(|(age, kind, name, hostnames)| {
                (*age, id(*kind, name), hostnames.iter().map(|hostname| Domain::from(*hostname)).collect())
            })
            .collect();
        let routes = ids.iter().map(|(age, id, hostnames)| ((*age, id), hostnames.iter().collect())).collect();
        let name = |id: &RouteId| id.key.name.to_string();
        of_listener(&routes).into_iter().map(|(loser, winner)| (name(loser), name(winner))).collect()
    }

    #[test]
    fn the_older_route_has_the_hostname_and_then_the_first_by_name() {
        use RouteKind::{Grpc, Http};
        let one = |loser: &str, winner: &str| vec![(loser.to_owned(), winner.to_owned())];
        assert_eq!(lost(&[(2, Http, "a", &["x.com"]), (1, Grpc, "b", &["x.com"])]), one("a", "b"));
        assert_eq!(lost(&[(1, Http, "b", &["*.com"]), (1, Grpc, "a", &["x.com"])]), one("b", "a"));
        assert_eq!(lost(&[(1, Http, "a", &["*"]), (1, Grpc, "a", &["x.com"])]), one("a", "a"));
    }

    #[test]
    fn routes_of_one_kind_share_a_hostname_and_others_are_no_rivals() {
        use RouteKind::{Grpc, Http};
        assert_eq!(lost(&[(1, Grpc, "a", &["x.com"]), (2, Grpc, "b", &["x.com"])]), []);
        assert_eq!(lost(&[(1, Grpc, "a", &["x.com"]), (2, Http, "b", &["y.com", "z.com"])]), []);
    }

    #[test]
    fn who_gives_way_takes_nothing_from_others() {
        use RouteKind::{Grpc, Http};
        let routes: [(i64, RouteKind, &str, &[&str]); 3] =
            [(1, Http, "a", &["x.com"]), (2, Grpc, "b", &["x.com", "y.com"]), (3, Http, "c", &["y.com"])];
        assert_eq!(lost(&routes), [("b".to_owned(), "a".to_owned())]);
    }
}
