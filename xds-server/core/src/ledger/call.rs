//! A call, checked. The steps only see these. A call that makes no sense as a whole is refused. A mistake in one entry
//! concerns that entry only, so that no report of usage is lost over it.

use tollgate_proto::v1::{self, MAX_ROW_REQUESTS, MAX_TOKENS};

use super::{
    HolderKey, MAX_ASKED_NAME,
    measures::{Ending, Measures},
    usage::{Books, Totals, UsageKey, Used},
};

/// The most entries of one kind in a call. A call is bounded by its bytes; no more entries that say something fit in.
pub const MAX_ENTRIES: usize = v1::MAX_CALL_BYTES / 64;
/// The longest text in bytes. Longer names are cut in usage rows, and a bucket with a longer one is refused.
pub const MAX_TEXT: usize = 512;
/// The most parts of a scope. There are four kinds of parts, but a scope may have many labels.
const MAX_SCOPE: usize = 32;

/// A [`v1::SyncRequest`] that makes sense.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    pub holder: HolderKey,
    pub worker: u64,
    /// From 1.
    pub sequence: u64,
    pub(super) usage: Vec<Used>,
    /// How many reports of usage were left out because nobody can believe them.
    pub(super) too_large: u64,
    pub(super) settlements: Vec<Settlement>,
    pub(super) wants: Vec<Want>,
}

/// Why a call is refused. Sending it again does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCall {
    #[error("proxy is {0} bytes long; it is Envoy's node id, of 1 to {MAX_TEXT} bytes")]
    Proxy(usize),
    #[error("sequence is 0; a worker numbers its calls from 1")]
    Sequence,
    #[error("{count} entries in {field}; send at most {MAX_ENTRIES} in one call")]
    Entries { field: &'static str, count: usize },
}

/// A budget as a call names it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Named {
    Bucket {
        limit: String,
        scope: Vec<String>,
    },
    /// The name is missing or too long, so there is no such bucket.
    Nonsense,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settlement {
    pub bucket: Named,
    pub window_start: i64,
    pub settled: super::bucket::Settled,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Want {
    pub bucket: Named,
    pub wish: u64,
    pub least: u64,
}

// === impl Call ===

impl Call {
    /// Checks a call. `identity` is whom the certificate of its connection names.
    ///
    /// # Errors
    /// When it makes no sense as a whole.
    pub fn new(identity: String, wire: v1::SyncRequest) -> Result<Self, InvalidCall> {
        if wire.proxy.is_empty() || wire.proxy.len() > MAX_TEXT {
            return Err(InvalidCall::Proxy(wire.proxy.len()));
        }
        if wire.sequence == 0 {
            return Err(InvalidCall::Sequence);
        }
        let counts =
            [("usage", wire.usage.len()), ("settlements", wire.settlements.len()), ("wants", wire.wants.len())];
        if let Some((field, count)) = counts.into_iter().find(|(_, count)| *count > MAX_ENTRIES) {
            return Err(InvalidCall::Entries { field, count });
        }
        let reports = wire.usage.len();
        let usage: Vec<Used> = wire.usage.into_iter().filter_map(|usage| Used::try_from(usage).ok()).collect();
        Ok(Self {
            holder: HolderKey { identity, proxy: wire.proxy, epoch: wire.epoch },
            worker: wire.worker,
            sequence: wire.sequence,
            too_large: u64::try_from(reports.saturating_sub(usage.len())).unwrap_or(u64::MAX),
            usage,
            settlements: wire.settlements.into_iter().map(Settlement::from).collect(),
            wants: wire.wants.into_iter().map(Want::from).collect(),
        })
    }
}

impl From<Option<v1::Bucket>> for Named {
    fn from(wire: Option<v1::Bucket>) -> Self {
        match wire {
            Some(v1::Bucket { limit, scope })
                if !limit.is_empty()
                    && scope.len() <= MAX_SCOPE
                    && scope.iter().chain([&limit]).all(|text| text.len() <= MAX_TEXT) =>
            {
                Self::Bucket { limit, scope }
            }
            _ => Self::Nonsense,
        }
    }
}

impl From<v1::Settlement> for Settlement {
    fn from(wire: v1::Settlement) -> Self {
        let ended = wire.from_lease.saturating_add(wire.released);
        Self {
            bucket: wire.bucket.into(),
            window_start: wire.window_start,
            settled: super::bucket::Settled { ended, charged: wire.charged },
        }
    }
}

impl From<v1::Want> for Want {
    fn from(wire: v1::Want) -> Self {
        Self { bucket: wire.bucket.into(), wish: wire.wish, least: wire.least }
    }
}

/// A report of usage is refused because nobody can believe it.
#[derive(Debug, thiserror::Error)]
#[error("more than {MAX_ROW_REQUESTS} requests, or more than {MAX_TOKENS} tokens for each of them")]
pub struct TooLarge;

impl TryFrom<v1::Usage> for Used {
    type Error = TooLarge;

    fn try_from(wire: v1::Usage) -> Result<Self, TooLarge> {
        // Each attempt is in one of these two numbers, or in both.
        let counts = [wire.requests, wire.estimated_requests];
        if counts.iter().any(|count| *count > MAX_ROW_REQUESTS) {
            return Err(TooLarge);
        }
        let attempts = counts.iter().sum::<u64>().max(1);
        let figures = [wire.input_tokens, wire.output_tokens, wire.cached_input_tokens, wire.reasoning_tokens];
        if figures.iter().any(|figure| *figure > MAX_TOKENS.saturating_mul(attempts)) {
            return Err(TooLarge);
        }
        let totals = Totals {
            requests: wire.requests,
            input_tokens: wire.input_tokens,
            output_tokens: wire.output_tokens,
            cached_input_tokens: wire.cached_input_tokens,
            reasoning_tokens: wire.reasoning_tokens,
            estimated_requests: wire.estimated_requests,
        };
        let costs_nothing = wire.error_status != 0 && totals == Totals::default();
        let books = if costs_nothing { Books::NotIn } else { Books::In };
        let ending = Ending::try_from(wire.error_status);
        let measured = ending.and_then(|ending| Ok((ending, Measures::try_from(&wire)?)));
        let is_asked = books == Books::In && !wire.asked_model.is_empty();
        Ok(Self {
            ended_at: wire.ended_at,
            operation: wire.operation(),
            measured,
            books,
            totals,
            key: UsageKey {
                consumer: cut(wire.consumer, MAX_TEXT),
                route: cut(wire.route, MAX_TEXT),
                model: cut(wire.model, MAX_TEXT),
                backend: cut(wire.backend, MAX_TEXT),
            },
            asked: is_asked.then(|| cut(wire.asked_model, MAX_ASKED_NAME)),
        })
    }
}

fn cut(mut text: String, longest: usize) -> String {
    text.truncate(text.floor_char_boundary(longest));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire() -> v1::SyncRequest {
        v1::SyncRequest { proxy: "envoy-1".into(), epoch: 1, worker: 1, sequence: 1, ..Default::default() }
    }

    #[test]
    fn a_call_that_makes_no_sense_is_refused_with_a_reason() {
        let call = |wire| Call::new("gateway".into(), wire);
        assert_eq!(call(v1::SyncRequest { sequence: 0, ..wire() }), Err(InvalidCall::Sequence));
        assert_eq!(call(v1::SyncRequest { proxy: String::new(), ..wire() }), Err(InvalidCall::Proxy(0)));
        let wants = vec![v1::Want::default(); MAX_ENTRIES + 1];
        let error = call(v1::SyncRequest { wants, ..wire() }).unwrap_err();
        assert_eq!(error.to_string(), "16385 entries in wants; send at most 16384 in one call");
    }

    #[test]
    fn one_bad_entry_does_not_lose_the_others() {
        let long = "ö".repeat(MAX_TEXT);
        let bucket = v1::Bucket { limit: "default/p/daily".into(), scope: vec![long.clone()] };
        let huge = v1::Usage { output_tokens: MAX_TOKENS + 1, ..Default::default() };
        let usage = v1::Usage { model: long.clone(), asked_model: long, input_tokens: 3, ..Default::default() };
        let request = v1::SyncRequest {
            usage: vec![huge, usage],
            wants: vec![v1::Want { bucket: Some(bucket), wish: 1, least: 1 }, v1::Want::default()],
            ..wire()
        };
        let call = Call::new("gateway".into(), request).unwrap();
        assert_eq!((call.usage.len(), call.too_large), (1, 1));
        assert_eq!(call.usage[0].asked.as_ref().unwrap().len(), MAX_ASKED_NAME);
        assert_eq!(call.usage[0].key.model.len(), MAX_TEXT);
        assert_eq!(call.usage[0].totals.input_tokens, 3);
        assert!(call.wants.iter().all(|want| want.bucket == Named::Nonsense));
    }
}
