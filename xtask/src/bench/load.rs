//! The load: a number of connections, each with one request after the other.

use std::io::Write;
use std::net::TcpStream;

use crate::bench::wire;

pub const CONNECTIONS: usize = 8;

/// A request that is sent over and over.
#[derive(Clone)]
pub struct Request {
    bytes: Vec<u8>,
}

// === impl Request ===

impl Request {
    /// A chat of about 2 KB.
    pub fn new(path: &str, model: &str, key: Option<&str>, stream: bool) -> Self {
        let text = "The quick brown fox jumps over the lazy dog. ".repeat(43);
        let stream = if stream { "\"stream\":true," } else { "" };
        let body = format!(
            "{{\"model\":\"{model}\",{stream}\"max_tokens\":200,\"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}]}}"
        );
        let key = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
        let bytes = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{key}content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes();
        Self { bytes }
    }

    /// Sends this number of requests to this port. Every answer must be 200.
    pub fn send(&self, port: u16, requests: usize) -> anyhow::Result<()> {
        std::thread::scope(|scope| {
            let connections: Vec<_> =
                (0..CONNECTIONS).map(|_| scope.spawn(move || self.send_on_one(port, requests / CONNECTIONS))).collect();
            for connection in connections {
                connection.join().map_err(|_| anyhow::anyhow!("a connection's thread ended"))??;
            }
            Ok(())
        })
    }

    fn send_on_one(&self, port: u16, requests: usize) -> anyhow::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        let mut buffer = Vec::with_capacity(16 * 1024);
        for _ in 0..requests {
            stream.write_all(&self.bytes)?;
            let length = wire::read_message(&mut stream, &mut buffer)?;
            let answer = buffer.get(..length.unwrap_or(0)).unwrap_or_default();
            anyhow::ensure!(
                answer.starts_with(b"HTTP/1.1 200"),
                "not 200: {}",
                String::from_utf8_lossy(answer).chars().take(600).collect::<String>()
            );
            buffer.drain(..length.unwrap_or(0));
        }
        Ok(())
    }
}
