//! The network of a lab, where Pods and Services have addresses, for sockets of a test's own process.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::{Builder, Runtime};

use super::Lab;

/// An answer that takes longer is none.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Threads of a runtime.
const THREADS: usize = 2;

#[derive(Clone)]
pub struct Network(Arc<File>);

// === impl Network ===

impl Network {
    pub fn of(lab: &Lab) -> anyhow::Result<Self> {
        let file = format!("/proc/{}/ns/net", lab.first_process()?);
        Ok(Self(Arc::new(File::open(file).context("the lab has no network")?)))
    }

    /// A runtime whose tasks make their sockets there. Where a thread cannot enter the network, it has no such addresses, and
    /// what listens or connects there fails.
    pub fn runtime(&self) -> anyhow::Result<Runtime> {
        let network = self.clone();
        let enter = move || {
            let _ = move_into_link_name_space(network.0.as_fd(), Some(LinkNameSpaceType::Network));
        };
        Ok(Builder::new_multi_thread().worker_threads(THREADS).on_thread_start(enter).enable_all().build()?)
    }

    /// A socket stays in the network where it was made, so only a thread that makes one has to be there.
    pub fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        let connect = || {
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?;
            let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        };
        let connected = std::thread::scope(|scope| scope.spawn(connect).join());
        connected.unwrap_or_else(|_| Err(std::io::Error::other("the thread that connects has ended")))
    }

    /// The whole answer to a GET, head and body.
    pub fn get(&self, address: SocketAddr, path: &str) -> anyhow::Result<String> {
        let mut stream = self.connect(address)?;
        // HTTP/1.0 knows no chunks, which could break a line.
        write!(stream, "GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}
