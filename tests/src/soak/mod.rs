//! Minutes of mixed load on the real control plane and the real Envoy, and at the end one question: are the books right?
//!
//! ```text
//! load.rs: clients that stay and clients that leave, over HTTP/1.1 and HTTP/2 -> Envoy -> backend.rs: counts
//! run.rs: kills of the control plane, of Envoy                                               |
//! books.rs: the ledger's rows against the backend's own count  <------------------------------
//! ```
//!
//! `tests/tests/installed/mixed/` does the same in a Kubernetes, with more that is disturbed. It has the clients, the backend
//! and the comparison from here.
//!
//! The backend is scripted, unlike in the end-to-end tests: exact counting is the point here, so it answers with figures
//! that it makes up from the number of the request, and sleeps, breaks off and refuses as the model's name says.

pub mod backend;
pub mod books;
pub mod load;
pub mod memory;
mod run;

use std::time::Duration;

pub use run::{Options, run};

/// What a model does. `steady` answers; with the others `flaky` has the first attempt and `steady` the second. Where there
/// is `spare`, it answers when `steady` is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Model {
    /// Answers at once, as JSON or as a stream.
    Steady,
    /// Takes its time before the first byte, and between events.
    Slow,
    /// Attempt 1 works until the gateway gives up on it.
    Sleeps,
    /// Attempt 1 is answered 429.
    Busy,
    /// Attempt 1 is answered 500.
    Broken,
    /// Attempt 1 ends with its connection, after the request was read.
    Resets,
    /// Every attempt is answered 500.
    Down,
}

impl Model {
    pub const ALL: [Self; 7] =
        [Self::Steady, Self::Slow, Self::Sleeps, Self::Busy, Self::Broken, Self::Resets, Self::Down];

    pub fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Slow => "slow",
            Self::Sleeps => "sleeps",
            Self::Busy => "busy",
            Self::Broken => "broken",
            Self::Resets => "resets",
            Self::Down => "down",
        }
    }

    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|model| model.name() == name)
    }
}

/// Who sends: the books of those who stay are exact, those of the others are at least complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Consumer {
    /// Reads every answer to its end.
    Stays,
    /// Leaves at some stage.
    Leaves,
    /// Reads every answer to its end, and has a budget that is soon used up.
    Spends,
}

impl Consumer {
    pub const ALL: [Self; 3] = [Self::Stays, Self::Leaves, Self::Spends];
    /// Those that have budgets which are never used up.
    pub const RICH: [Self; 2] = [Self::Stays, Self::Leaves];

    /// Whether its books are exact.
    pub fn is_exact(self) -> bool {
        self != Self::Leaves
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Stays => "stays",
            Self::Leaves => "leaves",
            Self::Spends => "spends",
        }
    }

    /// The one that it has in the beginning.
    pub fn key(self) -> &'static str {
        match self {
            Self::Stays => "soak-key-of-those-who-stay",
            Self::Leaves => "soak-key-of-those-who-leave",
            Self::Spends => "soak-key-of-those-who-spend",
        }
    }
}

/// The header by which the backend knows a request again, whichever attempt it is: `<consumer>-<number>`.
pub const NUMBER: &str = "x-soak-number";

/// The header by which a route knows a consumer, so that one of them may have a policy of its own.
pub const WHO: &str = "x-soak-consumer";

/// The gateway gives up on an attempt that has not begun its answer by then. Only `sleeps` is to see that. A process of
/// the soak that stalls for so long lets it happen to every model: the client gets 504 and the attempt is charged, rightly,
/// though the backend was late with its answer, or had the request in its socket and never read it. One second was too
/// short on a busy machine. All models share one pool and so one such time.
pub const FIRST_TOKEN: Duration = Duration::from_secs(3);

/// What request `number` uses: input and output tokens.
pub fn figures(number: u64) -> (u64, u64) {
    (10 + number % 90, 1 + number % 50)
}

/// Numbers that look random and are the same in each run.
pub fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
