//! Envoy's own admin interface, wherever the control plane put it: found by Envoy's command line, so
//! that the tests look at the very process that serves.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

use crate::poll;

#[derive(Clone, Debug)]
pub struct EnvoyAdmin {
    socket: PathBuf,
}

// === impl EnvoyAdmin ===

impl EnvoyAdmin {
    /// Of the Envoy with this process id.
    pub fn of(envoy: u32) -> anyhow::Result<Self> {
        Self::below(envoy, Path::new("/"))
    }

    /// Of one in a Pod, which has files of its own.
    pub fn in_pod(envoy: u32) -> anyhow::Result<Self> {
        Self::below(envoy, Path::new(&format!("/proc/{envoy}/root")))
    }

    fn below(envoy: u32, root: &Path) -> anyhow::Result<Self> {
        let line = std::fs::read(format!("/proc/{envoy}/cmdline"))?;
        let mut arguments = line.split(|byte| *byte == 0);
        arguments.find(|argument| *argument == b"--config-path").context("Envoy was started without a file")?;
        let file = root.join(std::str::from_utf8(arguments.next().context("no file")?)?.trim_start_matches('/'));
        let bootstrap: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)
            .with_context(|| format!("{} is not JSON", file.display()))?;
        let socket = bootstrap.pointer("/admin/address/pipe/path").and_then(Value::as_str);
        let socket = socket.context("the admin interface is not a socket")?;
        Ok(Self { socket: root.join(socket.trim_start_matches('/')) })
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The body of the answer to a GET.
    pub fn get(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(poll::LIMIT))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        anyhow::ensure!(answer.starts_with("HTTP/1.1 200"), "GET {path}: {answer}");
        let (head, body) = answer.split_once("\r\n\r\n").context("no body")?;
        if head.contains("transfer-encoding: chunked") { whole(body) } else { Ok(body.to_owned()) }
    }

    /// The value of one counter or gauge; one that does not exist (yet) is 0.
    pub fn stat(&self, name: &str) -> anyhow::Result<u64> {
        let text = self.get(&format!("/stats?filter=^{}$", name.replace('.', "\\.")))?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok());
        Ok(value.unwrap_or(0))
    }
}

/// A body that came in chunks.
fn whole(mut chunks: &str) -> anyhow::Result<String> {
    let mut body = String::new();
    loop {
        let (size, rest) = chunks.split_once("\r\n").context("no size of a chunk")?;
        let size = usize::from_str_radix(size, 16)?;
        if size == 0 {
            return Ok(body);
        }
        body += rest.get(..size).context("a chunk is cut off")?;
        chunks = rest.get(size..).and_then(|rest| rest.strip_prefix("\r\n")).context("a chunk does not end")?;
    }
}
