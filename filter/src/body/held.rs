//! What a stream holds back, and how a chunk goes on. Two things are held: an event that is not complete, and events
//! that wait for the usage behind them. As long as nothing is held or taken out, a chunk passes as it is and is not
//! copied.

use std::{cell::Cell, rc::Rc};

/// What goes on in the place of a chunk.
#[derive(Debug, PartialEq, Eq)]
pub enum Passed {
    Unchanged,
    Instead(Vec<u8>),
}

/// How many bytes all streams of a worker hold together. Clones are the same room.
#[derive(Debug, Clone, Default)]
pub struct Room(Rc<Cell<usize>>);

/// The share of one stream in the room. It goes back when the stream ends, in whatever way.
#[derive(Debug)]
pub struct Share {
    room: Room,
    bytes: usize,
}

/// The bytes of the current chunk on their way out.
#[derive(Debug)]
pub struct Out<'c> {
    chunk: &'c [u8],
    /// So many bytes of the chunk go on as they are. It does not matter once there is a copy.
    unchanged: usize,
    copy: Option<Vec<u8>>,
}

/// The most bytes of all streams together. Beyond that, streams hold nothing back. A VM has 1 GiB, and one stream holds
/// 16 KiB at most.
const ROOM: usize = 64 << 20;

// === impl Room ===

impl Room {
    pub fn share(&self) -> Share {
        Share { room: self.clone(), bytes: 0 }
    }
}

impl Share {
    /// Notes that this stream holds so many bytes now. False: all streams together hold too much.
    pub fn hold(&mut self, bytes: usize) -> bool {
        let all = self.room.0.get().saturating_sub(self.bytes).saturating_add(bytes);
        self.room.0.set(all);
        self.bytes = bytes;
        all <= ROOM
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.hold(0);
    }
}

// === impl Out ===

impl<'c> Out<'c> {
    pub fn of(chunk: &'c [u8]) -> Self {
        Self { chunk, unchanged: 0, copy: None }
    }

    /// Lets a part of the chunk go on.
    pub fn pass(&mut self, start: usize, end: usize) {
        if self.copy.is_none() && start == self.unchanged {
            self.unchanged = end;
            return;
        }
        let part = self.chunk.get(start..end).unwrap_or_default();
        self.copy().extend_from_slice(part);
    }

    /// Lets what was held go on.
    pub fn pass_held(&mut self, held: &mut Vec<u8>) {
        match self.copy {
            _ if held.is_empty() => {}
            None if self.unchanged == 0 => self.copy = Some(std::mem::take(held)),
            _ => self.copy().append(held),
        }
    }

    pub fn passed(mut self) -> Passed {
        if self.copy.is_none() && self.unchanged == self.chunk.len() {
            return Passed::Unchanged;
        }
        Passed::Instead(std::mem::take(self.copy()))
    }

    fn copy(&mut self) -> &mut Vec<u8> {
        self.copy.get_or_insert_with(|| self.chunk.get(..self.unchanged).unwrap_or_default().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_share_the_room_and_leave_it() {
        let room = Room::default();
        let (mut one, mut other) = (room.share(), room.share());
        assert!(one.hold(ROOM) && one.hold(ROOM - 10), "a share is what is held now");
        assert!(other.hold(10));
        assert!(!other.hold(11), "all together hold too much");
        drop(one);
        assert!(other.hold(ROOM) && !other.hold(ROOM + 1));
        drop(other);
        assert_eq!(room.0.get(), 0);
    }

    #[test]
    fn a_chunk_is_copied_only_where_it_changes() {
        let passed = |parts: &[(usize, usize)]| {
            let mut out = Out::of(b"abcdef");
            parts.iter().for_each(|(start, end)| out.pass(*start, *end));
            out.passed()
        };
        assert_eq!(passed(&[(0, 2), (2, 6)]), Passed::Unchanged);
        assert_eq!(passed(&[(0, 2), (4, 6)]), Passed::Instead(b"abef".to_vec()));
        assert_eq!(passed(&[(0, 2)]), Passed::Instead(b"ab".to_vec()));
        assert_eq!(passed(&[]), Passed::Instead(Vec::new()));
    }

    #[test]
    fn what_was_held_goes_before_the_chunk() {
        let mut out = Out::of(b"cd");
        out.pass_held(&mut Vec::new());
        let mut held = b"ab".to_vec();
        out.pass_held(&mut held);
        out.pass(0, 2);
        assert_eq!((out.passed(), held), (Passed::Instead(b"abcd".to_vec()), Vec::new()));
    }
}
