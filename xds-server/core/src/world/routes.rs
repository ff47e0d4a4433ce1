//! The routes of both kinds: what their units say, and what is left of it where a route gives way to the other kind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::objects::{GrpcRoute, HttpRoute, Key, Object, Objects};
use crate::sets::take_out;
use crate::status::Finding;
use crate::translate::given::{GivenRoute, RouteId, RouteKind};
use crate::translate::made::Made;
use crate::translate::rivals::{self, Lost};
use crate::translate::routes::{self, AttachedRoute};

use super::memo::{Dirty, Memo, Turn};
use super::statuses::Affected;

/// A route that is another one now.
pub type RouteTurn = Turn<AttachedRoute, RouteId>;

#[derive(Debug, Default)]
pub struct Routes {
    http: Memo<AttachedRoute>,
    grpc: Memo<AttachedRoute>,
    /// The GRPCRoutes of each Gateway, as their units say. Only where there is one can a route give way.
    calls: BTreeMap<Key, BTreeSet<Arc<RouteId>>>,
    /// The same of the HTTPRoutes.
    requests: BTreeMap<Key, BTreeSet<Arc<RouteId>>>,
    /// The routes that give way.
    yielding: BTreeMap<RouteId, Yielding>,
}

#[derive(Debug)]
struct Yielding {
    lost: Lost,
    left: Arc<AttachedRoute>,
    findings: Vec<Finding>,
}

// === impl Routes ===

impl Routes {
    pub fn step(&mut self, objects: &Objects, made: &Made, dirty: &Dirty, statuses: &mut Affected) -> Vec<RouteTurn> {
        let http = self.http.step(objects, made, dirty, |view, object: &Object<HttpRoute>, findings| {
            routes::route(view, object.into(), findings)
        });
        let grpc = self.grpc.step(objects, made, dirty, |view, object: &Object<GrpcRoute>, findings| {
            routes::route(view, object.into(), findings)
        });
        let of = |kind: RouteKind, turns: Vec<Turn<AttachedRoute>>| {
            turns.into_iter().map(move |Turn { key, before, after }| {
                let key = Arc::new(RouteId { key: Key::clone(&key), kind });
                Turn { key, before, after }
            })
        };
        let turns: Vec<RouteTurn> = of(RouteKind::Http, http).chain(of(RouteKind::Grpc, grpc)).collect();
        turns.iter().for_each(|turn| self.index(turn));
        if self.calls.is_empty() && self.yielding.is_empty() {
            return turns;
        }
        self.give_way(turns, (objects, made), statuses)
    }

    fn index(&mut self, Turn { key, before, after }: &RouteTurn) {
        let all = match key.kind {
            RouteKind::Http => &mut self.requests,
            RouteKind::Grpc => &mut self.calls,
        };
        for gateway in before.iter().flat_map(|route| route.routes.gateways()) {
            take_out(all, gateway, key);
        }
        for gateway in after.iter().flat_map(|route| route.routes.gateways()) {
            all.entry(gateway.clone()).or_default().insert(Arc::clone(key));
        }
    }

    /// Looks again at the Gateways of routes that changed, or that only stand elsewhere now, as findings say it. Returns
    /// what is another in the end.
    fn give_way(
        &mut self,
        turns: Vec<RouteTurn>,
        (objects, made): (&Objects, &Made),
        statuses: &mut Affected,
    ) -> Vec<RouteTurn> {
        let mut before: BTreeMap<Arc<RouteId>, Option<Arc<AttachedRoute>>> = BTreeMap::new();
        let mut gateways: BTreeSet<Key> = BTreeSet::new();
        for Turn { key, before: was, after } in turns {
            let both = was.iter().chain(&after);
            gateways.extend(both.flat_map(|route| route.routes.gateways()).cloned());
            let was = self.yielding.get(&key).map(|yielding| Arc::clone(&yielding.left)).or(was);
            before.insert(key, was);
        }
        let asked: Vec<RouteId> = self.asked().map(|(kind, key)| RouteId { key: key.clone(), kind }).collect();
        let mut lost: BTreeMap<RouteId, Lost> = BTreeMap::new();
        let is_other = |gateway: &&Key| gateways.contains(*gateway);
        for gateway in self.calls.keys().filter(is_other) {
            for (id, here) in self.lost_at(gateway) {
                lost.entry(id).or_default().extend(here);
            }
        }
        // What is lost at the other Gateways is as it was.
        for (id, yielding) in &self.yielding {
            let same = yielding.lost.iter().filter(|((gateway, _), _)| !gateways.contains(gateway));
            let same: Lost = same.map(|(place, winner)| (place.clone(), winner.clone())).collect();
            if !same.is_empty() {
                lost.entry(id.clone()).or_default().extend(same);
            }
        }
        let due: BTreeSet<&RouteId> = self.yielding.keys().chain(lost.keys()).chain(&asked).collect();
        let due: Vec<RouteId> = due.into_iter().cloned().collect();
        for id in due {
            let of_unit = self.of_unit(&id);
            let is = |yielding: &Yielding| (yielding.lost.clone(), yielding.findings.clone());
            let old = self.yielding.remove(&id);
            let new = lost.remove(&id).and_then(|lost| {
                let (given, route) = GivenRoute::of(objects, &id).zip(of_unit.clone())?;
                let findings = rivals::findings(given, &route, &lost, &made.listeners);
                let left = rivals::without(&route, &lost);
                // What is the same stays the same in memory.
                let left = match &old {
                    Some(old) if *old.left == left => Arc::clone(&old.left),
                    _ => Arc::new(left),
                };
                Some(Yielding { lost, left, findings })
            });
            if old.as_ref().map(is) != new.as_ref().map(is) {
                statuses.insert((id.kind.status_kind(), id.key.clone()));
            }
            before.entry(Arc::new(id.clone())).or_insert_with(|| old.map(|old| old.left).or(of_unit));
            if let Some(new) = new {
                self.yielding.insert(id, new);
            }
        }
        let turns = before.into_iter().map(|(key, before)| {
            let after = self.output(&key);
            Turn { key, before, after }
        });
        turns.filter(|turn| turn.before.as_deref() != turn.after.as_deref()).collect()
    }

    fn lost_at(&self, gateway: &Key) -> BTreeMap<RouteId, Lost> {
        let routes = [&self.requests, &self.calls].into_iter().filter_map(|all| all.get(gateway)).flatten();
        let routes: Vec<_> = routes.filter_map(|id| Some((id.as_ref(), self.of_unit(id)?))).collect();
        let lost = rivals::at(gateway, routes.iter().map(|(id, route)| (*id, route.as_ref())));
        lost.into_iter().map(|(id, lost)| (id.clone(), lost)).collect()
    }

    fn of_kind(&self, kind: RouteKind) -> &Memo<AttachedRoute> {
        match kind {
            RouteKind::Http => &self.http,
            RouteKind::Grpc => &self.grpc,
        }
    }

    fn of_unit(&self, id: &RouteId) -> Option<Arc<AttachedRoute>> {
        self.of_kind(id.kind).output(&id.key)
    }

    pub fn output(&self, id: &RouteId) -> Option<Arc<AttachedRoute>> {
        self.yielding.get(id).map(|yielding| Arc::clone(&yielding.left)).or_else(|| self.of_unit(id))
    }

    pub fn findings_of(&self, kind: RouteKind, key: &Key) -> Vec<&Finding> {
        let id = RouteId { key: key.clone(), kind };
        let of_rivals = self.yielding.get(&id).map(|yielding| &yielding.findings);
        self.of_kind(kind).findings_of(key).iter().chain(of_rivals.into_iter().flatten()).collect()
    }

    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        let of_rivals = self.yielding.values().flat_map(|yielding| &yielding.findings);
        self.http.findings().chain(self.grpc.findings()).chain(of_rivals)
    }

    /// The routes that were looked at in the last step, whatever came of it.
    pub fn asked(&self) -> impl Iterator<Item = (RouteKind, &Key)> {
        RouteKind::ALL.into_iter().flat_map(|kind| self.of_kind(kind).asked().map(move |key| (kind, key)))
    }
}
