//! Route tables: the virtual hosts among which the requests of one filter chain are told apart, in one of two forms.
//!
//! ```text
//! one table   RDS   <table>          all virtual hosts. A change of one makes Envoy build the whole table anew
//! scoped      SRDS  <table>|<host>   the virtual host of an exact hostname, alone. A change of it is a change of this
//!             SRDS  <table>          the virtual hosts of all wildcards, among which Envoy finds the longest
//! ```
//! A virtual host is the same in both forms. How a request finds its scope is in `scope.rs`, and why there are two forms
//! in docs/adr/0002-route-tables.md.

use std::sync::LazyLock;

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::google::protobuf::Duration;
use prost::Message as _;

use crate::ir;
use crate::snapshot::{Resource, ResourceType, Snapshot};
use crate::status::Origin;

use super::path::route_configuration;
use super::route::{EntryPoint, misdirected, virtual_host};
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

/// The sites of one filter chain.
#[derive(Debug)]
pub struct Table<'a> {
    /// The filter chain has the same name.
    pub name: String,
    port: u16,
    pub sites: Vec<&'a ir::Site>,
    /// The other sites that clients find by the name that they ask for (SNI), if this one is found so.
    others: Vec<&'a ir::Site>,
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

impl RouteTables {}

// === impl Table ===

impl<'a> Table<'a> {
    /// Every route table of a Gateway.
    pub fn all(gateway: &'a ir::Gateway) -> impl Iterator<Item = Self> {
        gateway.listeners.iter().flat_map(|open| Self::of_listener(gateway, open))
    }

    /// On a plain port the Host header tells the sites apart. With TLS, each has its own filter chain.
    pub fn of_listener(gateway: &ir::Gateway, open: &'a ir::Listener) -> Vec<Self> {
        let (name, port) = (name(gateway, open), open.port);
        let sites = open.sites.iter().filter(|site| site.tunnels.is_none());
        let (tls, plain): (Vec<_>, Vec<_>) = sites.partition(|site| site.terminates_tls());
        let by_name = |site: &&ir::Site| site.tunnels.is_some() || site.terminates_tls();
        let others = |site: &ir::Site| -> Vec<&'a ir::Site> {
            open.sites.iter().filter(by_name).filter(|other| other.name != site.name).collect()
        };
        let tls = tls.into_iter().map(|site| {
            let name = format!("{name}/{}", site.name);
            Self { name, port, sites: vec![site], others: others(site) }
        });
        let mut tables: Vec<Self> = tls.collect();
        if !plain.is_empty() {
            tables.insert(0, Self { name, port, sites: plain, others: Vec::new() });
        }
        tables
    }

    /// Present: TLS is terminated for this site.
    pub fn tls(&self) -> Option<&'a ir::Site> {
        self.sites.iter().find(|site| site.terminates_tls()).copied()
    }

    /// It depends on the number of hostnames alone, so a table whose number is not near the limit never changes its
    /// form, and with it its listener.
    pub fn form(&self, tables: RouteTables) -> Form {
        let hosts: usize = self.sites.iter().map(|site| site.virtual_hosts.len()).sum();
        if hosts > tables.scoped_above { Form::Scoped } else { Form::OneTable }
    }

    /// The form that it has in a snapshot.
    pub fn form_in(&self, snapshot: &Snapshot) -> Form {
        if snapshot.get(ResourceType::Route, &self.name).is_some() { Form::OneTable } else { Form::Scoped }
    }

    /// Adds the resources of the table.
    pub fn add(&self, snapshot: &mut Snapshot, gateway: &ir::Gateway, form: Form) {
        match form {
            Form::OneTable => snapshot.insert(ResourceType::Route, &self.name, self.one_table(gateway)),
            Form::Scoped => {
                for site in &self.sites {
                    for host in site.virtual_hosts.values().filter(|host| !host.domain.is_wildcard()) {
                        let scope = self.host_scope(gateway, site, host);
                        snapshot.insert(ResourceType::ScopedRoute, self.scope_of(&host.domain), scope);
                    }
                }
                let scope = self.wildcard_scope(gateway);
                snapshot.insert(ResourceType::ScopedRoute, self.scope_of_wildcards(), scope);
            }
        }
    }

    /// The name of the scope of an exact hostname.
    pub fn scope_of(&self, domain: &str) -> String {
        scope::of_host(&self.name, domain)
    }

    pub fn scope_of_wildcards(&self) -> String {
        scope::of_wildcards(&self.name)
    }

    /// The scope of an exact hostname. Nothing else of its table is in it.
    pub fn host_scope(&self, gateway: &ir::Gateway, site: &ir::Site, host: &ir::VirtualHost) -> Resource {
        let name = self.scope_of(&host.domain);
        let mut made = self.virtual_host(gateway, site, host);
        made.routes.insert(0, scope::unless_key(&name));
        made.routes.push(scope::otherwise());
        let mut origins: Vec<Origin> = host.routes.iter().map(|route| route.origin.clone()).collect();
        dedup(&mut origins);
        // A refusal is about a rule; only without any it is about the listener.
        if origins.is_empty() {
            origins.push(site.origin.clone());
        }
        Resource::like(&EXAMPLE, &scope::configuration(&name, vec![made]), origins)
    }

    /// The scope of all that has no scope of its own: wildcards. It is there without any as well, so that the first one
    /// changes nothing else.
    pub fn wildcard_scope(&self, gateway: &ir::Gateway) -> Resource {
        let name = self.scope_of_wildcards();
        let (mut hosts, origins) = self.virtual_hosts(gateway, Hosts::Wildcards);
        for host in &mut hosts {
            host.routes.insert(0, scope::unless_key(&name));
        }
        Resource::new(&scope::configuration(&name, hosts), origins)
    }

    pub fn one_table(&self, gateway: &ir::Gateway) -> Resource {
        let (hosts, origins) = self.virtual_hosts(gateway, Hosts::All);
        Resource::new(&route_configuration(self.name.clone(), hosts), origins)
    }

    /// The virtual hosts, and what they are made from.
    fn virtual_hosts(&self, gateway: &ir::Gateway, which: Hosts) -> (Vec<route::VirtualHost>, Vec<Origin>) {
        let mut hosts = Vec::new();
        let mut origins = Vec::new();
        for site in &self.sites {
            origins.push(site.origin.clone());
            let meant = |host: &ir::VirtualHost| which == Hosts::All || host.domain.is_wildcard();
            for host in site.virtual_hosts.values().filter(|host| meant(host)) {
                origins.extend(host.routes.iter().map(|route| route.origin.clone()));
                hosts.push(self.virtual_host(gateway, site, host));
            }
        }
        hosts.extend(self.misdirected(gateway));
        dedup(&mut origins);
        (hosts, origins)
    }

    /// Requests that belong to another listener of the port: a client may send them on a connection that it has already
    /// (GEP-3567). Of all hostnames Envoy takes the most specific, and no two listeners have the same.
    fn misdirected(&self, gateway: &ir::Gateway) -> Option<route::VirtualHost> {
        let site = self.sites.first().filter(|_| !self.others.is_empty())?;
        let entry = EntryPoint { gateway, port: self.port, tls: true };
        let hostnames = self.others.iter().map(|other| other.hostname.clone()).collect();
        Some(misdirected(entry, format!("{}/misdirected", site.name), hostnames))
    }

    fn virtual_host(&self, gateway: &ir::Gateway, site: &ir::Site, host: &ir::VirtualHost) -> route::VirtualHost {
        let entry = EntryPoint { gateway, port: self.port, tls: site.terminates_tls() };
        virtual_host(entry, format!("{}/{}", site.name, host.domain), host)
    }
}

/// A scope as most are: of a host with one route to a Service.
static EXAMPLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let domain = "host.example.com";
    let name = scope::of_host("default/gateway/443", domain);
    let to = route::route_action::ClusterSpecifier::Cluster("service/default/web/80".to_owned());
    let prefix = route::route_match::PathSpecifier::PathSeparatedPrefix("/".to_owned());
    let all = route::Route {
        r#match: Some(route::RouteMatch { path_specifier: Some(prefix), ..Default::default() }),
        action: Some(route::route::Action::Route(route::RouteAction {
            cluster_specifier: Some(to),
            timeout: Some(Duration::default()),
            ..Default::default()
        })),
        name: "httproute/default/web/rule/0/match/0".to_owned(),
        ..Default::default()
    };
    let host = route::VirtualHost {
        name: format!("https/{domain}"),
        domains: vec![domain.to_owned()],
        routes: vec![scope::unless_key(&name), all, scope::otherwise()],
        ..Default::default()
    };
    scope::configuration(&name, vec![host]).encode_to_vec()
});

/// The name of a listener, and of the table of its plain sites.
pub fn name(gateway: &ir::Gateway, open: &ir::Listener) -> String {
    format!("{}/{}", gateway.catalog.scope, open.port)
}

fn dedup(origins: &mut Vec<Origin>) {
    let mut seen = std::collections::BTreeSet::new();
    origins.retain(|origin| seen.insert(origin.clone()));
}
