//! One Gateway's index: which routes are attached to its listeners by which hostname, and what its virtual hosts use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir::{Class, Domain, Gateway, Host, Site, VirtualHost};
use crate::objects::Key;
use crate::sets::{Few, take_out};
use crate::translate::gateways::{Use, uses, uses_of_tunnel};
use crate::translate::given::RouteId;
use crate::translate::hostname::{covering_stems, covers};
use crate::translate::hosts::{in_order, more_specific, with_precedence};
use crate::translate::listeners::OpenListeners;
use crate::translate::routes::AttachedRoute;

use super::routes::Routes;

#[derive(Debug, Default)]
pub struct Place {
    sites: BTreeMap<Arc<str>, Attached>,
    /// The virtual hosts of each use.
    uses: BTreeMap<Use, BTreeSet<Host>>,
    uses_of_tunnels: BTreeSet<Use>,
    /// Clusters of the backends at which this Gateway needs attempts to be rewritten.
    pub needs_attempts_at: BTreeSet<String>,
}

/// What is attached to one listener.
#[derive(Debug)]
struct Attached {
    hostname: Domain,
    /// Hostnames that belong to other listeners of the port.
    elsewhere: Vec<Domain>,
    routes: BTreeMap<Domain, Few<Arc<RouteId>>>,
}

// === impl Place ===

impl Place {
    /// The Gateway has its tunnels already.
    pub fn new(open: &OpenListeners, gateway: &Gateway) -> Self {
        let sites = open.served().filter(|listener| !listener.has_tunnels()).map(|listener| {
            let elsewhere = more_specific(listener, open).into_iter().cloned().collect();
            let hostname = listener.hostname.clone();
            (listener.name.clone(), Attached { hostname, elsewhere, routes: BTreeMap::new() })
        });
        let uses_of_tunnels = gateway.tunnels().flat_map(uses_of_tunnel).collect();
        Self { sites: sites.collect(), uses_of_tunnels, ..Self::default() }
    }

    /// Every virtual host.
    pub fn hosts(&self) -> BTreeSet<Host> {
        let sites = self.sites.iter();
        sites
            .flat_map(|(name, site)| {
                let domains = site.routes.keys().chain([&site.hostname]);
                domains.map(|domain| Host { listener: name.clone(), domain: domain.clone() })
            })
            .collect()
    }

    /// Takes a route out. Notes the virtual hosts that this may change.
    pub fn detach(&mut self, gateway: &Key, key: &Arc<RouteId>, route: &AttachedRoute, touched: &mut BTreeSet<Host>) {
        self.each_hostname(gateway, route, |listener, site, domain| {
            touched.extend(site.covered(domain).map(|domain| Host { listener: Arc::clone(listener), domain }));
            Few::take_out(&mut site.routes, domain, key);
        });
    }

    /// Puts a route in. Notes the virtual hosts that this may change.
    pub fn attach(&mut self, gateway: &Key, key: &Arc<RouteId>, route: &AttachedRoute, touched: &mut BTreeSet<Host>) {
        self.each_hostname(gateway, route, |listener, site, domain| {
            Few::put(&mut site.routes, domain.clone(), Arc::clone(key));
            touched.extend(site.covered(domain).map(|domain| Host { listener: Arc::clone(listener), domain }));
        });
    }

    fn each_hostname(
        &mut self,
        gateway: &Key,
        route: &AttachedRoute,
        mut each: impl FnMut(&Arc<str>, &mut Attached, &Domain),
    ) {
        for attachment in route.attachments.iter().filter(|attachment| attachment.gateway == *gateway) {
            if let Some(site) = self.sites.get_mut(&attachment.listener) {
                for domain in &attachment.hostnames {
                    each(&attachment.listener, site, domain);
                }
            }
        }
    }

    /// Makes a virtual host anew. Returns whether it is another one now, and notes what it uses.
    pub fn make(&mut self, host: &Host, key: &Key, gateway: &mut Gateway, routes: &Routes) -> Made {
        let Some(site) = site_mut(gateway, &host.listener) else { return Made::default() };
        let after = self.sites.get(&host.listener).and_then(|site| site.virtual_host(&host.domain, key, routes));
        let before = site.virtual_hosts.get(&host.domain);
        if before.map(AsRef::as_ref) == after.as_ref() {
            return Made::default();
        }
        let used = |host: Option<&VirtualHost>| -> BTreeSet<Use> {
            host.into_iter().flat_map(|host| &host.routes).flat_map(|route| uses(route)).collect()
        };
        let (old, new) = (used(before.map(AsRef::as_ref)), used(after.as_ref()));
        match after {
            Some(after) => site.virtual_hosts.insert(host.domain.clone(), Arc::new(after)),
            None => site.virtual_hosts.remove(&host.domain),
        };
        let mut made = Made { changed: true, uses: BTreeSet::new() };
        for used in old.difference(&new) {
            if take_out(&mut self.uses, used, host) {
                made.uses.insert(used.clone());
            }
        }
        for used in new.difference(&old) {
            let hosts = self.uses.entry(used.clone()).or_default();
            if hosts.is_empty() {
                made.uses.insert(used.clone());
            }
            hosts.insert(host.clone());
        }
        made
    }

    pub fn uses(&self) -> impl Iterator<Item = &Use> {
        self.uses.keys().chain(&self.uses_of_tunnels)
    }

    pub fn classes(&self) -> impl Iterator<Item = &Class> {
        self.uses().filter_map(|used| match used {
            Use::Class(class) => Some(class),
            Use::Service(_) => None,
        })
    }

    /// The virtual hosts with a route to this pool.
    pub fn hosts_of_pool<'a>(&'a self, pool: &'a str) -> impl Iterator<Item = &'a Host> {
        let first = Class { pool: Some(pool.to_owned()), limits: Vec::new(), closed_by: None };
        let classes = self.uses.range(Use::Class(first)..);
        let of_pool = classes
            .take_while(move |(used, _)| matches!(used, Use::Class(class) if class.pool.as_deref() == Some(pool)));
        of_pool.flat_map(|(_, hosts)| hosts)
    }
}

/// What a virtual host that was made anew has changed.
#[derive(Debug, Default)]
pub struct Made {
    pub changed: bool,
    /// Uses that the Gateway did not have before, or has no more.
    pub uses: BTreeSet<Use>,
}

fn site_mut<'a>(gateway: &'a mut Gateway, name: &str) -> Option<&'a mut Site> {
    gateway.listeners.iter_mut().flat_map(|listener| &mut listener.sites).find(|site| *site.name == *name)
}

// === impl Attached ===

impl Attached {
    /// The domains that this one covers, itself included.
    fn covered(&self, domain: &Domain) -> impl Iterator<Item = Domain> {
        let stem = if domain.is_wildcard() { domain.stem() } else { &**domain };
        let after = self.routes.range(domain.clone()..).map(|(domain, _)| domain);
        let covered: Vec<Domain> = if domain.is_wildcard() {
            after.take_while(|below| below.stem().ends_with(stem)).cloned().collect()
        } else {
            Vec::new()
        };
        std::iter::once(domain.clone()).chain(covered)
    }

    /// None: there is no virtual host of this name.
    fn virtual_host(&self, domain: &Domain, gateway: &Key, routes: &Routes) -> Option<VirtualHost> {
        let is_elsewhere = || self.elsewhere.iter().any(|other| covers(other, domain));
        if *domain != self.hostname && (!self.routes.contains_key(domain) || is_elsewhere()) {
            return None;
        }
        let mut seen: BTreeSet<&Arc<RouteId>> = BTreeSet::new();
        let mut all = Vec::new();
        for stem in covering_stems(domain) {
            let keys = self.routes.get(&of_stem(stem)).into_iter().flat_map(Few::iter).filter(|key| seen.insert(key));
            let found: Vec<_> = keys.filter_map(|key| Some((key, routes.output(key)?))).collect();
            let found = found.iter().flat_map(|(key, route)| with_precedence(key, route, gateway));
            all.extend(in_order(found.collect()));
        }
        Some(VirtualHost { domain: domain.clone(), routes: all })
    }
}

/// The domain that has this stem.
fn of_stem(stem: &str) -> Domain {
    let is_wildcard = stem.is_empty() || stem.starts_with('.');
    if is_wildcard { format!("*{stem}").as_str().into() } else { stem.into() }
}
