//! What Istio does with an EnvoyFilter of ours, without Istio: the agent fetches the code and looks at its hash, and the
//! sidecar gets the filter by discovery, in its place before the router.
//!
//! Discovery comes from a file here, and from istiod in a mesh. All else is Envoy's own.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::mesh::Sidecar;
use crate::tools::Tools;
use crate::{cli, client, config::sha256_hex};

/// The EnvoyFilters of a folder of objects, and where their filters reach the control plane.
pub struct Istiod {
    tools: Tools,
    conf: PathBuf,
    /// The folder of the sidecar's certificate, where discovery's file and the code are put, too.
    folder: PathBuf,
    pub ports: Ports,
}

/// The control plane's, on this machine.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub sidecars: u16,
    pub code: u16,
}

/// The one of its Service, by which sidecars know it.
const HOST: &str = "tollgate.tollgate-system.svc.cluster.local";
const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
/// The service account of the proxies of Gateways.
pub const GATEWAY: &str = "gateway";
/// The identity that the control plane shows.
pub const CONTROL_PLANE: &str = "tollgate";

// === impl Istiod ===

impl Istiod {
    pub fn new(tools: &Tools, conf: &Path, folder: &Path, ports: Ports) -> Self {
        Self { tools: tools.clone(), conf: conf.to_owned(), folder: folder.to_owned(), ports }
    }

    /// The sidecar in front of `app`, a port of this machine, with the filter of the one Service that has one.
    pub async fn sidecar(&self, app: u16) -> anyhow::Result<Sidecar> {
        let filter = self.send().await?;
        self.started(app, &filter).await
    }

    /// The same, with filters that Istio has before ours, such as the one of a RequestAuthentication.
    pub async fn sidecar_after(&self, app: u16, before: &[Value]) -> anyhow::Result<Sidecar> {
        let filter = self.send().await?;
        self.started_after(app, &filter, before).await
    }

    /// A sidecar with what was sent on before.
    pub async fn started(&self, app: u16, filter: &Value) -> anyhow::Result<Sidecar> {
        self.started_after(app, filter, &[]).await
    }

    /// The same sidecar, with no filter of ours.
    pub async fn sidecar_without(&self, app: u16) -> anyhow::Result<Sidecar> {
        Sidecar::carrying(&self.tools, &self.folder, app, &[], &self.cluster().to_string()).await
    }

    async fn started_after(&self, app: u16, filter: &Value, before: &[Value]) -> anyhow::Result<Sidecar> {
        let patches = filter.pointer("/spec/configPatches").and_then(Value::as_array).context("no patches")?;
        let of_port = |patch: &&Value| patch.pointer("/match/listener/portNumber") == Some(&json!(app));
        let place = patches.iter().find(of_port).with_context(|| format!("nothing is for port {app}: {filter}"))?;
        let place = self.discovered(place.pointer("/patch/value").context("no value")?)?;
        let cluster = self.cluster().to_string();
        let filters: Vec<String> = before.iter().chain([&place]).map(Value::to_string).collect();
        Sidecar::carrying(&self.tools, &self.folder, app, &filters, &cluster).await
    }

    /// The place of a filter, which is discovered from a file here.
    fn discovered(&self, place: &Value) -> anyhow::Result<Value> {
        let mut place = place.clone();
        let source = place.pointer("/config_discovery/config_source").context("no discovery")?;
        anyhow::ensure!(source.get("ads") == Some(&json!({})), "discovery is not istiod's: {source}");
        anyhow::ensure!(place.pointer("/config_discovery/type_urls") == Some(&json!([WASM])), "{place}");
        let watched = self.folder.join("ecds");
        *place.pointer_mut("/config_discovery/config_source").context("no discovery")? = json!({
            "path_config_source": {"path": self.discovery(), "watched_directory": {"path": watched}},
            "initial_fetch_timeout": "0s",
            "resource_api_version": "V3",
        });
        Ok(place)
    }

    /// The sidecar of a caller that asks at the one Service of models. Its certificate is that of `folder`. By the names of
    /// their Services, backends are at ports of this machine, where sidecars show the identities of these accounts. What is
    /// sent to any other host goes to `others`, in plain text.
    pub async fn caller(&self, folder: &Path, backends: &[(&str, &str, u16)], others: u16) -> anyhow::Result<Sidecar> {
        let [filter, route] = self.objects("sidecar-outbound", ["EnvoyFilter", "HTTPRoute"])?;
        self.deliver(&filter).await?;
        let patch = |kind: &str| {
            let patches = filter.pointer("/spec/configPatches").and_then(Value::as_array).into_iter().flatten();
            let mut of_kind = patches.filter(|patch| patch.get("applyTo") == Some(&json!(kind)));
            of_kind.next().with_context(|| format!("no {kind} in {filter}"))
        };
        let place = patch("HTTP_FILTER")?;
        anyhow::ensure!(place.pointer("/match/listener/portNumber") == Some(&json!(80)), "{place}");
        let place = self.discovered(place.pointer("/patch/value").context("no value")?)?;
        let host = patch("VIRTUAL_HOST")?;
        let name = host.pointer("/match/routeConfiguration/vhost/name").and_then(Value::as_str).context("no name")?;
        let domain = name.strip_suffix(":80").with_context(|| name.to_owned())?;
        let filters = host.pointer("/patch/value/typed_per_filter_config").context("nothing turns the filter on")?;
        let routes = routes(&route)?;
        let host = json!({"name": name, "domains": [domain], "routes": routes, "typed_per_filter_config": filters})
            .to_string();
        let clusters = backends.iter().map(|(service, account, port)| {
            let peer = crate::mesh::identity(account);
            crate::mesh::cluster_of_peer(folder, service, &peer, *port).to_string()
        });
        let clusters: Vec<String> = clusters.collect();
        Sidecar::choosing(&self.tools, folder, [&place.to_string(), &host], &clusters, others).await
    }

    /// Sends on what the objects mean now. Returns the EnvoyFilter.
    pub async fn send(&self) -> anyhow::Result<Value> {
        let [filter] = self.objects("sidecar-inbound", ["EnvoyFilter"])?;
        self.deliver(&filter).await?;
        Ok(filter)
    }

    /// What is made of the objects for this placement: one object of each of these kinds.
    fn objects<const N: usize>(&self, placement: &str, kinds: [&str; N]) -> anyhow::Result<[Value; N]> {
        let (conf, wasm) = (text(&self.conf)?, text(&self.tools.filter)?);
        let arguments = ["translate", "-f", conf, "--placement", placement, "--wasm", wasm, "-o", "json"];
        let arguments = [&arguments[..], &["--gateway-account", GATEWAY]].concat();
        let printed = cli::tollgate(&self.tools, &arguments)?;
        let list: Value = serde_json::from_str(&printed.out).with_context(|| format!("{printed:?}"))?;
        let items: Vec<Value> = list.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        let found: Vec<&Value> = items.iter().filter_map(|item| item.get("kind")).collect();
        anyhow::ensure!(found == kinds.map(|kind| json!(kind)).iter().collect::<Vec<_>>(), "there is {found:?}");
        items.try_into().map_err(|items| anyhow::anyhow!("{items:?}"))
    }

    /// Puts a filter where discovery finds it.
    async fn deliver(&self, filter: &Value) -> anyhow::Result<()> {
        let mut extension = filter.pointer("/spec/configPatches/0/patch/value").context("no filter")?.clone();
        self.fetch(&mut extension).await?;
        let kind = json!("type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig");
        extension.as_object_mut().context("a message")?.insert("@type".to_owned(), kind);
        let response = json!({"version_info": sha256_hex(&extension.to_string()), "resources": [extension]});
        let path = self.discovery();
        std::fs::create_dir_all(path.parent().context("a folder")?)?;
        let beside = self.folder.join("ecds.new");
        std::fs::write(&beside, response.to_string())?;
        std::fs::rename(beside, path)?;
        Ok(())
    }

    /// The agent puts a file in the place of what is remote.
    async fn fetch(&self, extension: &mut Value) -> anyhow::Result<()> {
        let config = extension.pointer_mut("/typed_config/config/vm_config").context("no VM")?;
        anyhow::ensure!(
            config.get("nack_on_code_cache_miss") == Some(&json!(true)),
            "requests would pass unfiltered: {config}"
        );
        let remote = config.pointer("/code/remote").context("the code is not remote")?;
        let uri = remote.pointer("/http_uri/uri").and_then(Value::as_str).context("no URI")?;
        let path = uri.strip_prefix(&format!("http://{HOST}:18003")).with_context(|| uri.to_owned())?;
        let url = format!("http://127.0.0.1:{}{path}", self.ports.code);
        let code = client::direct().get(url).send().await?.error_for_status()?.bytes().await?;
        let hash = Sha256::digest(&code).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        anyhow::ensure!(remote.get("sha256") == Some(&json!(hash)), "another code than the EnvoyFilter names");
        let file = self.folder.join(format!("{hash}.wasm"));
        std::fs::write(&file, code)?;
        *config.get_mut("code").context("no code")? = json!({"local": {"filename": file}});
        Ok(())
    }

    fn discovery(&self) -> PathBuf {
        self.folder.join("ecds").join("response.json")
    }

    /// Istiod's cluster of our Service.
    fn cluster(&self) -> Value {
        let name = format!("outbound|18002||{HOST}");
        let file = |name: &str| json!({"filename": self.folder.join(name)});
        let http = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        json!({
            "name": name,
            "type": "STATIC",
            "connect_timeout": "5s",
            "typed_extension_protocol_options": {
                http: {"@type": format!("type.googleapis.com/{http}"), "explicit_http_config": {"http2_protocol_options": {}}},
            },
            "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": format!("outbound_.18002_._.{HOST}"),
                "common_tls_context": {
                    "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
                    "alpn_protocols": ["istio", "h2"],
                    "tls_certificates": [{"certificate_chain": file("cert-chain.pem"), "private_key": file("key.pem")}],
                    "validation_context": {
                        "trusted_ca": file("root-cert.pem"),
                        "match_typed_subject_alt_names": [
                            {"san_type": "URI", "matcher": {"exact": crate::mesh::identity(CONTROL_PLANE)}},
                        ],
                    },
                },
            }},
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {
                "socket_address": {"address": "127.0.0.1", "port_value": self.ports.sidecars},
            }}}]}]},
        })
    }
}

/// Envoy's routes, as istiod makes them of an HTTPRoute whose rules match headers.
fn routes(route: &Value) -> anyhow::Result<Vec<Value>> {
    let rules = route.pointer("/spec/rules").and_then(Value::as_array).context("no rules")?;
    let routes = rules.iter().map(|rule| {
        let at = |pointer: &str| rule.pointer(pointer).cloned().with_context(|| format!("no {pointer} in {rule}"));
        if rule.get("backendRefs").is_none() {
            let path = at("/matches/0/path/value")?;
            return Ok(json!({"match": {"prefix": path}, "direct_response": {"status": 500}}));
        }
        Ok(json!({
            "match": {"prefix": "/", "headers": [{
                "name": at("/matches/0/headers/0/name")?,
                "string_match": {"exact": at("/matches/0/headers/0/value")?},
            }]},
            "request_headers_to_remove": at("/filters/0/requestHeaderModifier/remove")?,
            "route": {"cluster": at("/backendRefs/0/name")?, "timeout": "0s"},
        }))
    });
    routes.collect()
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path in UTF-8")
}
