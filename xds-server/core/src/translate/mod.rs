//! Objects to IR: what the configuration means.
//!
//! ```text
//! consumers -> keys                      policies -> limits and what they are for
//! backends -> pools                      services
//! gateways -> listeners   routes -> rules -> attach (parents, hostnames) -> hosts (order of tries)
//! ```
//! Nothing fails as a whole. What is invalid is left out, answered with an error, or refused in its own place, and a
//! finding says so.

mod attach;
mod backends;
mod consumers;
mod filters;
mod gateways;
mod hostname;
mod hosts;
mod listeners;
mod matches;
mod policies;
mod pools;
mod refs;
mod routes;
mod rules;
mod services;

use crate::ir::Ir;
use crate::objects::Objects;
use crate::status::Finding;

/// What a set of objects means, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Translation {
    pub ir: Ir,
    /// Sorted by file and line. An error refuses only the object or part that it is about.
    pub findings: Vec<Finding>,
}

/// Turns objects into IR. It never fails, because what is invalid is left out and reported.
pub fn translate(objects: &Objects) -> Translation {
    let mut findings = Vec::new();
    let keys = consumers::keys(objects, &mut findings);
    let policies = policies::policies(objects, &mut findings);
    let services = services::services(objects);
    let backends = backends::backends(objects, &services, &mut findings);
    let pools = pools::pools(objects, &backends, &mut findings);
    let listeners = listeners::listeners(objects, &mut findings);
    let routes = routes::routes(objects, &listeners, &pools, &services, &mut findings);
    let gateways = gateways::gateways(listeners, &routes, &policies, &pools, &backends, &services);
    policies::closed(&objects.refused_policies, &gateways, &mut findings);
    // Several parents of a route may lead to the same finding. It is told once.
    findings.sort_by(Finding::by_spot);
    findings.dedup();
    Translation { ir: Ir { gateways, keys, limits: policies.limits }, findings }
}
