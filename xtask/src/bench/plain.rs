//! Envoy with a route and nothing else. Everything is compared with it.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::process::{Process, port_or_free};
use crate::setup::Tools;

pub struct Plain {
    pub process: Process,
    pub port: u16,
}

pub fn start(tools: &Tools, backend: u16, home: &Path) -> anyhow::Result<Plain> {
    let port = port_or_free(0)?;
    let address = |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let manager =
        "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let bootstrap = json!({"static_resources": {
        "listeners": [{"name": "plain", "address": address(port), "filter_chains": [{"filters": [{
            "name": "hcm",
            "typed_config": {
                "@type": manager,
                "stat_prefix": "plain",
                "route_config": {"virtual_hosts": [{
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "backend", "timeout": "0s"}}],
                }]},
                "http_filters": [{"name": "router", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                }}],
            },
        }]}]}],
        "clusters": [{
            "name": "backend",
            "load_assignment": {"cluster_name": "backend", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": address(backend)}},
            ]}]},
        }],
    }});
    let file = home.join("plain.json");
    std::fs::write(&file, serde_json::to_string_pretty(&bootstrap)?)?;
    let mut process = Process::start(
        Command::new(&tools.envoy).arg("-c").arg(&file).args([
            "--concurrency",
            "1",
            "--use-dynamic-base-id",
            "--log-level",
            "warning",
        ]),
        &home.join("plain-envoy.log"),
    )?;
    process.wait_for("plain Envoy", || Ok(std::net::TcpStream::connect(("127.0.0.1", port)).map(drop)?))?;
    Ok(Plain { process, port })
}
