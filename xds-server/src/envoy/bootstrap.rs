//! The bootstrap of our Envoys: who the Envoy is, where the control plane is, and limits. All else comes by xDS.

use std::path::Path;

use serde_json::{Value, json};
use tollgate_core::envoy::CONTROL_CLUSTER;

use super::overload::overload_manager;
use crate::serve::pki::{AUTHORITY_SECRET, CERTIFICATE_SECRET, ProxyFiles, SERVER_NAME};

/// Only the owner may use the socket.
const ADMIN_MODE: u32 = 0o600;

/// The paths of Envoy's admin API that we use: for numbers, for whether it serves, and to end requests before it stops.
/// All else that the API can do (dumps, log levels, ending Envoy) is refused, unless somebody looks for a fault.
const ADMIN_PATHS: [&str; 3] = ["/stats", "/ready", "/drain_listeners"];

#[derive(Debug)]
pub struct Bootstrap<'a> {
    pub node_id: &'a str,
    /// `host:port` of the control plane.
    pub control: ControlPlane<'a>,
    /// Socket of Envoy's own admin API.
    pub admin: &'a Path,
    /// More paths of it to answer.
    pub admin_paths: &'a [String],
    /// Bytes that Envoy's heap may have.
    pub heap: u64,
    pub certificates: &'a ProxyFiles,
}

#[derive(Debug)]
pub struct ControlPlane<'a> {
    pub host: &'a str,
    pub port: u16,
}

// === impl Bootstrap ===

impl Bootstrap<'_> {
    pub fn to_json(&self) -> Value {
        let ads = json!({"ads": {}, "resource_api_version": "V3"});
        json!({
            "node": {"id": self.node_id, "cluster": "tollgate"},
            "admin": {
                "address": {"pipe": {"path": self.admin, "mode": ADMIN_MODE}},
                "allow_paths": self.allowed(),
            },
            "dynamic_resources": {
                "ads_config": {
                    "api_type": "DELTA_GRPC",
                    "transport_api_version": "V3",
                    "set_node_on_first_message_only": true,
                    "grpc_services": [{"envoy_grpc": {
                        "cluster_name": CONTROL_CLUSTER,
                        // Envoy finds a control plane that is back within about a second, not after half a minute.
                        "retry_policy": {"retry_back_off": {"base_interval": "0.2s", "max_interval": "1s"}},
                    }}],
                },
                "cds_config": ads,
                "lds_config": ads,
            },
            "static_resources": {"clusters": [self.cluster()]},
            "overload_manager": overload_manager(self.heap),
            "watchdogs": {"main_thread_watchdog": watchdog(), "worker_watchdog": watchdog()},
        })
    }

    fn allowed(&self) -> Vec<Value> {
        let more = self.admin_paths.iter().map(String::as_str);
        ADMIN_PATHS.into_iter().chain(more).map(|path| json!({"prefix": path})).collect()
    }

    fn cluster(&self) -> Value {
        let is_ip = self.control.host.parse::<std::net::IpAddr>().is_ok();
        json!({
            "name": CONTROL_CLUSTER,
            "type": if is_ip { "STATIC" } else { "STRICT_DNS" },
            "connect_timeout": "1s",
            "load_assignment": {
                "cluster_name": CONTROL_CLUSTER,
                "endpoints": [{"lb_endpoints": [{"endpoint": {
                    "address": address(self.control.host, self.control.port),
                }}]}],
            },
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {
                        // Envoy notices a control plane that has vanished without a word.
                        "connection_keepalive": {"interval": "10s", "timeout": "5s"},
                    }},
                },
            },
            "transport_socket": {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    "sni": SERVER_NAME,
                    "common_tls_context": {
                        "alpn_protocols": ["h2"],
                        "tls_params": {
                            "tls_minimum_protocol_version": "TLSv1_3",
                            "tls_maximum_protocol_version": "TLSv1_3",
                        },
                        // By file SDS, so that Envoy takes up new certificates without a restart.
                        "tls_certificate_sds_secret_configs": [secret(CERTIFICATE_SECRET, &self.certificates.certificate)],
                        "combined_validation_context": {
                            "default_validation_context": {"match_typed_subject_alt_names": [{
                                "san_type": "DNS",
                                "matcher": {"exact": SERVER_NAME},
                            }]},
                            "validation_context_sds_secret_config":
                                secret(AUTHORITY_SECRET, &self.certificates.authority),
                        },
                    },
                },
            },
        })
    }
}

/// By default, each thread is woken five times a second to show that it is not stuck. An Envoy with nothing to do had most
/// of its cost from that.
fn watchdog() -> Value {
    json!({"miss_timeout": "2s", "megamiss_timeout": "5s"})
}

fn secret(name: &str, file: &Path) -> Value {
    json!({"name": name, "sds_config": {"path_config_source": {"path": file.to_string_lossy()}, "resource_api_version": "V3"}})
}

fn address(host: &str, port: u16) -> Value {
    json!({"socket_address": {"address": host, "port_value": port}})
}
