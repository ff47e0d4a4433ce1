//! The client: one connection that is kept open, one request after the other.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use super::{routes, wire};
use crate::lab::network::Network;

/// A request, and the answer that is right.
#[derive(Clone)]
pub struct Probe {
    pub request: Vec<u8>,
    pub answer: Answer,
}

/// What tells answers apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Redirect {
        route: u32,
        version: u32,
    },
    Other(u16),
    /// The connection failed.
    None(String),
}

pub struct Client {
    network: Network,
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

// === impl Client ===

impl Client {
    pub fn new(network: Network, address: SocketAddr) -> Self {
        Self { network, address, stream: None, buffer: Vec::new() }
    }

    /// Another one, with a connection of its own.
    pub fn another(&self) -> Self {
        Self::new(self.network.clone(), self.address)
    }

    pub fn gets(&mut self, probe: &Probe) -> bool {
        self.ask(&probe.request) == probe.answer
    }

    /// Sends the request. A connection that the other side has closed meanwhile is made anew.
    pub fn ask(&mut self, request: &[u8]) -> Answer {
        let was_open = self.stream.is_some();
        let answer = self.try_to_ask(request);
        if was_open && answer.is_err() { self.try_to_ask(request) } else { answer }
            .unwrap_or_else(|error| Answer::None(error.to_string()))
    }

    fn try_to_ask(&mut self, request: &[u8]) -> std::io::Result<Answer> {
        // A connection that fails is not put back.
        let mut stream = self.stream.take().map_or_else(|| self.network.connect(self.address), Ok)?;
        self.buffer.clear();
        stream.write_all(request)?;
        let length = wire::read_message(&mut stream, &mut self.buffer)?;
        let length = length.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        self.stream = Some(stream);
        Ok(Answer::parse(self.buffer.get(..length).unwrap_or_default()))
    }
}

// === impl Answer ===

impl Answer {
    fn parse(answer: &[u8]) -> Self {
        let text = String::from_utf8_lossy(answer);
        let status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        let location = || text.lines().find_map(|line| line.strip_prefix("location: "));
        let redirect = || {
            let (_, path) = location()?.split_once(routes::PATH)?;
            let (route, version) = path.split_once('/')?;
            Some(Self::Redirect { route: route.parse().ok()?, version: version.parse().ok()? })
        };
        if status == 302 { redirect() } else { None }.unwrap_or(Self::Other(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_which_route_gave_it_in_which_version() {
        let answer =
            b"HTTP/1.1 302 Found\r\nlocation: http://host-12.example.com/route/12/3\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(Answer::parse(answer), Answer::Redirect { route: 12, version: 3 });
        assert_eq!(Answer::parse(b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\n\r\n"), Answer::Other(302));
        assert_eq!(Answer::parse(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"), Answer::Other(404));
        assert_eq!(Answer::parse(b""), Answer::Other(0));
    }
}
