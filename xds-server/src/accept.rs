//! Accepts connections, up to a limit. Every port of ours begins with this.
//!
//! A connection beyond that limit is accepted and closed at once. If it were left in the kernel's queue, it would take
//! a place from later ones, and to its client the server would seem to hang.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

/// The pause after an error that is not the client's, such as running out of file descriptors. Without the pause the
/// loop would only spin.
const AFTER_ERROR: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub struct Accept {
    listener: TcpListener,
    /// The port's name in log messages.
    port: &'static str,
    most: usize,
    room: Arc<Semaphore>,
    /// The last connection found no room. The log says so once, not for each connection.
    full: bool,
}

/// Lets this process and its Envoy open as many files as their user may. The usual soft limit of 1,024 is a relic for
/// programs that call select(2), and it is below the number of connections that our ports grant.
pub fn allow_files() {
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, files) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

// === impl Accept ===

impl Accept {
    pub fn new(listener: TcpListener, port: &'static str, most: usize) -> Self {
        Self { listener, port, most, room: Arc::new(Semaphore::new(most)), full: false }
    }

    /// Waits for the next connection that there is room for. The connection counts until its permit is dropped.
    pub async fn next(&mut self) -> (TcpStream, OwnedSemaphorePermit) {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) if is_of_the_client(&error) => continue,
                Err(error) => {
                    tracing::error!(port = self.port, %error, "connections cannot be accepted");
                    sleep(AFTER_ERROR).await;
                    continue;
                }
            };
            match Arc::clone(&self.room).try_acquire_owned() {
                Ok(permit) => {
                    self.full = false;
                    // Answers are written whole, so waiting for more bytes would only delay them.
                    let _as_it_is = stream.set_nodelay(true);
                    return (stream, permit);
                }
                Err(_) if self.full => {}
                Err(_) => {
                    self.full = true;
                    tracing::warn!(port = self.port, most = self.most, "no more connections are accepted for now");
                }
            }
        }
    }
}

/// Whether the client gave up between connecting and being accepted.
fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn one_too_many_is_closed_and_a_freed_place_is_given_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut accept = Accept::new(listener, "test", 2);
        let mut clients = Vec::new();
        let mut held = Vec::new();
        for _ in 0..2 {
            clients.push(TcpStream::connect(address).await.unwrap());
            held.push(accept.next().await);
        }
        let mut third = TcpStream::connect(address).await.unwrap();
        let mut byte = [0];
        tokio::select! {
            _ = accept.next() => panic!("a third one was let in"),
            read = third.read(&mut byte) => assert!(matches!(read, Ok(0) | Err(_)), "{read:?}"),
        }
        held.pop();
        let fourth = TcpStream::connect(address).await.unwrap();
        let (accepted, _permit) = accept.next().await;
        assert_eq!(accepted.peer_addr().unwrap(), fourth.local_addr().unwrap());
    }
}
