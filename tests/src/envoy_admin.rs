//! Envoy's own admin interface, wherever the control plane put it: found by Envoy's command line, so
//! that the tests look at the very process that serves.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

#[derive(Clone, Debug)]
pub struct EnvoyAdmin {
    socket: PathBuf,
}

// === impl EnvoyAdmin ===

impl EnvoyAdmin {
    /// Of the Envoy with this process id.
    pub fn of(envoy: u32) -> anyhow::Result<Self> {
        let line = std::fs::read(format!("/proc/{envoy}/cmdline"))?;
        let mut arguments = line.split(|byte| *byte == 0);
        arguments.find(|argument| *argument == b"--config-path").context("Envoy was started without a file")?;
        let file = std::str::from_utf8(arguments.next().context("no file")?)?;
        let bootstrap: Value =
            serde_json::from_str(&std::fs::read_to_string(file)?).with_context(|| format!("{file} is not JSON"))?;
        let socket = bootstrap.pointer("/admin/address/pipe/path").and_then(Value::as_str);
        Ok(Self { socket: socket.context("the admin interface is not a socket")?.into() })
    }

    pub fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    /// The body of the answer to a GET.
    pub fn get(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
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
