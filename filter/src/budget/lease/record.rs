//! The lease as a record of shared data: words of eight bytes, little-endian, three more for each worker that has taken
//! tokens.

use super::{Answer, Lease, Taken};

// === impl Lease ===

impl Lease {
    const WORDS: usize = 13;
    const WORDS_PER_WORKER: usize = 3;

    // Not inlined: each copy of it would be compiled anew at each start of Envoy.
    #[inline(never)]
    pub fn decode(record: &[u8]) -> Self {
        let (words, []) = record.as_chunks::<8>() else {
            return Self::default();
        };
        if words.len() < Self::WORDS {
            return Self::default();
        }
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let mut next = || words.next().unwrap_or(0);
        Self {
            window_start: next().cast_signed(),
            window_end: next().cast_signed(),
            available: next(),
            granted: next(),
            limit: next(),
            remaining: next(),
            sent_at: next(),
            answered_at: next(),
            answer: Answer::of(next()),
            asked_at: next(),
            used_at: next(),
            taken: next(),
            counted_from: next(),
            taken_by: (0..(record.len() / 8 - Self::WORDS) / Self::WORDS_PER_WORKER)
                .map(|_| Taken { worker: next(), window_start: next().cast_signed(), amount: next() })
                .collect(),
        }
    }

    #[inline(never)]
    pub fn encode(&self) -> Vec<u8> {
        let words = [
            self.window_start.cast_unsigned(),
            self.window_end.cast_unsigned(),
            self.available,
            self.granted,
            self.limit,
            self.remaining,
            self.sent_at,
            self.answered_at,
            self.answer as u64,
            self.asked_at,
            self.used_at,
            self.taken,
            self.counted_from,
        ];
        let mut record = Vec::with_capacity(8 * (Self::WORDS + Self::WORDS_PER_WORKER * self.taken_by.len()));
        for word in words {
            record.extend_from_slice(&word.to_le_bytes());
        }
        for taken in &self.taken_by {
            for word in [taken.worker, taken.window_start.cast_unsigned(), taken.amount] {
                record.extend_from_slice(&word.to_le_bytes());
            }
        }
        record
    }
}

// === impl Answer ===

impl Answer {
    fn of(word: u64) -> Self {
        match word {
            0 => Self::More,
            1 => Self::NoMore,
            2 => Self::Outdated,
            3 => Self::Exhausted,
            _ => Self::Unknown,
        }
    }
}
