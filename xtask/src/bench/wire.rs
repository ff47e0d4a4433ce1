//! Just enough HTTP/1.1 for two ends that are both ours: where a message ends.

use std::io::{Error, Read};

/// Reads until the buffer holds one whole message. Returns its length, or None at the end of the stream.
pub fn read_message(stream: &mut impl Read, buffer: &mut Vec<u8>) -> std::io::Result<Option<usize>> {
    loop {
        if let Some(length) = message_length(buffer)? {
            return Ok(Some(length));
        }
        let mut chunk = [0; 16 * 1024];
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

fn message_length(buffer: &[u8]) -> std::io::Result<Option<usize>> {
    let Some(head_end) = find(buffer, b"\r\n\r\n") else {
        return Ok(None);
    };
    let body_start = head_end + 4;
    let head = String::from_utf8_lossy(buffer.get(..head_end).unwrap_or_default()).to_lowercase();
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if header("transfer-encoding:") == Some("chunked") {
        let body = buffer.get(body_start..).unwrap_or_default();
        // Our bodies never hold this themselves.
        return Ok(find(body, b"0\r\n\r\n").map(|end| body_start + end + 5));
    }
    let length: usize = match header("content-length:") {
        Some(text) => text.parse().map_err(|_| Error::other("content-length is no number"))?,
        None => 0,
    };
    Ok((buffer.len() >= body_start + length).then_some(body_start + length))
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window == word)
}

pub fn contains(text: &[u8], word: &[u8]) -> bool {
    find(text, word).is_some()
}
