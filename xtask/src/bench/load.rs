//! The load: a number of connections, each with one request after the other. Every answer is looked at.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::bench::refusal::Refusal;
use crate::bench::responder::{Answer, WORD, WORDS};
use crate::bench::wire::{self, Arrival};

/// An answer that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request that is sent over and over, and the answer that is right.
#[derive(Clone)]
pub struct Request {
    bytes: Vec<u8>,
    answer: Answer,
}

/// What a request says besides its prompt, which differs from gateway to gateway.
#[derive(Clone)]
pub struct Entry {
    pub path: String,
    pub model: &'static str,
    pub host: &'static str,
    /// Lines of the head.
    pub headers: Vec<String>,
}

/// What a client saw of the answers, all of which were right.
#[derive(Default)]
pub struct Seen {
    pub elapsed: Duration,
    /// From the request to the end of its answer.
    pub whole: Vec<Duration>,
    /// From the request to the first byte of the answer's body.
    pub first_byte: Vec<Duration>,
}

// === impl Entry ===

impl Entry {
    pub fn new(path: impl Into<String>, model: &'static str, headers: &[&str]) -> Self {
        let headers = headers.iter().map(|line| (*line).to_owned()).collect();
        Self { path: path.into(), model, host: "localhost", headers }
    }

    #[must_use]
    pub fn at(self, host: &'static str) -> Self {
        Self { host, ..self }
    }

    /// An entry for whoever has this key.
    pub fn with_key(path: impl Into<String>, model: &'static str, key: &str) -> Self {
        Self::new(path, model, &[&format!("authorization: Bearer {key}")])
    }

    /// A chat of this many bytes or a little more.
    pub fn request(&self, bytes: usize, answer: Answer) -> Request {
        const TEXT: &str = "The quick brown fox jumps over the lazy dog. ";
        let (model, ask) = (self.model, answer.ask());
        let text = TEXT.repeat((bytes / TEXT.len()).max(1));
        let stream = if answer == Answer::Whole { "" } else { "\"stream\":true," };
        let body = format!(
            "{{\"model\":\"{model}\",{stream}\"max_tokens\":200,\
             \"messages\":[{{\"role\":\"user\",\"content\":\"{ask} {text}\"}}]}}"
        );
        let headers: String = self.headers.iter().map(|line| format!("{line}\r\n")).collect();
        let bytes = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
            self.path,
            self.host,
            body.len()
        )
        .into_bytes();
        Request { bytes, answer }
    }
}

// === impl Request ===

impl Request {
    /// Sends this number of requests to this port on so many connections. A single answer that is missing or not right
    /// refuses all of it.
    pub fn send(&self, port: u16, connections: usize, requests: usize) -> Result<Seen, Refusal> {
        let each = requests / connections.max(1);
        let began = Instant::now();
        let results: Vec<anyhow::Result<Seen>> = std::thread::scope(|scope| {
            let connections: Vec<_> = (0..connections).map(|_| scope.spawn(|| self.send_on_one(port, each))).collect();
            let joined = connections.into_iter().map(|connection| {
                connection.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a connection's thread ended")))
            });
            joined.collect()
        });
        let mut all = Seen { elapsed: began.elapsed(), ..Seen::default() };
        let mut failed = Vec::new();
        for result in results {
            match result {
                Ok(seen) => {
                    all.whole.extend(seen.whole);
                    all.first_byte.extend(seen.first_byte);
                }
                Err(error) => failed.push(format!("{error:#}")),
            }
        }
        match failed.first() {
            Some(first) => Err(Refusal::Failed { connections: failed.len(), of: connections, first: first.clone() }),
            None => Ok(all),
        }
    }

    fn send_on_one(&self, port: u16, requests: usize) -> anyhow::Result<Seen> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).context("no connection")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut buffer = Vec::with_capacity(16 * 1024);
        let mut seen = Seen::default();
        for _ in 0..requests {
            let sent = Instant::now();
            let arrival = self.ask(&mut stream, &mut buffer, || {})?;
            seen.whole.push(sent.elapsed());
            seen.first_byte.extend(arrival.first_byte.map(|at| at.duration_since(sent)));
            buffer.drain(..arrival.length);
        }
        Ok(seen)
    }

    /// Sends it once. The right answer is then at the beginning of the buffer.
    pub fn ask(&self, stream: &mut TcpStream, buffer: &mut Vec<u8>, began: impl FnMut()) -> anyhow::Result<Arrival> {
        stream.write_all(&self.bytes).context("the request was not taken")?;
        let arrival = wire::receive(stream, buffer, began).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => {
                anyhow::anyhow!("nothing more came, {} bytes of an answer were there", buffer.len())
            }
            _ => anyhow::Error::from(error).context("no whole answer"),
        })?;
        let arrival = arrival.context("the connection was closed without an answer")?;
        let answer = buffer.get(..arrival.length).unwrap_or_default();
        if let Some(wrong) = self.answer.wrong_in(answer, arrival.body) {
            anyhow::bail!("{wrong}: {}", gist(answer, arrival.body));
        }
        Ok(arrival)
    }
}

/// The first line of an answer and the end of its body, for a person.
fn gist(answer: &[u8], body: usize) -> String {
    let status = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let body = answer.get(body..).unwrap_or_default();
    let end = body.get(body.len().saturating_sub(200)..).unwrap_or_default();
    let line = [status, b" ... ", end].concat();
    String::from_utf8_lossy(&line).split_whitespace().collect::<Vec<_>>().join(" ")
}

// === impl Answer ===

impl Answer {
    /// What is wrong in an answer with this body, if anything.
    fn wrong_in(self, answer: &[u8], body: usize) -> Option<String> {
        if !answer.starts_with(b"HTTP/1.1 200") {
            return Some("not 200".to_owned());
        }
        let body = answer.get(body..).unwrap_or_default();
        let (words, wanted) = match self {
            Self::Whole => (WORDS, b"670".as_slice()),
            Self::Events { count, .. } => (count, b"[DONE]".as_slice()),
        };
        let found = wire::count(body, WORD);
        if found != words {
            return Some(format!("{found} of {words} words of the answer"));
        }
        (!wire::contains(body, wanted)).then(|| format!("no {} in the answer", String::from_utf8_lossy(wanted)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::responder;

    fn entry() -> Entry {
        Entry::with_key("/v1/chat/completions", "smol", "k")
    }

    #[test]
    fn right_answers_are_timed() {
        let port = responder::start().unwrap();
        let seen = entry().request(2_000, Answer::Whole).send(port, 2, 6).unwrap();
        assert_eq!(seen.whole.len(), 6);
        let events = Answer::Events { count: 3, every: Duration::from_millis(5) };
        let seen = entry().request(2_000, events).send(port, 1, 1).unwrap();
        assert!(seen.first_byte[0] < seen.whole[0]);
    }

    #[test]
    fn a_wrong_answer_refuses_the_round() {
        let port = responder::start().unwrap();
        let mut request = entry().request(2_000, Answer::Events { count: 3, every: Duration::ZERO });
        request.answer = Answer::Events { count: 4, every: Duration::ZERO };
        let Err(Refusal::Failed { connections: 2, of: 2, first }) = request.send(port, 2, 2) else {
            panic!("not refused");
        };
        assert!(first.starts_with("3 of 4 words of the answer: HTTP/1.1 200 OK ... "), "{first}");
        assert!(first.ends_with("data: [DONE] 0"), "{first}");
    }

    #[test]
    fn an_answer_is_right_or_it_is_said_what_is_wrong() {
        let wrong = |answer: &str| Answer::Events { count: 1, every: Duration::ZERO }.wrong_in(answer.as_bytes(), 19);
        assert_eq!(wrong("HTTP/1.1 200 OK\r\n\r\nlorem [DONE]"), None);
        assert_eq!(wrong("HTTP/1.1 200 OK\r\n\r\nlorem").unwrap(), "no [DONE] in the answer");
        assert_eq!(wrong("HTTP/1.1 429 NO\r\n\r\nlorem [DONE]").unwrap(), "not 200");
    }

    #[test]
    fn a_prompt_has_the_size_that_is_asked_for() {
        for bytes in [2_000, 100 * 1024, 1024 * 1024] {
            let length = entry().request(bytes, Answer::Whole).bytes.len();
            assert!(length.abs_diff(bytes) < 400, "{length} for {bytes}");
        }
    }
}
