//! Server-sent events as they pass. Usage is read from every event, however long it is. The event with nothing but
//! usage is taken out if the client did not ask for it. Where a limit is enforced, the last event with text waits for
//! the usage behind it, so that nobody gets a whole answer and leaves before the bill.
//!
//! The scan works on bytes, in any split into chunks. Lines end by CR, LF or CRLF, as the standard says:
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>.

use std::ops::Range;

use memchr::memchr2;

use super::held::{Out, Passed, Room, Share};
use crate::usage::{Tally, reader::Reader, tally::EventSummary};

/// What happens to the event with nothing but usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageOnly {
    Keep,
    Remove,
}

/// What happens to the last event with text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastText {
    Pass,
    /// It waits until usage, the next text or the end has come.
    Hold,
}

/// A scan over one stream.
#[derive(Debug)]
pub struct Scan {
    usage_only: UsageOnly,
    last_text: LastText,
    reader: Reader,
    tally: Tally,
    line: Line,
    /// Whether a CR ended the chunk before, so that an LF now belongs to it.
    after_cr: AfterCr,
    /// Whole events that wait.
    back: Vec<u8>,
    /// The beginning of an event that is not complete.
    tail: Vec<u8>,
    /// What becomes of the open event, and of the one before it.
    event: Fate,
    last: Fate,
    share: Share,
}

/// What was read of a line.
struct Read {
    bytes: usize,
    is_event_over: bool,
}

/// Where in a line the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// So many bytes of a byte order mark have been seen.
    Mark(usize),
    /// So many bytes of `data:` have been seen.
    Name(usize),
    Data,
    /// Another field, or a comment.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AfterCr {
    No,
    Line,
    /// The CR ended a blank line, and so an event.
    Event,
}

/// What becomes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Nobody knows yet. Its bytes are kept together.
    Open,
    Pass,
    Wait,
    Remove,
}

const MARK: &[u8] = b"\xef\xbb\xbf";
const DATA: &[u8] = b"data:";

/// The longest event, in bytes, that may be nothing but usage. A longer one passes on as it comes.
const MAX_USAGE_ONLY: usize = 8 << 10;
/// The most bytes that a stream holds back. Beyond that, everything goes on.
const MAX_HELD: usize = 16 << 10;

// === impl Scan ===

impl Scan {
    pub fn new(usage_only: UsageOnly, last_text: LastText, room: &Room) -> Self {
        Self {
            usage_only,
            last_text,
            reader: Reader::default(),
            tally: Tally::default(),
            line: Line::Mark(0),
            after_cr: AfterCr::No,
            back: Vec::new(),
            tail: Vec::new(),
            event: Fate::Open,
            last: Fate::Pass,
            share: room.share(),
        }
    }

    /// Takes the next chunk. `end`: it is the last one.
    pub fn feed(&mut self, chunk: &[u8], end: bool) -> Passed {
        let mut out = Out::of(chunk);
        let mut at = self.line_feed(chunk, &mut out);
        // What stands before this has been passed, held or removed. What follows belongs to the open event.
        let mut from = if self.after_cr == AfterCr::Event { at } else { 0 };
        if !chunk.is_empty() {
            self.after_cr = AfterCr::No;
        }
        while let Some(rest) = chunk.get(at..).filter(|rest| !rest.is_empty()) {
            let read = self.read(rest);
            at += read.bytes;
            if read.is_event_over {
                self.event_ends(chunk, from..at, &mut out);
                from = at;
            }
        }
        if end {
            self.reader.finish(&mut self.tally);
            self.pass_on(from..chunk.len(), &mut out);
        } else {
            self.keep(chunk, from, &mut out);
        }
        if !self.share.hold(self.back.len() + self.tail.len()) {
            self.event = Fate::Pass;
            self.pass_on(chunk.len()..chunk.len(), &mut out);
            self.share.hold(0);
        }
        out.passed()
    }

    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The stream has ended here. Returns what it has said.
    pub fn finish(&mut self) -> &Tally {
        self.reader.finish(&mut self.tally);
        &self.tally
    }

    /// Takes an LF that belongs to the CR at the end of the chunk before. Returns its length.
    fn line_feed(&mut self, chunk: &[u8], out: &mut Out<'_>) -> usize {
        if self.after_cr == AfterCr::No || chunk.first() != Some(&b'\n') {
            return 0;
        }
        if self.after_cr == AfterCr::Event {
            match self.last {
                Fate::Remove => {}
                Fate::Wait if !self.back.is_empty() => self.back.push(b'\n'),
                _ => out.pass(0, 1),
            }
        }
        1
    }

    /// Reads a part of a line.
    fn read(&mut self, rest: &[u8]) -> Read {
        let read = |bytes| Read { bytes, is_event_over: false };
        let Some(byte) = rest.first() else {
            return read(0);
        };
        match self.line {
            Line::Mark(seen) if MARK.get(seen) == Some(byte) => {
                self.line = if seen + 1 == MARK.len() { Line::Name(0) } else { Line::Mark(seen + 1) };
                read(1)
            }
            Line::Mark(seen) => {
                self.line = if seen == 0 { Line::Name(0) } else { Line::Other };
                read(0)
            }
            Line::Name(0) if rest.starts_with(DATA) => {
                self.line = Line::Data;
                read(DATA.len())
            }
            Line::Name(seen) if DATA.get(seen) == Some(byte) => {
                self.line = if seen + 1 == DATA.len() { Line::Data } else { Line::Name(seen + 1) };
                read(1)
            }
            Line::Name(0) if matches!(byte, b'\r' | b'\n') => {
                Read { bytes: self.line_ends(rest, AfterCr::Event), is_event_over: true }
            }
            Line::Name(_) => {
                self.line = Line::Other;
                read(0)
            }
            Line::Data | Line::Other => {
                let end = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
                let (value, behind) = rest.split_at_checked(end).unwrap_or((rest, &[]));
                let is_data = self.line == Line::Data;
                if is_data {
                    self.reader.feed(value, &mut self.tally);
                }
                if behind.is_empty() {
                    return read(end);
                }
                if is_data {
                    // A line feed joins the lines of an event's data.
                    self.reader.feed(b"\n", &mut self.tally);
                }
                read(end + self.line_ends(behind, AfterCr::Line))
            }
        }
    }

    /// A line ends here. Returns the length of what ends it.
    fn line_ends(&mut self, rest: &[u8], after_cr: AfterCr) -> usize {
        self.line = Line::Name(0);
        match rest {
            [b'\r', b'\n', ..] => 2,
            [b'\r'] => {
                self.after_cr = after_cr;
                1
            }
            _ => 1,
        }
    }

    /// The open event is whole. Its last bytes are this part of the chunk.
    fn event_ends(&mut self, chunk: &[u8], span: Range<usize>, out: &mut Out<'_>) {
        self.reader.finish(&mut self.tally);
        let event = self.tally.take_event();
        self.last = self.fate(event);
        self.event = Fate::Open;
        match self.last {
            Fate::Remove => {
                out.pass_held(&mut self.back);
                self.tail.clear();
            }
            Fate::Wait => {
                if event.has_text {
                    out.pass_held(&mut self.back);
                }
                self.back.append(&mut self.tail);
                self.back.extend_from_slice(chunk.get(span).unwrap_or_default());
                if self.back.len() > MAX_HELD {
                    out.pass_held(&mut self.back);
                }
            }
            Fate::Open | Fate::Pass => self.pass_on(span, out),
        }
    }

    fn fate(&self, event: EventSummary) -> Fate {
        let told = event.has_usage || event.is_usage_only || event.is_last;
        match (self.event, self.usage_only, self.last_text) {
            (Fate::Pass, ..) => Fate::Pass,
            (_, UsageOnly::Remove, _) if event.is_usage_only => Fate::Remove,
            (_, _, LastText::Hold) if !told && (event.has_text || !self.back.is_empty()) => Fate::Wait,
            _ => Fate::Pass,
        }
    }

    /// Keeps what the chunk has of an event that is not whole.
    fn keep(&mut self, chunk: &[u8], from: usize, out: &mut Out<'_>) {
        let rest = chunk.get(from..).unwrap_or_default();
        let most = match (self.event, self.usage_only, self.last_text) {
            (Fate::Pass, ..) | (_, UsageOnly::Keep, LastText::Pass) => 0,
            (_, UsageOnly::Remove, LastText::Pass) => MAX_USAGE_ONLY,
            (_, _, LastText::Hold) => MAX_HELD,
        };
        if rest.is_empty() {
            return;
        }
        if self.back.len() + self.tail.len() + rest.len() <= most {
            self.tail.extend_from_slice(rest);
        } else {
            self.event = Fate::Pass;
            self.pass_on(from..chunk.len(), out);
        }
    }

    /// Lets everything go on, up to the end of this part of the chunk.
    fn pass_on(&mut self, span: Range<usize>, out: &mut Out<'_>) {
        out.pass_held(&mut self.back);
        out.pass_held(&mut self.tail);
        out.pass(span.start, span.end);
    }
}

#[cfg(test)]
mod tests;
