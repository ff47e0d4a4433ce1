//! Envoy's own admin interface, wherever the control plane put it: found by Envoy's command line, so
//! that the tests look at the very process that serves.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

#[derive(Clone, Debug)]
pub enum EnvoyAdmin {
    Tcp(String),
    Unix(String),
}

// === impl EnvoyAdmin ===

impl EnvoyAdmin {
    /// Of the Envoy with this process id.
    pub fn of(envoy: u32) -> anyhow::Result<Self> {
        let line = std::fs::read(format!("/proc/{envoy}/cmdline"))?;
        let arguments: Vec<String> =
            line.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect();
        let value = |names: &[&str]| {
            let at = arguments.iter().position(|argument| names.contains(&argument.as_str()))?;
            arguments.get(at + 1)
        };
        // Envoy writes there which port it got.
        if let Some(file) = value(&["--admin-address-path"]) {
            let address = std::fs::read_to_string(file)?.trim().to_owned();
            return Ok(match address.strip_prefix("unix:") {
                Some(path) => Self::Unix(path.to_owned()),
                None if address.starts_with('/') => Self::Unix(address),
                None => Self::Tcp(address),
            });
        }
        let file = value(&["-c", "--config-path"]).context("Envoy was started without a file")?;
        let bootstrap: Value =
            serde_json::from_str(&std::fs::read_to_string(file)?).with_context(|| format!("{file} is not JSON"))?;
        let address = bootstrap.pointer("/admin/address").context("no admin address")?;
        if let Some(path) = address.pointer("/pipe/path").and_then(Value::as_str) {
            return Ok(Self::Unix(path.to_owned()));
        }
        let ip = address.pointer("/socket_address/address").and_then(Value::as_str).context("no address")?;
        let port = address.pointer("/socket_address/port_value").and_then(Value::as_u64).context("no port")?;
        Ok(Self::Tcp(format!("{ip}:{port}")))
    }

    /// The body of the answer to a GET.
    pub fn get(&self, path: &str) -> anyhow::Result<String> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n");
        let limit = Some(Duration::from_secs(30));
        let mut answer = Vec::new();
        match self {
            Self::Tcp(address) => {
                let mut stream = TcpStream::connect(address)?;
                stream.set_read_timeout(limit)?;
                stream.write_all(request.as_bytes())?;
                stream.read_to_end(&mut answer)?;
            }
            Self::Unix(path) => {
                let mut stream = UnixStream::connect(path)?;
                stream.set_read_timeout(limit)?;
                stream.write_all(request.as_bytes())?;
                stream.read_to_end(&mut answer)?;
            }
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        anyhow::ensure!(answer.starts_with("HTTP/1.1 200"), "GET {path}: {answer}");
        // Chunk sizes may stand in between; what is searched for stands within lines.
        let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
        Ok(body.to_owned())
    }

    /// The value of one counter or gauge; one that does not exist (yet) is 0.
    pub fn stat(&self, name: &str) -> anyhow::Result<u64> {
        let text = self.get(&format!("/stats?filter=^{}$", name.replace('.', "\\.")))?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok());
        Ok(value.unwrap_or(0))
    }
}
