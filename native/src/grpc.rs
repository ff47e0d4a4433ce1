//! gRPC over the HTTP/2 requests of a dynamic module: headers, and messages between lengths
//! (gRPC's `doc/PROTOCOL-HTTP2.md`).

/// The bytes of an answer, until a message is whole.
#[derive(Debug, Default)]
pub struct Messages(Vec<u8>);

/// What came is not what we could read: a message is compressed, or too long.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable;

/// A call is over with this status. UNKNOWN: nobody said which.
pub const UNKNOWN: u32 = 2;
/// The other side cannot be reached, or did not speak gRPC.
pub const UNAVAILABLE: u32 = 14;

/// A byte that says whether the message is compressed, and its length.
const PREFIX: usize = 5;
/// As long as the keys of a large installation, and short enough for a length of 32 bits.
const LONGEST: usize = 1 << 30;

/// A message with its length in front.
pub fn framed(message: &[u8]) -> Vec<u8> {
    // A message of ours has far less than 4 GiB.
    let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut framed = Vec::with_capacity(PREFIX + message.len());
    framed.push(0);
    framed.extend_from_slice(&len.to_be_bytes());
    framed.extend_from_slice(message);
    framed
}

/// The headers of a call.
pub fn headers<'a>(cluster: &'a str, path: &'a str, metadata: &'a [(String, Vec<u8>)]) -> Vec<(&'a str, &'a [u8])> {
    let mut headers: Vec<(&str, &[u8])> = vec![
        (":method", b"POST"),
        (":scheme", b"http"),
        (":path", path.as_bytes()),
        (":authority", cluster.as_bytes()),
        ("te", b"trailers"),
        ("content-type", b"application/grpc"),
    ];
    headers.extend(metadata.iter().map(|(name, value)| (name.as_str(), value.as_slice())));
    headers
}

/// The status that headers or trailers say, if they end the call. `began`: they are an answer's headers, which must be
/// those of HTTP 200.
pub fn status(fields: &[(Vec<u8>, Vec<u8>)], began: bool) -> Option<u32> {
    let value = |name: &[u8]| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_slice());
    if began && value(b":status") != Some(b"200") {
        return Some(UNAVAILABLE);
    }
    let said = value(b"grpc-status")?;
    Some(std::str::from_utf8(said).ok().and_then(|said| said.parse().ok()).unwrap_or(UNKNOWN))
}

// === impl Messages ===

impl Messages {
    /// Takes bytes. Returns the messages that are whole now.
    ///
    /// # Errors
    /// When they cannot be read. Nothing after that can.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, Unreadable> {
        self.0.extend_from_slice(bytes);
        let mut whole = Vec::new();
        let mut rest = self.0.as_slice();
        while let Some((&[flag, len @ ..], after)) = rest.split_first_chunk::<PREFIX>() {
            let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
            if flag != 0 || len > LONGEST {
                return Err(Unreadable);
            }
            let Some((message, after)) = after.split_at_checked(len) else { break };
            whole.push(message.to_vec());
            rest = after;
        }
        let read = self.0.len() - rest.len();
        self.0.drain(..read);
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_whole_wherever_the_bytes_are_cut() {
        let all = [framed(b"one"), framed(b""), framed(b"three")].concat();
        for cut in 0..=all.len() {
            let (first, second) = all.split_at(cut);
            let mut messages = Messages::default();
            let mut read = messages.take(first).unwrap();
            read.extend(messages.take(second).unwrap());
            assert_eq!(read, [b"one".to_vec(), Vec::new(), b"three".to_vec()], "cut at {cut}");
            assert!(messages.0.is_empty());
        }
    }

    #[test]
    fn what_is_compressed_or_too_long_is_not_read() {
        assert_eq!(Messages::default().take(&[1, 0, 0, 0, 0]), Err(Unreadable));
        let prefix = |len: usize| [&[0], u32::try_from(len).unwrap().to_be_bytes().as_slice()].concat();
        assert_eq!(Messages::default().take(&prefix(LONGEST + 1)), Err(Unreadable));
        assert_eq!(Messages::default().take(&prefix(LONGEST)), Ok(Vec::new()));
    }

    #[test]
    fn an_answer_says_how_it_ended() {
        let fields = |pairs: &[(&str, &str)]| -> Vec<(Vec<u8>, Vec<u8>)> {
            pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
        };
        assert_eq!(status(&fields(&[(":status", "200")]), true), None);
        assert_eq!(status(&fields(&[(":status", "503")]), true), Some(UNAVAILABLE));
        assert_eq!(status(&fields(&[]), true), Some(UNAVAILABLE));
        assert_eq!(status(&fields(&[(":status", "200"), ("grpc-status", "9")]), true), Some(9));
        assert_eq!(status(&fields(&[("grpc-status", "0")]), false), Some(0));
        assert_eq!(status(&fields(&[("grpc-status", "x")]), false), Some(UNKNOWN));
        assert_eq!(status(&fields(&[]), false), None);
    }

    #[test]
    fn a_call_says_what_it_is() {
        let metadata = [("tollgate-scope".to_owned(), b"s".to_vec())];
        let headers = headers("control", "/a.B/C", &metadata);
        let value = |name| headers.iter().find(|(field, _)| *field == name).map(|(_, value)| *value);
        assert_eq!((value(":path"), value(":authority")), (Some(b"/a.B/C".as_slice()), Some(b"control".as_slice())));
        assert_eq!((value("te"), value("tollgate-scope")), (Some(b"trailers".as_slice()), Some(b"s".as_slice())));
    }
}
