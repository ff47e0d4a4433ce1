//! Envoy with a route and nothing else, which everything is compared with; and the same with a wasm filter that does
//! nothing.

use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde_json::{Value, json};

use crate::bench::noop::{self, Filter};
use crate::bench::wire;
use crate::process::{Process, port_or_free};
use crate::setup::Tools;

pub struct Plain {
    pub process: Process,
    pub port: u16,
}

pub fn start(tools: &Tools, backend: u16, home: &Path) -> anyhow::Result<Plain> {
    let port = port_or_free(0)?;
    let process = envoy(tools, backend, home, "plain", &[listener(port, None)])?;
    Plain { process, port }.ready()
}

/// Checks first that Envoy takes such modules and that every request has a context in one: where that fails, the
/// request does.
pub fn with_noop(tools: &Tools, backend: u16, home: &Path) -> anyhow::Result<Plain> {
    let (port, failing) = (port_or_free(0)?, port_or_free(0)?);
    let filter = |name: &str, filter| -> anyhow::Result<Value> {
        let file = home.join(format!("{name}.wasm"));
        std::fs::write(&file, noop::module(filter))?;
        Ok(wasm(name, &file))
    };
    let listeners = [
        listener(port, Some(filter("nothing", Filter::Nothing)?)),
        listener(failing, Some(filter("fails", Filter::Fails)?)),
    ];
    let process = envoy(tools, backend, home, "noop", &listeners)?;
    let plain = Plain { process, port }.ready()?;
    let status = status_of(failing)?;
    anyhow::ensure!(status == 503, "requests enter no wasm module: one that fails at once answered {status}, not 503");
    Ok(plain)
}

fn envoy(tools: &Tools, backend: u16, home: &Path, name: &str, listeners: &[Value]) -> anyhow::Result<Process> {
    let bootstrap = json!({"static_resources": {
        "listeners": listeners,
        "clusters": [{
            "name": "backend",
            "load_assignment": {"cluster_name": "backend", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": address(backend)}},
            ]}]},
        }],
    }});
    let file = home.join(format!("{name}.json"));
    std::fs::write(&file, serde_json::to_string_pretty(&bootstrap)?)?;
    Process::start(
        Command::new(&tools.envoy).arg("-c").arg(&file).args([
            "--concurrency",
            "1",
            "--use-dynamic-base-id",
            "--log-level",
            "warning",
        ]),
        &home.join(format!("{name}-envoy.log")),
    )
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

fn listener(port: u16, filter: Option<Value>) -> Value {
    let manager =
        "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let router = json!({"name": "router", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
    }});
    let filters: Vec<Value> = filter.into_iter().chain([router]).collect();
    json!({"name": format!("on-{port}"), "address": address(port), "filter_chains": [{"filters": [{
        "name": "hcm",
        "typed_config": {
            "@type": manager,
            "stat_prefix": "plain",
            "route_config": {"virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "backend", "timeout": "0s"}}],
            }]},
            "http_filters": filters,
        },
    }]}]})
}

/// The code is in a file, so that it is there before the first request.
fn wasm(name: &str, file: &Path) -> Value {
    json!({"name": name, "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
        "config": {"name": name, "root_id": name, "vm_config": {
            "vm_id": name,
            "runtime": "envoy.wasm.runtime.v8",
            "code": {"local": {"filename": file}},
        }},
    }})
}

fn status_of(port: u16) -> anyhow::Result<u16> {
    use std::io::Write as _;
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    wire::read_message(&mut stream, &mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    answer.split(' ').nth(1).and_then(|word| word.parse().ok()).with_context(|| format!("no HTTP answer: {answer}"))
}

// === impl Plain ===

impl Plain {
    fn ready(mut self) -> anyhow::Result<Self> {
        let port = self.port;
        self.process.wait_for("plain Envoy", || Ok(std::net::TcpStream::connect(("127.0.0.1", port)).map(drop)?))?;
        Ok(self)
    }
}
