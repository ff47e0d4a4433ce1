//! Clusters and endpoints: one cluster for each ModelBackend, with its own TLS and upstream filters, and one
//! for each port of a Service and for each InferencePool.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::{HttpProtocolOptions, http_protocol_options};
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use prost::Message as _;

use crate::ir;
use crate::objects::Schema;
use crate::snapshot::{Resource, ResourceType, Snapshot};
use crate::terms::Collector;

use super::wire::{address, ads, any, duration, number};
use super::{edge, jwt, picker, signals, tls, tracing, upstream};

pub fn add(snapshot: &mut Snapshot, gateway: &ir::Gateway) {
    for backend in gateway.catalog.backends.values() {
        snapshot.insert(ResourceType::Cluster, &backend.cluster, self::backend(gateway, backend));
    }
    for (name, cluster) in gateway.jwt_issuers.iter().filter_map(of_keys) {
        snapshot.insert(ResourceType::Cluster, name, cluster);
    }
    for service in gateway.services.values() {
        for (kind, name, resource) in self::service(gateway, service) {
            snapshot.insert(kind, name, resource);
        }
    }
}

const SERVICE_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub fn backend(gateway: &ir::Gateway, backend: &ir::Backend) -> Resource {
    let mut origins = vec![backend.origin.clone()];
    origins.extend(backend.credential.as_ref().map(|credential| credential.origin.clone()));
    Resource::new(&of_backend(gateway, backend), origins)
}

/// The clusters of a Service, and the endpoints that both take.
pub fn service(gateway: &ir::Gateway, service: &ir::Service) -> Vec<(ResourceType, String, Resource)> {
    let own = vec![service.origin.clone()];
    let mut origins = own.clone();
    origins.extend(service.tls.as_deref().and_then(ir::ServiceTls::origin).cloned());
    let cluster = Resource::new(&of_service(gateway, service), origins);
    let endpoints = Resource::new(&by_zone(&service.cluster, &service.endpoints), own.clone());
    let mut made = vec![
        (ResourceType::Cluster, gateway.own_cluster(&service.cluster), cluster),
        (ResourceType::Endpoint, service.cluster.clone(), endpoints),
    ];
    if has_tunnels(gateway, service) {
        let name = tunnel_name(&service.cluster);
        let tunnel = by_eds(common(&name, SERVICE_CONNECT_TIMEOUT), &service.cluster);
        let tunnel = in_mesh(tunnel, service, tls::Inside::Tcp);
        made.push((ResourceType::Cluster, name, Resource::new(&tunnel, own)));
    }
    made
}

/// The names of all that [`service`] may make for this cluster.
pub fn names_of_service(gateway: &ir::Gateway, cluster: &str) -> [(ResourceType, String); 3] {
    let tunnel = (ResourceType::Cluster, tunnel_name(cluster));
    [(ResourceType::Cluster, gateway.own_cluster(cluster)), (ResourceType::Endpoint, cluster.to_owned()), tunnel]
}

/// The name of the endpoints that a cluster takes. None: it brings them along, or it is no cluster.
pub fn endpoints_of(cluster: &Resource) -> Option<String> {
    let cluster = cluster::Cluster::decode(&*cluster.content.bytes()).ok()?;
    let name = cluster.eds_cluster_config?.service_name;
    Some(if name.is_empty() { cluster.name } else { name })
}

fn of_backend(gateway: &ir::Gateway, backend: &ir::Backend) -> cluster::Cluster {
    let common = cluster::Cluster {
        metadata: Some(provider(backend.schema)),
        ..common(&backend.cluster, backend.timeouts.connect)
    };
    let is_closed = match &backend.tls {
        ir::Tls::Simple { .. } => matches!(gateway.client_certificate, ir::ClientCertificate::Missing),
        // Anybody could be there, or no proxy of this Gateway could show who it is.
        ir::Tls::Istio { peers, .. } => peers.is_none() || gateway.mesh.is_none(),
        ir::Tls::None => false,
    };
    let mut made = match &backend.endpoint {
        // Other targets are tried.
        _ if is_closed => cluster::Cluster {
            cluster_discovery_type: discovery(cluster::cluster::DiscoveryType::Static),
            load_assignment: Some(by_zone(&backend.cluster, &[])),
            ..common
        },
        ir::Endpoint::Address { ip, port } => cluster::Cluster {
            cluster_discovery_type: discovery(cluster::cluster::DiscoveryType::Static),
            load_assignment: Some(assignment(&backend.cluster, [(ip.to_string(), *port)])),
            ..common
        },
        ir::Endpoint::Dns { hostname, port } => cluster::Cluster {
            cluster_discovery_type: discovery(cluster::cluster::DiscoveryType::StrictDns),
            dns_lookup_family: cluster::cluster::DnsLookupFamily::V4Preferred.into(),
            load_assignment: Some(assignment(&backend.cluster, [(hostname.clone(), *port)])),
            ..common
        },
        ir::Endpoint::Service { cluster } => by_eds(common, cluster),
        ir::Endpoint::InferencePool { cluster, .. } => cluster::Cluster {
            load_balancing_policy: picker::policy(&ir::Choice::LeastBusy),
            ..by_eds(common, cluster)
        },
    };
    let version = match &backend.tls {
        ir::Tls::Simple { sni, ca } => {
            made.transport_socket = Some(tls::upstream((sni, ca), gateway.client_certificate.shown()));
            Version::Negotiated
        }
        ir::Tls::None if matches!(backend.endpoint, ir::Endpoint::InferencePool { h2c: true, .. }) => Version::Http2,
        ir::Tls::None => Version::Http1,
        ir::Tls::Istio { peers, to } => {
            let is_http2 = matches!(backend.endpoint, ir::Endpoint::InferencePool { h2c: true, .. });
            let (version, inside) = known(is_http2);
            match (peers, to) {
                (Some(peers), ir::MeshTo::All) => made.transport_socket = Some(tls::mesh(peers, inside)),
                (Some(peers), ir::MeshTo::Members) => made.transport_socket_matches = by_member(peers, inside),
                (None, _) => {}
            }
            version
        }
    };
    set_protocol(&mut made, version, upstream::filters(gateway, backend));
    made
}

/// By which access logs and spans say who answers.
fn provider(schema: Schema) -> core::Metadata {
    let (namespace, name) = signals::PROVIDER_METADATA;
    let fields = one_field((name, schema.provider()));
    core::Metadata { filter_metadata: [(namespace.to_owned(), fields)].into(), ..Default::default() }
}

/// The cluster of somebody's keys (JWKS), with its name.
fn of_keys(issuer: &ir::JwtIssuer) -> Option<(String, Resource)> {
    let name = jwt::cluster_name(&issuer.keys)?;
    let ir::JwtKeys::Remote { host, port, tls, .. } = &issuer.keys else { return None };
    let transport_socket = tls.then(|| tls::upstream((host, &ir::Authority::System), None));
    let mut made = cluster::Cluster { transport_socket, ..at(&name, host, *port) };
    set_protocol(&mut made, Version::Http1, Vec::new());
    Some((name, Resource::new(&made, vec![issuer.origin.clone()])))
}

/// The cluster of the collector that takes the spans of a Gateway.
pub fn of_collector(gateway: &ir::Gateway, collector: &Collector) -> Resource {
    let transport_socket = tls::to_collector(collector);
    let mut made = cluster::Cluster { transport_socket, ..at(tracing::CLUSTER, &collector.host, collector.port) };
    set_protocol(&mut made, Version::Http2, Vec::new());
    Resource::new(&made, vec![gateway.catalog.scope.origin()])
}

/// Whoever is at this name or address. Nothing of the mesh is put around it.
fn at(name: &str, host: &str, port: u16) -> cluster::Cluster {
    let bare = host.trim_matches(['[', ']']);
    let kind = match bare.parse::<IpAddr>() {
        Ok(_) => cluster::cluster::DiscoveryType::Static,
        Err(_) => cluster::cluster::DiscoveryType::StrictDns,
    };
    cluster::Cluster {
        cluster_discovery_type: discovery(kind),
        dns_lookup_family: cluster::cluster::DnsLookupFamily::V4Preferred.into(),
        load_assignment: Some(assignment(name, [(bare.to_owned(), port)])),
        ..common(name, SERVICE_CONNECT_TIMEOUT)
    }
}

fn of_service(gateway: &ir::Gateway, service: &ir::Service) -> cluster::Cluster {
    let common = common(&gateway.own_cluster(&service.cluster), SERVICE_CONNECT_TIMEOUT);
    let socket = service.tls.as_deref().map(|tls| match &gateway.client_certificate {
        ir::ClientCertificate::Missing => None,
        client => tls::to_service((&service.cluster, tls), client.shown()),
    });
    let (mut made, version) = match socket {
        None => {
            let (version, inside) = known(service.h2c);
            (in_mesh(by_eds(common, &service.cluster), service, inside), version)
        }
        Some(None) => (without_endpoints(common), Version::Http1),
        Some(transport_socket) => {
            (cluster::Cluster { transport_socket, ..by_eds(common, &service.cluster) }, Version::Negotiated)
        }
    };
    made.load_balancing_policy = picker::policy(&service.choice);
    set_protocol(&mut made, version, Vec::new());
    made
}

/// By the mesh's TLS, as far as the endpoints are in the mesh.
fn in_mesh(made: cluster::Cluster, service: &ir::Service, inside: tls::Inside) -> cluster::Cluster {
    let matches = service.peers.as_deref().map(|peers| by_member(peers, inside));
    cluster::Cluster { transport_socket_matches: matches.unwrap_or_default(), ..made }
}

/// What Envoy goes by when it chooses the transport socket of an endpoint, and what the endpoints of the mesh say there.
/// Istio has the same.
const MATCH: &str = "envoy.transport_socket_match";
const TLS_MODE: (&str, &str) = ("tlsMode", "istio");

fn by_member(peers: &ir::Peers, inside: tls::Inside) -> Vec<cluster::cluster::TransportSocketMatch> {
    // The others have what the cluster has besides: no TLS.
    vec![cluster::cluster::TransportSocketMatch {
        name: "mesh".to_owned(),
        r#match: Some(one_field(TLS_MODE)),
        transport_socket: Some(tls::mesh(peers, inside)),
    }]
}

fn one_field((name, value): (&str, &str)) -> Struct {
    let value = Value { kind: Some(Kind::StringValue(value.to_owned())) };
    Struct { fields: [(name.to_owned(), value)].into() }
}

/// Whether connections are passed on to it whose TLS is its own.
fn has_tunnels(gateway: &ir::Gateway, service: &ir::Service) -> bool {
    let sites = gateway.listeners.iter().flat_map(|listener| &listener.sites);
    let mut tunnels = sites.filter(|site| !site.terminates_tls()).flat_map(ir::Site::tunnels);
    tunnels.any(|tunnel| tunnel.services.iter().any(|used| used.service == service.cluster))
}

/// The cluster of connections whose TLS is passed on to a Service: nothing is put around it.
pub fn tunnel_name(service: &str) -> String {
    format!("{service}/tunnel")
}

/// Requests to it are answered with 503, and connections are closed.
fn without_endpoints(common: cluster::Cluster) -> cluster::Cluster {
    cluster::Cluster {
        cluster_discovery_type: discovery(cluster::cluster::DiscoveryType::Static),
        load_assignment: Some(assignment(&common.name, [])),
        ..common
    }
}

fn common(name: &str, connect: Duration) -> cluster::Cluster {
    cluster::Cluster {
        name: name.to_owned(),
        connect_timeout: duration(connect),
        per_connection_buffer_limit_bytes: number(edge::BUFFER_BYTES),
        circuit_breakers: Some(cluster::CircuitBreakers {
            // Budgets hold requests back, and streams are long, so Envoy's usual limit of a thousand would be in the
            // way.
            thresholds: vec![cluster::circuit_breakers::Thresholds {
                max_connections: number(100_000),
                max_pending_requests: number(100_000),
                max_requests: number(100_000),
                max_retries: number(1_024),
                ..Default::default()
            }],
            ..Default::default()
        }),
        upstream_connection_options: Some(cluster::UpstreamConnectionOptions {
            // A model may be silent for minutes, but a lost peer should be noticed earlier.
            tcp_keepalive: Some(core::TcpKeepalive {
                keepalive_probes: number(3),
                keepalive_time: number(60),
                keepalive_interval: number(10),
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn by_eds(common: cluster::Cluster, service_name: &str) -> cluster::Cluster {
    cluster::Cluster {
        cluster_discovery_type: discovery(cluster::cluster::DiscoveryType::Eds),
        eds_cluster_config: Some(cluster::cluster::EdsClusterConfig {
            eds_config: Some(ads()),
            service_name: service_name.to_owned(),
        }),
        ..common
    }
}

fn discovery(kind: cluster::cluster::DiscoveryType) -> Option<cluster::cluster::ClusterDiscoveryType> {
    Some(cluster::cluster::ClusterDiscoveryType::Type(kind.into()))
}

fn assignment(name: &str, hosts: impl IntoIterator<Item = (String, u16)>) -> endpoint::ClusterLoadAssignment {
    let lb_endpoints = hosts.into_iter().map(|(host, port)| lb_endpoint(address(&host, port))).collect();
    endpoint::ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![endpoint::LocalityLbEndpoints { lb_endpoints, ..Default::default() }],
        ..Default::default()
    }
}

/// Nothing can listen here, because no folder has this name.
const NOBODY: &str = "/dev/null/nobody";

/// What stands for no endpoint at all. Envoy answers a request to a cluster without endpoints at once and tries no other
/// target. A connection that is refused is what makes it go on.
fn nobody() -> endpoint::LbEndpoint {
    let pipe = core::Pipe { path: NOBODY.to_owned(), ..Default::default() };
    lb_endpoint(core::Address { address: Some(core::address::Address::Pipe(pipe)) })
}

/// Each zone is a locality. An Envoy that knows its own zone may prefer it; to others all zones are the same.
fn by_zone(name: &str, endpoints: &[ir::ServiceEndpoint]) -> endpoint::ClusterLoadAssignment {
    let mut zones: BTreeMap<Option<&Arc<str>>, Vec<endpoint::LbEndpoint>> = BTreeMap::new();
    for endpoint in endpoints {
        let zone = zones.entry(endpoint.zone.as_ref()).or_default();
        let made = lb_endpoint(address(&endpoint.ip.to_string(), endpoint.port));
        let metadata = endpoint.is_in_mesh.then(|| core::Metadata {
            filter_metadata: [(MATCH.to_owned(), one_field(TLS_MODE))].into(),
            ..Default::default()
        });
        zone.push(endpoint::LbEndpoint { metadata, ..made });
    }
    if zones.is_empty() {
        zones.entry(None).or_default().push(nobody());
    }
    let locality = |zone: &Arc<str>| core::Locality { zone: zone.to_string(), ..Default::default() };
    let endpoints = zones.into_iter().map(|(zone, lb_endpoints)| endpoint::LocalityLbEndpoints {
        locality: zone.map(locality),
        lb_endpoints,
        ..Default::default()
    });
    endpoint::ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: endpoints.collect(),
        ..Default::default()
    }
}

fn lb_endpoint(address: core::Address) -> endpoint::LbEndpoint {
    let endpoint = endpoint::Endpoint { address: Some(address), ..Default::default() };
    endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint)),
        ..Default::default()
    }
}

enum Version {
    Http1,
    Http2,
    /// By ALPN.
    Negotiated,
}

/// The version of those that say which one they speak, and the same inside of the mesh's TLS.
fn known(is_http2: bool) -> (Version, tls::Inside) {
    if is_http2 { (Version::Http2, tls::Inside::Http2) } else { (Version::Http1, tls::Inside::Http1) }
}

fn set_protocol(made: &mut cluster::Cluster, version: Version, http_filters: Vec<HttpFilter>) {
    use http_protocol_options::explicit_http_config::ProtocolConfig;
    use http_protocol_options::{AutoHttpConfig, ExplicitHttpConfig, UpstreamProtocolOptions};
    let explicit =
        |config| UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) });
    let options = match version {
        Version::Http1 => explicit(ProtocolConfig::HttpProtocolOptions(core::Http1ProtocolOptions::default())),
        Version::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(edge::http2())),
        Version::Negotiated => UpstreamProtocolOptions::AutoConfig(AutoHttpConfig {
            http2_protocol_options: Some(edge::http2()),
            ..Default::default()
        }),
    };
    let options = HttpProtocolOptions { upstream_protocol_options: Some(options), http_filters, ..Default::default() };
    made.typed_extension_protocol_options
        .insert("envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(), any(&options));
}

pub fn filter<M: prost::Message + prost::Name>(name: &str, message: &M) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(message))),
        ..Default::default()
    }
}
