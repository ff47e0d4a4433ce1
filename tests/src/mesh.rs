//! A mesh without istiod: an authority that issues certificates as Istio's does, and Envoys that are what sidecars
//! are for the requests to their workloads, and of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::process::{self, Process};
use crate::tools::Tools;
use crate::{client, poll};

/// Who signs the certificates of a mesh.
pub struct Authority {
    root: String,
    issuer: Issuer<'static, KeyPair>,
}

/// From when until when a certificate holds, from now on.
#[derive(Debug, Clone, Copy)]
pub enum Holds {
    /// Since a minute, for a day.
    Now,
    /// It has ended an hour ago.
    Ended,
}

/// The sidecar of a workload, in one direction. What is sent to the workload is held to a policy that is STRICT.
pub struct Sidecar {
    port: u16,
    admin: u16,
    pub process: Process,
}

/// The identity of a service account.
pub fn identity(account: &str) -> String {
    format!("spiffe://cluster.local/ns/default/sa/{account}")
}

// === impl Authority ===

impl Authority {
    pub fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "cluster.local");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate()?;
        let root = params.self_signed(&key)?.pem();
        Ok(Self { root, issuer: Issuer::new(params, key) })
    }

    /// Puts a new certificate into a folder, as Istio's agent does: each file is written beside the old one, and moved
    /// there. `trusted` signs those of the others.
    pub fn issue(&self, folder: &Path, identity: &str, holds: Holds, trusted: &Self) -> anyhow::Result<()> {
        let now = OffsetDateTime::now_utc();
        let (from, to) = match holds {
            Holds::Now => (now - Duration::from_secs(60), now + Duration::from_secs(86_400)),
            Holds::Ended => (now - Duration::from_secs(7_200), now - Duration::from_secs(3_600)),
        };
        let mut params = CertificateParams::default();
        // The name is in the identity alone.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(identity.try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = (from, to);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        std::fs::create_dir_all(folder)?;
        let files = [
            ("cert-chain.pem", certificate.pem()),
            ("key.pem", key.serialize_pem()),
            ("root-cert.pem", trusted.root.clone()),
        ];
        for (name, text) in files {
            let beside = folder.join(format!(".{name}.new"));
            std::fs::write(&beside, text)?;
            std::fs::rename(beside, folder.join(name))?;
        }
        Ok(())
    }
}

// === impl Sidecar ===

impl Sidecar {
    /// It shows the certificate of `folder`, takes what the mesh's `permitted` identity sends, and passes it on to `app`, a
    /// port of this machine.
    pub async fn inbound(tools: &Tools, folder: &Path, permitted: &str, app: u16) -> anyhow::Result<Self> {
        let permitted = format!("{{exact: \"{permitted}\"}}");
        let values = [
            ("APP", app.to_string()),
            ("PERMITTED", permitted),
            ("FILTERS", String::new()),
            ("CLUSTERS", String::new()),
        ];
        Self::start(tools, folder, INBOUND, &values).await
    }

    /// The same, with what EnvoyFilters have put there, as one line of text each. It takes what anybody in the mesh sends.
    pub async fn carrying(
        tools: &Tools,
        folder: &Path,
        app: u16,
        filters: &[String],
        cluster: &str,
    ) -> anyhow::Result<Self> {
        let permitted = "{prefix: \"spiffe://\"}".to_owned();
        // Below each other, as far in as the place is.
        let filters: Vec<String> = filters.iter().map(|text| format!("- {text}")).collect();
        let (filter, cluster) = (filters.join("\n          "), format!("- {cluster}"));
        let values = [("APP", app.to_string()), ("PERMITTED", permitted), ("FILTERS", filter), ("CLUSTERS", cluster)];
        // Connections stay, so that it shows when one is drained.
        let lasting = INBOUND.replace("{max_requests_per_connection: 1}", "{}");
        Self::start(tools, folder, &lasting, &values).await
    }

    /// It takes what its workload sends in plain text, and passes it on by the mesh's TLS to `port` of this machine, where it
    /// expects `peer`.
    pub async fn outbound(tools: &Tools, folder: &Path, peer: &str, port: u16) -> anyhow::Result<Self> {
        Self::start(tools, folder, OUTBOUND, &[("PEER_PORT", port.to_string()), ("PEER", peer.to_owned())]).await
    }

    /// The same, but its connections stay.
    pub async fn lasting(tools: &Tools, folder: &Path, peer: &str, port: u16) -> anyhow::Result<Self> {
        let config = OUTBOUND.replace("{max_requests_per_connection: 1}", "{}");
        Self::start(tools, folder, &config, &[("PEER_PORT", port.to_string()), ("PEER", peer.to_owned())]).await
    }

    /// The same, but it shows no certificate.
    pub async fn without_certificate(tools: &Tools, folder: &Path, peer: &str, port: u16) -> anyhow::Result<Self> {
        let lines: Vec<&str> = OUTBOUND.lines().filter(|line| !line.contains("tls_certificates")).collect();
        Self::start(tools, folder, &lines.join("\n"), &[("PEER_PORT", port.to_string()), ("PEER", peer.to_owned())])
            .await
    }

    /// It takes what its workload sends in plain text. What is for a virtual host of Envoy goes where a filter has its routes
    /// lead, and all else to `others`, in plain text. Filter, host and clusters are one line of text each.
    pub async fn choosing(
        tools: &Tools,
        folder: &Path,
        [filter, host]: [&str; 2],
        clusters: &[String],
        others: u16,
    ) -> anyhow::Result<Self> {
        let clusters: Vec<String> = clusters.iter().map(|cluster| format!("- {cluster}")).collect();
        let values = [
            ("FILTER", filter.to_owned()),
            ("HOST", host.to_owned()),
            ("CLUSTERS", clusters.join("\n  ")),
            ("OTHERS", others.to_string()),
        ];
        Self::start(tools, folder, CHOOSING, &values).await
    }

    async fn start(tools: &Tools, folder: &Path, config: &str, values: &[(&str, String)]) -> anyhow::Result<Self> {
        let admin = process::free_port()?;
        let port = process::free_port()?;
        let path = |name: &str| -> anyhow::Result<String> {
            Ok(folder.join(name).to_str().context("a path in UTF-8")?.to_owned())
        };
        let of_all = [
            ("PORT", port.to_string()),
            ("ADMIN", admin.to_string()),
            ("CHAIN", path("cert-chain.pem")?),
            ("KEY", path("key.pem")?),
            ("ROOT", path("root-cert.pem")?),
        ];
        let own = values.iter().cloned();
        let config = of_all
            .into_iter()
            .chain(own)
            .fold(config.to_owned(), |config, (name, value)| config.replace(&format!("@{name}@"), &value));
        let file = folder.join("sidecar.yaml");
        std::fs::write(&file, config)?;
        let mut command = Command::new(&tools.envoy);
        command.arg("--config-path").arg(&file).args([
            "--concurrency",
            "1",
            "--use-dynamic-base-id",
            "--log-level",
            "warning",
        ]);
        let mut process = Process::start(&mut command, &folder.join("sidecar.log"))?;
        poll::until("the sidecar is ready", || {
            let running = process.ensure_running();
            async move {
                if running.is_err() {
                    return Ok(running);
                }
                tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
                Ok(Ok(()))
            }
        })
        .await??;
        Ok(Self { port, admin, process })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The sum of the counters and gauges whose names begin with this.
    pub async fn stats(&self, prefix: &str) -> anyhow::Result<u64> {
        let url = format!("http://127.0.0.1:{}/stats?filter=^{}", self.admin, prefix.replace('.', "\\."));
        let text = client::direct().get(url).send().await?.text().await?;
        Ok(text.lines().filter_map(|line| line.rsplit_once(": ")?.1.parse::<u64>().ok()).sum())
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// The inbound listener as istiod makes it for STRICT, an AuthorizationPolicy by principal and a port of HTTP: a chain for
/// what the mesh's proxies say in ALPN, and none for plain text.
const INBOUND: &str = r#"
node: {id: sidecar~127.0.0.1~runner-1.default~default.svc.cluster.local, cluster: runner.default}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: @ADMIN@}}}
static_resources:
  listeners:
  - name: virtualInbound
    address: {socket_address: {address: 127.0.0.1, port_value: @PORT@}}
    listener_filters:
    - name: envoy.filters.listener.tls_inspector
      typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}
    filter_chains:
    - filter_chain_match: {transport_protocol: tls, application_protocols: [istio, istio-http/1.0, istio-http/1.1, istio-h2]}
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            tls_params: {tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3}
            alpn_protocols: [istio-peer-exchange, h2, http/1.1]
            tls_certificates: [{certificate_chain: {filename: "@CHAIN@"}, private_key: {filename: "@KEY@"}}]
            validation_context:
              trusted_ca: {filename: "@ROOT@"}
              match_typed_subject_alt_names: [{san_type: URI, matcher: {prefix: "spiffe://cluster.local/"}}]
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: inbound
          # Each request shows what certificates are worth now.
          common_http_protocol_options: {max_requests_per_connection: 1}
          forward_client_cert_details: APPEND_FORWARD
          set_current_client_cert_details: {subject: true, dns: true, uri: true}
          http_filters:
          - name: envoy.filters.http.rbac
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
              rules:
                action: ALLOW
                policies:
                  by-principal:
                    permissions: [{any: true}]
                    principals: [{authenticated: {principal_name: @PERMITTED@}}]
          @FILTERS@
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            virtual_hosts:
            - {name: inbound, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: inbound, timeout: 0s}}]}
  clusters:
  - name: inbound
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: inbound
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: @APP@}}}}]}]
  @CLUSTERS@
"#;

/// What istiod makes of a Service for its callers: the mesh's TLS to whoever is its service account, by a server name and
/// protocols (ALPN) of the mesh.
const OUTBOUND: &str = r#"
admin: {address: {socket_address: {address: 127.0.0.1, port_value: @ADMIN@}}}
static_resources:
  listeners:
  - name: outbound
    address: {socket_address: {address: 127.0.0.1, port_value: @PORT@}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: outbound
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            virtual_hosts:
            - {name: llm, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: outbound, timeout: 0s}}]}
  clusters:
  - name: outbound
    type: STATIC
    connect_timeout: 5s
    # Each request shows what certificates are worth now.
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        common_http_protocol_options: {max_requests_per_connection: 1}
        explicit_http_config: {http_protocol_options: {}}
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: outbound_.8443_._.llm-tollgate.default.svc.cluster.local
        common_tls_context:
          tls_params: {tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3}
          alpn_protocols: [istio-http/1.1, istio, http/1.1]
          tls_certificates: [{certificate_chain: {filename: "@CHAIN@"}, private_key: {filename: "@KEY@"}}]
          validation_context:
            trusted_ca: {filename: "@ROOT@"}
            match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: "@PEER@"}}]
    load_assignment:
      cluster_name: outbound
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: @PEER_PORT@}}}}]}]
"#;

/// What istiod makes of all Services with one port for their callers: a virtual host for each, behind the same filters.
const CHOOSING: &str = r#"
node: {id: sidecar~127.0.0.1~web-1.default~default.svc.cluster.local, cluster: web.default}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: @ADMIN@}}}
static_resources:
  listeners:
  - name: 0.0.0.0_80
    address: {socket_address: {address: 127.0.0.1, port_value: @PORT@}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: outbound_0.0.0.0_80
          http_filters:
          - @FILTER@
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            virtual_hosts:
            - @HOST@
            - {name: allow_any, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: others, timeout: 0s}}]}
  clusters:
  - name: others
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: others
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: @OTHERS@}}}}]}]
  @CLUSTERS@
"#;

/// What istiod makes of a Service, as in the sidecar of a caller whose certificate is in `folder`.
pub fn cluster_of_peer(folder: &Path, service: &str, peer: &str, port: u16) -> Value {
    let file = |name: &str| json!({"filename": folder.join(name)});
    let http = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    json!({
        "name": service,
        "type": "STATIC",
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {
            http: {"@type": format!("type.googleapis.com/{http}"), "explicit_http_config": {"http_protocol_options": {}}},
        },
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": format!("outbound_.80_._.{service}.default.svc.cluster.local"),
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
                "alpn_protocols": ["istio-http/1.1", "istio", "http/1.1"],
                "tls_certificates": [{"certificate_chain": file("cert-chain.pem"), "private_key": file("key.pem")}],
                "validation_context": {
                    "trusted_ca": file("root-cert.pem"),
                    "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer}}],
                },
            },
        }},
        "load_assignment": {"cluster_name": service, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {
            "socket_address": {"address": "127.0.0.1", "port_value": port},
        }}}]}]},
    })
}

/// The folder of a proxy's certificate in that of a test.
pub fn folder(home: &Path, whose: &str) -> PathBuf {
    home.join("mesh").join(whose)
}
