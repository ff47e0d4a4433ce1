//! Usage that no call has taken yet, as rows. Requests that differ only in their figures and end in the same minute
//! share a row, because the ledger adds them up anyway. So the length of a call depends on the number of consumers and
//! models, and not on the number of requests.

use std::{collections::VecDeque, rc::Rc};

use tollgate_proto::v1::{self as wire, MAX_ROW_REQUESTS, MAX_TOKENS};

use super::{Measured, Room};
use crate::usage::Tokens;

/// The most rows that are kept while the ledger is away. The oldest are dropped first. Budgets stay right, because
/// settlements are kept per bucket.
pub(super) const MAX_QUEUE: usize = 50_000;
/// The ledger sums by minutes.
const MINUTE_MS: u64 = 60_000;

/// What some requests used, or attempts of requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// Unix milliseconds at the end of the last of them.
    pub ended_at: u64,
    pub key: RowKey,
    pub tokens: Tokens,
    /// 0: they are attempts of requests that another row counts.
    pub requests: u64,
    /// How many of the attempts are estimated. One that counts as no request always is.
    pub estimated_requests: u64,
    pub measured: Measured,
}

/// What all of a row have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowKey {
    pub consumer: Rc<str>,
    pub route: Rc<str>,
    /// The name that the client asked for, where `model` is the pool's pattern of it. Empty otherwise.
    pub asked_model: String,
    pub model: Rc<str>,
    /// The display name.
    pub backend: Rc<str>,
    pub operation: wire::Operation,
    /// 0, or the status of the error that the requests ended with (`proto/ledger.proto`).
    pub error_status: u32,
}

/// The rows in the order in which they began.
#[derive(Debug, Default)]
pub(super) struct Rows {
    rows: VecDeque<Row>,
    /// The number of the oldest row. The others have the numbers after it.
    oldest: u64,
    /// The minute of the newest row, since the epoch.
    minute: u64,
    /// The numbers of that minute's rows, in the order of their keys. A row that is gone is not in here. One is
    /// found by a binary search, because a hash map would make the filter 2.6 KB larger.
    open: Vec<u64>,
}

// === impl Rows ===

impl Rows {
    /// Adds one attempt to the row with the same key and minute, or begins that row with it. Returns how many rows were
    /// dropped for it.
    pub fn add(&mut self, row: Row) -> u64 {
        let minute = row.ended_at / MINUTE_MS;
        if minute != self.minute {
            self.minute = minute;
            self.open.clear();
        }
        // What the ledger will refuse stays alone, so that nothing else is refused with it.
        let is_shared = row.tokens.are_at_most(MAX_TOKENS);
        if is_shared && let Some(found) = self.find(&row.key) {
            if !found.is_full() {
                found.add(&row);
                return 0;
            }
            // This is so rare that all may begin anew.
            self.open.clear();
        }
        let mut dropped = 0;
        if self.rows.len() >= MAX_QUEUE && self.rows.pop_front().is_some() {
            dropped = 1;
            self.forget(dropped);
        }
        if is_shared && let Err(at) = self.place(&row.key) {
            self.open.insert(at, self.oldest.saturating_add(self.rows.len() as u64));
        }
        self.rows.push_back(row);
        dropped
    }

    /// Takes the oldest rows, as many as there is room for.
    pub fn take(&mut self, room: &mut Room) -> Vec<wire::Usage> {
        let mut taken = Vec::new();
        while let Some(usage) = self.rows.front().map(Row::wire).filter(|usage| room.takes(usage)) {
            taken.push(usage);
            self.rows.pop_front();
        }
        self.forget(taken.len() as u64);
        taken
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn find(&mut self, key: &RowKey) -> Option<&mut Row> {
        let number = *self.open.get(self.place(key).ok()?)?;
        self.rows.get_mut(self.index(number))
    }

    /// Where the row of this key stands in `open`, or would have to stand.
    fn place(&self, key: &RowKey) -> Result<usize, usize> {
        self.open.binary_search_by(|number| self.rows.get(self.index(*number)).map(|row| &row.key).cmp(&Some(key)))
    }

    fn index(&self, number: u64) -> usize {
        usize::try_from(number.saturating_sub(self.oldest)).unwrap_or(usize::MAX)
    }

    /// So many of the oldest rows are gone.
    fn forget(&mut self, gone: u64) {
        self.oldest = self.oldest.saturating_add(gone);
        self.open.retain(|number| *number >= self.oldest);
    }
}

// === impl Row ===

impl Row {
    fn is_full(&self) -> bool {
        self.requests.max(self.estimated_requests) >= MAX_ROW_REQUESTS
    }

    fn add(&mut self, other: &Self) {
        self.ended_at = self.ended_at.max(other.ended_at);
        self.tokens = self.tokens.plus(other.tokens);
        self.requests = self.requests.saturating_add(other.requests);
        self.estimated_requests = self.estimated_requests.saturating_add(other.estimated_requests);
        self.measured.add(&other.measured);
    }

    pub(super) fn wire(&self) -> wire::Usage {
        let mut usage = wire::Usage {
            ended_at: i64::try_from(self.ended_at).unwrap_or(i64::MAX),
            consumer: self.key.consumer.to_string(),
            route: self.key.route.to_string(),
            asked_model: self.key.asked_model.clone(),
            model: self.key.model.to_string(),
            backend: self.key.backend.to_string(),
            input_tokens: self.tokens.input,
            output_tokens: self.tokens.output,
            cached_input_tokens: self.tokens.cached,
            reasoning_tokens: self.tokens.reasoning,
            estimated_requests: self.estimated_requests,
            requests: self.requests,
            operation: self.key.operation.into(),
            error_status: self.key.error_status,
            ..wire::Usage::default()
        };
        self.measured.tell(&mut usage);
        usage
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::{
        super::{ENTRY_BYTES, Times},
        *,
    };

    /// The end of some minute.
    const NOW: u64 = 1_000 * MINUTE_MS - 1;

    fn key(consumer: &str) -> RowKey {
        RowKey { consumer: consumer.into(), route: "chat".into(), model: "smol".into(), ..RowKey::default() }
    }

    fn request(consumer: &str) -> Row {
        let tokens = Tokens { input: 7, output: 5, cached: 3, reasoning: 2 };
        Row { ended_at: NOW, key: key(consumer), tokens, requests: 1, ..Row::default() }
    }

    fn rows(reports: impl IntoIterator<Item = Row>) -> Rows {
        let mut rows = Rows::default();
        for row in reports {
            assert_eq!(rows.add(row), 0, "nothing is dropped");
        }
        rows
    }

    #[test]
    fn requests_that_differ_in_figures_only_share_a_row() {
        let tokens = Tokens { input: 100, output: 200, cached: 300, reasoning: 400 };
        let estimated = Row { tokens, estimated_requests: 1, ended_at: NOW - 59_999, ..request("app") };
        let attempt = Row { requests: 0, estimated_requests: 1, ..request("app") };
        let rows = rows([estimated, request("app"), request("other"), attempt, request("app")]);
        let sum = Row {
            tokens: Tokens { input: 121, output: 215, cached: 309, reasoning: 406 },
            requests: 3,
            estimated_requests: 2,
            ..request("app")
        };
        assert_eq!(rows.rows, [sum, request("other")], "in the order in which they began");
    }

    #[test]
    fn what_differs_in_a_name_or_in_its_minute_has_a_row_of_its_own() {
        let of = |key| Row { key, ..request("app") };
        let different = [
            request("app"),
            request("another"),
            of(RowKey { route: "other".into(), ..key("app") }),
            of(RowKey { model: "gpt-*".into(), ..key("app") }),
            of(RowKey { model: "gpt-*".into(), asked_model: "gpt-1".into(), ..key("app") }),
            of(RowKey { model: "gpt-*".into(), asked_model: "gpt-2".into(), ..key("app") }),
            of(RowKey { backend: "a".into(), ..key("app") }),
            of(RowKey { backend: "b".into(), ..key("app") }),
            of(RowKey { operation: wire::Operation::Chat, ..key("app") }),
            of(RowKey { error_status: 503, ..key("app") }),
        ];
        let mut next_minute = different.clone();
        next_minute.iter_mut().for_each(|row| row.ended_at += 1);
        let whole = rows([&different[..], &different, &next_minute, &next_minute].concat());
        let keys: Vec<_> = whole.rows.iter().map(|row| (row.ended_at, &row.key)).collect();
        let expected: Vec<_> = different.iter().chain(&next_minute).map(|row| (row.ended_at, &row.key)).collect();
        assert_eq!(keys, expected);
        assert!(whole.rows.iter().all(|row| row.requests == 2));
    }

    #[test]
    fn a_row_says_what_its_requests_were_and_took() {
        let key = RowKey { operation: wire::Operation::Embeddings, error_status: 499, ..key("app") };
        let of = |ended| {
            let mut row = Row { key: key.clone(), ..request("app") };
            row.measured.took(&Times { began: 1000, spoke: None, ended }, 0);
            row
        };
        let mut rows = rows([of(1007), of(1002)]);
        let told = rows.take(&mut Room(10_000)).pop().unwrap();
        assert_eq!((told.operation(), told.error_status, told.requests), (wire::Operation::Embeddings, 499, 2));
        assert_eq!((told.duration_ms, told.spread), (9, vec![30, 2]), "both in the first bucket");
    }

    #[test]
    fn sums_end_at_the_top() {
        let mut rows = rows([request("app")]);
        rows.rows[0].tokens = Tokens { input: u64::MAX, output: u64::MAX, cached: u64::MAX, reasoning: u64::MAX };
        let full = rows.rows.clone();
        rows.add(Row { requests: 0, ..request("app") });
        assert_eq!(rows.rows, full);
    }

    /// A row that has more than the ledger believes is refused as a whole.
    #[test]
    fn no_row_has_more_than_the_ledger_takes() {
        let full = Row { requests: MAX_ROW_REQUESTS - 1, estimated_requests: 9, ..request("app") };
        let attempts = Row { requests: 0, estimated_requests: MAX_ROW_REQUESTS, ..request("other") };
        let reports = [full, request("app"), request("app"), attempts, request("other"), request("app")];
        let told: Vec<_> = rows(reports).rows.iter().map(|row| (row.requests, row.estimated_requests)).collect();
        assert_eq!(told, [(MAX_ROW_REQUESTS, 9), (1, 0), (0, MAX_ROW_REQUESTS), (1, 0), (1, 0)]);
    }

    #[test]
    fn what_the_ledger_refuses_takes_nothing_with_it() {
        let at_most = Tokens { reasoning: MAX_TOKENS, ..Tokens::default() };
        let nonsense = Tokens { reasoning: MAX_TOKENS + 1, ..Tokens::default() };
        let of = |tokens| Row { tokens, ..request("app") };
        let rows = rows([of(nonsense), of(at_most), of(nonsense), of(at_most)]);
        let told: Vec<_> = rows.rows.iter().map(|row| (row.requests, row.tokens.reasoning)).collect();
        assert_eq!(told, [(1, MAX_TOKENS + 1), (2, 2 * MAX_TOKENS), (1, MAX_TOKENS + 1)]);
    }

    #[test]
    fn the_oldest_rows_are_dropped_first() {
        let mut rows = rows((0..MAX_QUEUE).map(|n| request(&format!("{n}"))));
        assert_eq!(rows.add(request("0")), 0, "what has its row needs no other");
        assert_eq!(rows.add(request("new")), 1);
        assert_eq!(rows.add(request("0")), 1, "its row is gone");
        assert_eq!(rows.add(request("new")), 0);
        assert_eq!(rows.add(request("2")), 0);
        let told = |at: usize| (&*rows.rows[at].key.consumer, rows.rows[at].requests);
        assert_eq!((rows.rows.len(), rows.open.len()), (MAX_QUEUE, MAX_QUEUE));
        assert_eq!([told(0), told(MAX_QUEUE - 2), told(MAX_QUEUE - 1)], [("2", 2), ("new", 2), ("0", 1)]);
    }

    #[test]
    fn what_a_call_has_no_room_for_is_still_added_to() {
        let mut rows = rows(["a", "b", "c"].map(request));
        let mut room = Room(2 * (rows.rows[0].wire().encoded_len() + ENTRY_BYTES));
        let taken = |rows: &mut Rows, room: &mut Room| -> Vec<_> {
            rows.take(room).into_iter().map(|row| (row.consumer, row.requests)).collect()
        };
        assert_eq!(taken(&mut rows, &mut room), [("a".to_owned(), 1), ("b".to_owned(), 1)]);
        ["c", "b", "a", "b"].map(request).into_iter().for_each(|row| assert_eq!(rows.add(row), 0));
        let rest = [("c".to_owned(), 2), ("b".to_owned(), 2), ("a".to_owned(), 1)];
        assert_eq!(taken(&mut rows, &mut Room(10_000)), rest);
        assert!(rows.is_empty() && rows.open.is_empty());
    }
}
