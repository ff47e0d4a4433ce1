//! Route tables: the virtual hosts among which the requests of one filter chain are told apart, in one of two forms.
//!
//! ```text
//! one table   RDS   <table>          all virtual hosts. A change of one makes Envoy build the whole table anew
//! scoped      SRDS  <table>|<host>   the virtual host of an exact hostname, alone. A change of it is a change of this
//!             SRDS  <table>          the virtual hosts of all wildcards, among which Envoy finds the longest
//! ```
//! A virtual host is the same in both forms. How a request finds its scope is in `scope.rs`, and why there are two forms
//! in docs/adr/0002-route-tables.md.

use envoy_types::pb::envoy::config::route::v3 as route;

use crate::ir;
use crate::snapshot::{Resource, ResourceType, Snapshot};
use crate::status::Origin;

use super::path::{route_configuration, virtual_host};
use super::route::{EntryPoint, routes};
use super::scope;

/// Which route tables have which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteTables {
    /// A table with more hostnames than this is scoped.
    pub scoped_above: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    OneTable,
    Scoped,
}

/// Which virtual hosts of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hosts {
    All,
    Wildcards,
}

// === impl RouteTables ===

impl Default for RouteTables {
    /// Up to a hundred hostnames, a change costs Envoy as much in one table as in scopes, and less memory.
    fn default() -> Self {
        Self { scoped_above: 100 }
    }
}

impl RouteTables {
    /// The form of the table of these sites. It depends on the number of hostnames alone, so a table whose number is not
    /// near the limit never changes its form, and with it its listener.
    pub fn form(self, sites: &[&ir::Site]) -> Form {
        let hosts: usize = sites.iter().map(|site| site.virtual_hosts.len()).sum();
        if hosts > self.scoped_above { Form::Scoped } else { Form::OneTable }
    }
}

/// Adds the resources of a table.
pub fn add(snapshot: &mut Snapshot, gateway: &ir::Gateway, port: u16, name: &str, sites: &[&ir::Site], form: Form) {
    match form {
        Form::OneTable => snapshot.insert(ResourceType::Route, name, one_table(gateway, port, name, sites)),
        Form::Scoped => {
            for site in sites {
                for host in site.virtual_hosts.iter().filter(|host| !is_wildcard(host)) {
                    let (scope, resource) = host_scope(EntryPoint::of(gateway, port, site), name, site, host);
                    snapshot.insert(ResourceType::ScopedRoute, scope, resource);
                }
            }
            let (scope, resource) = wildcard_scope(gateway, port, name, sites);
            snapshot.insert(ResourceType::ScopedRoute, scope, resource);
        }
    }
}

/// The scope of an exact hostname, with its name. Nothing else of its table is in it.
pub fn host_scope(entry: EntryPoint<'_>, table: &str, site: &ir::Site, host: &ir::VirtualHost) -> (String, Resource) {
    let mut made = made(entry, site, host);
    let name = scope::of_host(table, &host.domain);
    made.routes.insert(0, scope::unless_key(&name));
    made.routes.push(scope::otherwise());
    // A refusal is about a rule; only without any it is about the listener.
    let mut origins: Vec<Origin> = host.routes.iter().map(|route| route.origin.clone()).collect();
    origins.push(site.origin.clone());
    dedup(&mut origins);
    let message = scope::configuration(&name, vec![made]);
    (name, Resource::new(&message, origins))
}

/// The scope of all that has no scope of its own: wildcards. It is there without any as well, so that the first one
/// changes nothing else.
pub fn wildcard_scope(gateway: &ir::Gateway, port: u16, table: &str, sites: &[&ir::Site]) -> (String, Resource) {
    let name = scope::of_wildcards(table);
    let (mut hosts, origins) = all(gateway, port, sites, Hosts::Wildcards);
    for host in &mut hosts {
        host.routes.insert(0, scope::unless_key(&name));
    }
    let message = scope::configuration(&name, hosts);
    (name, Resource::new(&message, origins))
}

/// Whether a virtual host of a scoped table is in the [`wildcard_scope`].
pub fn is_wildcard(host: &ir::VirtualHost) -> bool {
    host.domain.starts_with('*')
}

fn one_table(gateway: &ir::Gateway, port: u16, name: &str, sites: &[&ir::Site]) -> Resource {
    let (hosts, origins) = all(gateway, port, sites, Hosts::All);
    Resource::new(&route_configuration(name.to_owned(), hosts), origins)
}

/// The virtual hosts, and what they are made from.
fn all(gateway: &ir::Gateway, port: u16, sites: &[&ir::Site], which: Hosts) -> (Vec<route::VirtualHost>, Vec<Origin>) {
    let mut hosts = Vec::new();
    let mut origins = Vec::new();
    for site in sites {
        origins.push(site.origin.clone());
        for host in site.virtual_hosts.iter().filter(|host| which == Hosts::All || is_wildcard(host)) {
            origins.extend(host.routes.iter().map(|route| route.origin.clone()));
            hosts.push(made(EntryPoint::of(gateway, port, site), site, host));
        }
    }
    dedup(&mut origins);
    (hosts, origins)
}

fn made(entry: EntryPoint<'_>, site: &ir::Site, host: &ir::VirtualHost) -> route::VirtualHost {
    virtual_host(format!("{}/{}", site.name, host.domain), &host.domain, routes(entry, &host.routes))
}

fn dedup(origins: &mut Vec<Origin>) {
    let mut seen = std::collections::BTreeSet::new();
    origins.retain(|origin| seen.insert(origin.clone()));
}
