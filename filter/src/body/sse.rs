//! Server-sent events as they pass: usage is taken from any event, and the event that carries nothing
//! else is taken out when the client did not ask for it. Works on bytes and on any split into chunks;
//! of the stream only the incomplete tail of one event is ever held.

use memchr::{memchr, memmem};

use crate::usage::{Carrier, Said};

/// An event longer than this passes unread.
const MAX_EVENT: usize = 1 << 20;

/// What happens to the event with nothing but usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageOnly {
    Keep,
    Remove,
}

/// A scan over one stream.
#[derive(Debug)]
pub struct Scan {
    usage_only: UsageOnly,
    /// Bytes since the end of the last event. Held back when events may be removed, else a copy.
    tail: Vec<u8>,
    /// Start of the line in `tail` that is not complete yet.
    line: usize,
    /// In the middle of an event that is too long to be read.
    skipping: bool,
    pub said: Said,
    seen: Seen,
}

/// Sizes of what passed, for an estimate.
#[derive(Debug, Default)]
struct Seen {
    events: u64,
    bytes: u64,
    smallest: Option<u64>,
}

/// What goes on in the place of a chunk.
#[derive(Debug, PartialEq, Eq)]
pub enum Passed {
    Unchanged,
    Instead(Vec<u8>),
}

// === impl Scan ===

impl Scan {
    pub fn new(usage_only: UsageOnly) -> Self {
        Self { usage_only, tail: Vec::new(), line: 0, skipping: false, said: Said::Nothing, seen: Seen::default() }
    }

    /// Takes the next chunk; `end`: it is the last.
    pub fn feed(&mut self, chunk: &[u8], end: bool) -> Passed {
        let held = self.tail.len();
        self.tail.extend_from_slice(chunk);
        let mut kept = Vec::new();
        let mut removed = false;
        let mut start = 0;
        let mut line = self.line;
        while let Some(length) = memchr(b'\n', self.tail.get(line..).unwrap_or_default()) {
            let next = line + length + 1;
            let blank = matches!(self.tail.get(line..next), Some(b"\n" | b"\r\n"));
            line = next;
            if !blank {
                continue;
            }
            let event = self.tail.get(start..next).unwrap_or_default();
            if std::mem::take(&mut self.skipping) || !read(event, &mut self.said, &mut self.seen) {
                kept.push(start..next);
            } else {
                removed = true;
            }
            start = next;
        }
        self.line = line;
        if end || self.tail.len() - start > MAX_EVENT {
            // An event that the stream leaves open is nobody's business, but its usage counts.
            let rest = self.tail.get(start..).unwrap_or_default();
            if !rest.is_empty() {
                if end && !self.skipping {
                    read(rest, &mut self.said, &mut self.seen);
                }
                self.skipping = !end;
                kept.push(start..self.tail.len());
                start = self.tail.len();
            }
        }
        let passed = match self.usage_only {
            UsageOnly::Keep => Passed::Unchanged,
            UsageOnly::Remove if held == 0 && !removed && start == self.tail.len() => Passed::Unchanged,
            UsageOnly::Remove => {
                let pieces = kept.into_iter().filter_map(|span| self.tail.get(span));
                Passed::Instead(pieces.collect::<Vec<_>>().concat())
            }
        };
        self.tail.drain(..start.min(self.tail.len()));
        self.line = self.line.max(start) - start;
        passed
    }

    /// Tokens that the client got, for a stream that never told: an event carries about one, and the
    /// bytes that an event has beyond the smallest are text.
    pub fn estimate_output(&self, bytes_to_tokens: impl Fn(u64) -> u64) -> u64 {
        let overhead = self.seen.smallest.unwrap_or(0).saturating_mul(self.seen.events);
        self.seen.events.max(bytes_to_tokens(self.seen.bytes.saturating_sub(overhead)))
    }
}

/// Reads one event. True: it carries nothing but usage.
fn read(event: &[u8], said: &mut Said, seen: &mut Seen) -> bool {
    let mut lines = event.split(|byte| *byte == b'\n').filter_map(data);
    let (first, second) = (lines.next(), lines.next());
    let joined;
    let data = match (first, second) {
        (None, _) => return false,
        (Some(only), None) => only,
        (Some(first), Some(second)) => {
            joined = [first, second].into_iter().chain(lines).collect::<Vec<_>>().join(&b'\n');
            joined.as_slice()
        }
    };
    if data == b"[DONE]" {
        return false;
    }
    let length = data.len() as u64;
    seen.events += 1;
    seen.bytes += length;
    seen.smallest = Some(seen.smallest.map_or(length, |smallest| smallest.min(length)));
    if !tells_usage(data) {
        return false;
    }
    let Some(carrier) = Carrier::read(data) else {
        return false;
    };
    *said = carrier.add_to(*said);
    let usage_only = carrier.is_usage_only();
    if usage_only {
        seen.events -= 1;
        seen.bytes -= length;
    }
    usage_only
}

/// The value of a `data` field.
fn data(line: &[u8]) -> Option<&[u8]> {
    let value = line.strip_prefix(b"data:")?;
    let value = value.strip_suffix(b"\r").unwrap_or(value);
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

/// A quick look before a parser is asked: most events of most streams have no usage, or a null.
fn tells_usage(data: &[u8]) -> bool {
    const NAME: &[u8] = b"\"usage\"";
    memmem::find_iter(data, NAME).any(|at| {
        let rest = data.get(at + NAME.len()..).unwrap_or_default().trim_ascii_start();
        rest.strip_prefix(b":").is_some_and(|value| value.trim_ascii_start().starts_with(b"{"))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::usage::Tokens;

    const CHUNKS: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hé\"}}],\"usage\":null}\n\n\
        : comment\n\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"llo\"}}]}\r\n\r\n";
    const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n";
    const DONE: &str = "data: [DONE]\n\n";

    fn tokens() -> Said {
        Said::All(Tokens { input: 3, output: 2, ..Tokens::default() })
    }

    fn run(usage_only: UsageOnly, stream: &[u8], cuts: &[usize]) -> (Vec<u8>, Scan) {
        let mut scan = Scan::new(usage_only);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(stream.len());
        let mut start = 0;
        let mut out = Vec::new();
        for cut in cuts {
            let chunk = &stream[start..cut];
            match scan.feed(chunk, false) {
                Passed::Unchanged => out.extend_from_slice(chunk),
                Passed::Instead(bytes) => out.extend_from_slice(&bytes),
            }
            start = cut;
        }
        if let Passed::Instead(bytes) = scan.feed(&[], true) {
            out.extend_from_slice(&bytes);
        }
        (out, scan)
    }

    #[test]
    fn usage_from_any_event_counts() {
        let anthropic = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":\
            {\"input_tokens\":3,\"output_tokens\":1}}}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\
            \"usage\":{\"output_tokens\":2}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
        let (out, scan) = run(UsageOnly::Remove, anthropic.as_bytes(), &[7, 90, 91, 200]);
        assert_eq!((out.as_slice(), scan.said), (anthropic.as_bytes(), tokens()));
    }

    #[test]
    fn an_unfinished_last_event_passes_and_counts() {
        let stream = format!("{CHUNKS}{}", USAGE.trim_end());
        let (out, scan) = run(UsageOnly::Remove, stream.as_bytes(), &[]);
        assert_eq!(scan.said, tokens());
        assert!(out.starts_with(CHUNKS.as_bytes()));
    }

    #[test]
    fn an_endless_event_is_not_held() {
        let mut scan = Scan::new(UsageOnly::Remove);
        let long = [b"data: ".as_slice(), &vec![b'x'; MAX_EVENT]].concat();
        assert_eq!(scan.feed(&long, false), Passed::Unchanged);
        assert_eq!(scan.tail.len(), 0);
        assert_eq!(scan.feed(b"\n\n", false), Passed::Unchanged);
        assert_eq!(scan.feed(USAGE.as_bytes(), false), Passed::Instead(vec![]));
        assert_eq!(scan.said, tokens());
    }

    #[test]
    fn a_broken_off_stream_is_estimated_from_its_events() {
        let (_, scan) = run(UsageOnly::Keep, CHUNKS.as_bytes(), &[]);
        assert_eq!(scan.said, Said::Nothing);
        assert_eq!(scan.estimate_output(|bytes| bytes / 1000), 2);
        assert_eq!(scan.estimate_output(|bytes| bytes), 13);
    }

    proptest! {
        #[test]
        fn every_split_gives_the_same(cuts in prop::collection::vec(any::<usize>(), 0..8)) {
            let stream = format!("{CHUNKS}{USAGE}{DONE}");
            let (kept, scan) = run(UsageOnly::Keep, stream.as_bytes(), &cuts);
            prop_assert_eq!(scan.said, tokens());
            prop_assert_eq!(kept, stream.as_bytes());
            let (removed, scan) = run(UsageOnly::Remove, stream.as_bytes(), &cuts);
            prop_assert_eq!(scan.said, tokens());
            prop_assert_eq!(removed, format!("{CHUNKS}{DONE}").into_bytes());
        }

        #[test]
        fn nothing_is_lost_of_any_bytes(
            stream in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..300),
            cuts in prop::collection::vec(any::<usize>(), 0..8),
        ) {
            let (out, _) = run(UsageOnly::Remove, &stream, &cuts);
            prop_assert_eq!(out, stream);
        }
    }
}
