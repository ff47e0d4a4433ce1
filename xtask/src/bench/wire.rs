//! Just enough HTTP/1.1 for the benchmark's two ends: where a message ends, and when its body began to arrive.
//!
//! This file is part of the program `cluster-bench` of the tests as well, so it uses nothing else of this one.

use std::io::{Error, Read};
use std::time::Instant;

/// A whole message at the beginning of the buffer.
pub struct Arrival {
    pub length: usize,
    /// Where the body begins.
    pub body: usize,
    /// When the first byte of the body was read. A message without a body has none.
    pub first_byte: Option<Instant>,
}

/// How the end of a body is found.
enum Framing {
    Length(usize),
    Chunked,
}

/// Reads until the buffer holds one whole message. Returns its length, or None at the end of the stream.
pub fn read_message(stream: &mut impl Read, buffer: &mut Vec<u8>) -> std::io::Result<Option<usize>> {
    Ok(receive(stream, buffer, || {})?.map(|arrival| arrival.length))
}

/// The same, with what is known of the way it arrived. `began` is called when the first byte of the body is there.
pub fn receive(
    stream: &mut impl Read,
    buffer: &mut Vec<u8>,
    mut began: impl FnMut(),
) -> std::io::Result<Option<Arrival>> {
    let mut head: Option<(usize, Framing)> = None;
    let mut first_byte = None;
    // What was looked through for the end already.
    let mut seen = 0;
    let mut chunk = [0; 16 * 1024];
    loop {
        if head.is_none()
            && let Some(end) = find(buffer, b"\r\n\r\n")
        {
            head = Some((end + 4, Framing::of(buffer.get(..end).unwrap_or_default())?));
        }
        if let Some((body, framing)) = &head {
            if first_byte.is_none() && buffer.len() > *body {
                first_byte = Some(Instant::now());
                began();
            }
            if let Some(length) = framing.end(buffer, *body, &mut seen) {
                return Ok(Some(Arrival { length, body: *body, first_byte }));
            }
        }
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return if buffer.is_empty() {
                Ok(None)
            } else {
                Err(Error::other("the connection ended within a message"))
            };
        }
        buffer.extend_from_slice(chunk.get(..count).unwrap_or_default());
    }
}

// === impl Framing ===

impl Framing {
    fn of(head: &[u8]) -> std::io::Result<Self> {
        let head = String::from_utf8_lossy(head).to_lowercase();
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if header("transfer-encoding:") == Some("chunked") {
            return Ok(Self::Chunked);
        }
        let length = header("content-length:").map(str::parse).transpose();
        Ok(Self::Length(length.map_err(|_| Error::other("content-length is no number"))?.unwrap_or(0)))
    }

    /// Where the message ends, if all of it is there.
    fn end(&self, buffer: &[u8], body: usize, seen: &mut usize) -> Option<usize> {
        /// The last chunk. No body here holds CRLF itself, so it stands nowhere else.
        const LAST: &[u8] = b"0\r\n\r\n";
        match self {
            Self::Length(length) => (buffer.len() >= body + length).then_some(body + length),
            Self::Chunked => {
                let from = body.max(seen.saturating_sub(LAST.len()));
                *seen = buffer.len();
                find(buffer.get(from..)?, LAST).map(|at| from + at + LAST.len())
            }
        }
    }
}

pub fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    let first = *word.first()?;
    let mut from = 0;
    while let Some(at) = text.get(from..)?.iter().position(|byte| *byte == first) {
        if text.get(from + at..)?.starts_with(word) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

pub fn contains(text: &[u8], word: &[u8]) -> bool {
    find(text, word).is_some()
}

/// How often the word stands in the text.
pub fn count(mut text: &[u8], word: &[u8]) -> usize {
    let mut count = 0;
    while let Some(at) = find(text, word) {
        count += 1;
        text = text.get(at + word.len()..).unwrap_or_default();
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives the bytes in pieces of this size.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = self.1.min(self.0.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    #[test]
    fn a_message_ends_where_its_framing_says_however_it_is_cut() {
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n0123456789abcde0\r\n0\r\n\r\n".as_slice();
        let whole = b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbodynext".as_slice();
        for size in 1..=chunked.len() {
            let mut buffer = Vec::new();
            let arrival = receive(&mut Pieces(chunked, size), &mut buffer, || {}).unwrap().unwrap();
            assert_eq!((arrival.length, arrival.first_byte.is_some()), (chunked.len(), true), "in pieces of {size}");
            let length = read_message(&mut Pieces(whole, size), &mut Vec::new()).unwrap();
            assert_eq!(length, Some(whole.len() - 4), "in pieces of {size}");
        }
        assert!(read_message(&mut Pieces(&whole[..whole.len() - 6], 9), &mut Vec::new()).is_err());
        assert_eq!(read_message(&mut Pieces(b"", 9), &mut Vec::new()).unwrap(), None);
    }

    #[test]
    fn words_are_found_and_counted() {
        assert_eq!(find(b"aab", b"ab"), Some(1));
        assert_eq!(find(b"aa", b"ab"), None);
        assert_eq!(count(b"lorem lo lorem", b"lorem"), 2);
    }
}
