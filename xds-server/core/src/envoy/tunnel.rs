//! Filter chains that pass connections on as a whole: one for each name that a client may ask for (SNI).

use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight,
};

use crate::ir;
use crate::status::Origin;

use super::listener::{bounds, network_filter};
use super::wire::duration;
use super::{cluster, edge, tls};

/// No cluster has this name, so Envoy closes the connections that are to go there.
const NOWHERE: &str = "nowhere";

/// The filter chains of a site that has tunnels. `listener` is the name of Envoy's.
pub fn chains(gateway: &ir::Gateway, listener: &str, site: &ir::Site) -> Vec<listener::FilterChain> {
    let tunnels = site.tunnels.iter().flatten();
    tunnels
        .map(|(domain, tunnel)| {
            chain(gateway, format!("{listener}/{}/{domain}", site.name), site, (domain, tunnel.as_deref()))
        })
        .collect()
}

/// The TLSRoutes that have a tunnel.
pub fn origins(site: &ir::Site) -> impl Iterator<Item = Origin> {
    site.tunnels().map(|tunnel| tunnel.origin.clone())
}

/// Envoy closes the connections of a filter chain without filters. It is there, because without it they would belong to
/// a less specific name.
fn chain(
    gateway: &ir::Gateway,
    name: String,
    site: &ir::Site,
    (domain, tunnel): (&str, Option<&ir::Tunnel>),
) -> listener::FilterChain {
    let found = listener::FilterChainMatch {
        server_names: tls::server_names(domain),
        // What is no TLS asks for no name.
        transport_protocol: "tls".to_owned(),
        ..Default::default()
    };
    let clusters = tunnel.and_then(|tunnel| clusters(gateway, site, tunnel));
    let is_open = clusters.is_some();
    let filters = clusters.map(|clusters| {
        let mut filters = bounds(gateway, &name);
        filters.push(network_filter("envoy.filters.network.tcp_proxy", &proxy(&name, clusters)));
        filters
    });
    listener::FilterChain {
        filter_chain_match: Some(found),
        transport_socket: if is_open { tls::downstream(site, &[]) } else { None },
        filters: filters.unwrap_or_default(),
        name,
        ..Default::default()
    }
}

fn proxy(name: &str, clusters: ClusterSpecifier) -> TcpProxy {
    TcpProxy {
        stat_prefix: name.to_owned(),
        idle_timeout: duration(edge::TUNNEL_IDLE_TIMEOUT),
        cluster_specifier: Some(clusters),
        ..Default::default()
    }
}

/// None: it leads nowhere.
fn clusters(gateway: &ir::Gateway, site: &ir::Site, tunnel: &ir::Tunnel) -> Option<ClusterSpecifier> {
    let passes_tls = !site.terminates_tls();
    let name = |service: &str| if passes_tls { cluster::tunnel_name(service) } else { gateway.own_cluster(service) };
    match tunnel.services.as_slice() {
        [] => None,
        [only] if tunnel.invalid == 0 => Some(ClusterSpecifier::Cluster(name(&only.service))),
        services => {
            let usable = services.iter().map(|service| (name(&service.service), service.weight));
            let invalid = (tunnel.invalid > 0).then(|| (NOWHERE.to_owned(), tunnel.invalid));
            let weight = |(name, weight)| ClusterWeight { name, weight, ..Default::default() };
            let clusters = usable.chain(invalid).map(weight).collect();
            Some(ClusterSpecifier::WeightedClusters(WeightedCluster { clusters }))
        }
    }
}
