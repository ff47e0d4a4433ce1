//! How requests ended and how long they took, for metrics alone: the ledger passes it on and keeps none of it. So what makes
//! no sense here is left out, and the tokens of its row count all the same.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use tollgate_proto::measures::{BUCKETS, Measure};
use tollgate_proto::v1::{self, MAX_ROW_REQUESTS, Operation};

use super::usage::{Totals, UsageKey};

/// No request takes so long. In milliseconds: a week.
const LONGEST_MS: u64 = 7 * 86_400_000;

/// What rows have in common that metrics tell together. The model's name is the pool's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    pub key: UsageKey,
    pub operation: Operation,
    pub ending: Ending,
}

/// How requests ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    #[default]
    Good,
    /// With this status of HTTP, or 499 where the answer broke off.
    Error(u16),
}

/// What rows add up to, for metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metered {
    pub totals: Totals,
    pub measures: Measures,
}

/// How the requests of a row spread. Sums saturate, so that no report can make one wrap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measures {
    duration_ms: u64,
    first_token_ms: u64,
    per_token_us: u64,
    /// How many are in each bucket (`proto/src/measures.rs`) that has some.
    spread: BTreeMap<usize, u64>,
}

/// Nobody can believe these measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Nonsense {
    #[error("spread is not pairs of a bucket and how many are in it")]
    Pairs,
    #[error("there is no such bucket, or it is there twice")]
    Bucket,
    #[error("more values of one measure than a row has requests or attempts")]
    TooMany,
    #[error("a sum is more than its values can be")]
    Sum,
    #[error("no status of an error")]
    Status,
}

// === impl Ending ===

impl TryFrom<u32> for Ending {
    type Error = Nonsense;

    fn try_from(status: u32) -> Result<Self, Nonsense> {
        match u16::try_from(status) {
            Ok(0) => Ok(Self::Good),
            Ok(status @ 400..=599) => Ok(Self::Error(status)),
            _ => Err(Nonsense::Status),
        }
    }
}

// === impl Measures ===

impl Measures {
    /// How many are in each bucket of a measure, and in the one for what is larger.
    pub fn counts(&self, measure: Measure) -> impl Iterator<Item = u64> {
        let first = measure.first_bucket();
        let buckets = first..=first + measure.bounds().len();
        buckets.map(|bucket| self.spread.get(&bucket).copied().unwrap_or_default())
    }

    pub fn count(&self, measure: Measure) -> u64 {
        self.counts(measure).fold(0, u64::saturating_add)
    }

    pub fn duration_ms(&self) -> u64 {
        self.duration_ms
    }

    pub fn first_token_ms(&self) -> u64 {
        self.first_token_ms
    }

    pub fn per_token_us(&self) -> u64 {
        self.per_token_us
    }

    /// Where it does not say how the tokens of its row spread, as those of an older filter, all attempts are where their mean
    /// is: no token is missing in a sum over buckets.
    #[must_use]
    pub(super) fn with_tokens_of(mut self, totals: &Totals) -> Self {
        let attempts = totals.requests.max(totals.estimated_requests);
        for (measure, sum) in
            [(Measure::InputTokens, totals.input_tokens), (Measure::OutputTokens, totals.output_tokens)]
        {
            let attempts = attempts.max(u64::from(sum > 0));
            if self.count(measure) == 0
                && let Some(mean) = sum.checked_div(attempts)
            {
                self.spread.insert(measure.bucket(mean), attempts);
            }
        }
        self
    }

    fn is_believable(&self) -> Result<(), Nonsense> {
        for (measure, sum, longest) in [
            (Measure::Duration, self.duration_ms, LONGEST_MS),
            (Measure::FirstToken, self.first_token_ms, LONGEST_MS),
            (Measure::PerToken, self.per_token_us, LONGEST_MS.saturating_mul(1000)),
        ] {
            let count = self.count(measure);
            if count > MAX_ROW_REQUESTS {
                return Err(Nonsense::TooMany);
            }
            if sum > count.saturating_mul(longest) {
                return Err(Nonsense::Sum);
            }
        }
        // A request has an attempt that counts as it, and others that are estimated.
        let attempts = [Measure::InputTokens, Measure::OutputTokens].map(|measure| self.count(measure));
        if attempts.iter().any(|count| *count > 2 * MAX_ROW_REQUESTS) {
            return Err(Nonsense::TooMany);
        }
        Ok(())
    }
}

impl TryFrom<&v1::Usage> for Measures {
    type Error = Nonsense;

    fn try_from(wire: &v1::Usage) -> Result<Self, Nonsense> {
        let (pairs, rest) = wire.spread.as_chunks::<2>();
        if !rest.is_empty() || pairs.len() > BUCKETS {
            return Err(Nonsense::Pairs);
        }
        let mut spread = BTreeMap::new();
        for [bucket, count] in pairs {
            let bucket = usize::try_from(*bucket).ok().filter(|bucket| *bucket < BUCKETS).ok_or(Nonsense::Bucket)?;
            if spread.insert(bucket, u64::from(*count)).is_some() {
                return Err(Nonsense::Bucket);
            }
        }
        let v1::Usage { duration_ms, first_token_ms, per_token_us, .. } = *wire;
        let measures = Self { duration_ms, first_token_ms, per_token_us, spread };
        measures.is_believable().map(|()| measures)
    }
}

impl AddAssign for Measures {
    fn add_assign(&mut self, other: Self) {
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.duration_ms, other.duration_ms);
        add(&mut self.first_token_ms, other.first_token_ms);
        add(&mut self.per_token_us, other.per_token_us);
        for (bucket, count) in other.spread {
            add(self.spread.entry(bucket).or_default(), count);
        }
    }
}

impl AddAssign for Metered {
    fn add_assign(&mut self, other: Self) {
        self.totals += other.totals;
        self.measures += other.measures;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(measure: Measure, place: usize) -> u32 {
        u32::try_from(measure.first_bucket() + place).unwrap()
    }

    fn read(wire: &v1::Usage) -> Result<Measures, Nonsense> {
        Measures::try_from(wire)
    }

    fn spread(pairs: &[u32]) -> v1::Usage {
        v1::Usage { spread: pairs.to_vec(), ..v1::Usage::default() }
    }

    #[test]
    fn what_nobody_can_believe_is_nonsense() {
        let (last, most) = (u32::try_from(BUCKETS).unwrap() - 1, u32::try_from(MAX_ROW_REQUESTS).unwrap());
        let (input, duration) = (number(Measure::InputTokens, 0), number(Measure::Duration, 0));
        let first = number(Measure::FirstToken, 3);
        let per_token = number(Measure::PerToken, 1);
        for (pairs, expected) in [
            (vec![], Ok(())),
            (vec![0, 1, last, 1], Ok(())),
            (vec![1], Err(Nonsense::Pairs)),
            (vec![0, 1, 2], Err(Nonsense::Pairs)),
            ((0..=last).flat_map(|bucket| [bucket, 1]).collect(), Ok(())),
            ((0..=last).flat_map(|bucket| [bucket, 1]).chain([0, 1]).collect(), Err(Nonsense::Pairs)),
            (vec![last + 1, 1], Err(Nonsense::Bucket)),
            (vec![u32::MAX, 1], Err(Nonsense::Bucket)),
            (vec![3, 1, 3, 1], Err(Nonsense::Bucket)),
            (vec![3, 0, 3, 1], Err(Nonsense::Bucket)),
            (vec![duration, most], Ok(())),
            (vec![duration, most, duration + 1, 1], Err(Nonsense::TooMany)),
            (vec![first, most + 1], Err(Nonsense::TooMany)),
            (vec![per_token, u32::MAX, per_token + 1, u32::MAX], Err(Nonsense::TooMany)),
            (vec![input, 2 * most], Ok(())),
            (vec![input, 2 * most, input + 1, 1], Err(Nonsense::TooMany)),
            (vec![number(Measure::OutputTokens, 0), 2 * most + 1], Err(Nonsense::TooMany)),
        ] {
            assert_eq!(read(&spread(&pairs)).map(drop), expected, "{pairs:?}");
        }
    }

    #[test]
    fn a_sum_is_at_most_what_its_values_can_be() {
        let of = |measure, count| spread(&[number(measure, 2), count]);
        let set = |measure, wire: v1::Usage, sum| match measure {
            Measure::Duration => v1::Usage { duration_ms: sum, ..wire },
            Measure::FirstToken => v1::Usage { first_token_ms: sum, ..wire },
            _ => v1::Usage { per_token_us: sum, ..wire },
        };
        for (measure, longest) in
            [(Measure::Duration, LONGEST_MS), (Measure::FirstToken, LONGEST_MS), (Measure::PerToken, LONGEST_MS * 1000)]
        {
            assert!(read(&set(measure, of(measure, 3), 3 * longest)).is_ok(), "{measure:?}");
            assert_eq!(read(&set(measure, of(measure, 3), 3 * longest + 1)), Err(Nonsense::Sum), "{measure:?}");
            assert_eq!(read(&set(measure, v1::Usage::default(), 1)), Err(Nonsense::Sum), "{measure:?}");
        }
    }

    #[test]
    fn tokens_that_no_bucket_was_told_of_are_where_their_mean_is() {
        let of = |requests, estimated_requests, input_tokens| -> Vec<(usize, u64)> {
            let totals = Totals { requests, estimated_requests, input_tokens, ..Totals::default() };
            let measures = Measures::default().with_tokens_of(&totals);
            measures.counts(Measure::InputTokens).enumerate().filter(|(_, count)| *count > 0).collect()
        };
        assert_eq!(of(0, 0, 0), []);
        assert_eq!(of(3, 1, 12), [(1, 3)]);
        assert_eq!(of(0, 2, 10), [(2, 2)]);
        assert_eq!(of(0, 0, 1), [(0, 1)]);
        assert_eq!(of(2, 0, 0), [(0, 2)], "requests without a token are requests");
        assert_eq!(of(1, 0, u64::MAX), [(14, 1)]);
        // What was told is left as it is, and each kind is by itself.
        let told = read(&spread(&[number(Measure::InputTokens, 0), 5])).unwrap();
        let all =
            told.with_tokens_of(&Totals { requests: 1, input_tokens: 999, output_tokens: 3, ..Totals::default() });
        let counts = |measure| all.counts(measure).take(2).collect::<Vec<_>>();
        assert_eq!((counts(Measure::InputTokens), counts(Measure::OutputTokens)), (vec![5, 0], vec![0, 1]));
        assert_eq!((all.count(Measure::InputTokens), all.count(Measure::OutputTokens)), (5, 1));
    }

    #[test]
    fn measures_add_up_bucket_by_bucket() {
        let (first, second) = (number(Measure::Duration, 0), number(Measure::Duration, 1));
        let large = number(Measure::Duration, Measure::Duration.bounds().len());
        let one = v1::Usage { duration_ms: 30, ..spread(&[second, 2, first, 1]) };
        let other =
            v1::Usage { duration_ms: 90_005, ..spread(&[first, 1, large, 1, number(Measure::FirstToken, 0), 9]) };
        let mut sum = read(&one).unwrap();
        sum += read(&other).unwrap();
        let counts: Vec<u64> = sum.counts(Measure::Duration).collect();
        assert_eq!((counts.len(), &counts[..3], counts[14]), (15, &[2, 2, 0][..], 1));
        assert_eq!((sum.count(Measure::Duration), sum.duration_ms()), (5, 90_035));
        assert_eq!((sum.count(Measure::FirstToken), sum.count(Measure::PerToken)), (9, 0));
        assert_eq!((sum.first_token_ms(), sum.per_token_us()), (0, 0));
    }

    #[test]
    fn an_error_has_a_status_of_http() {
        assert_eq!(Ending::try_from(0), Ok(Ending::Good));
        for status in [400, 499, 599] {
            assert_eq!(Ending::try_from(u32::from(status)), Ok(Ending::Error(status)));
        }
        for status in [1, 200, 399, 600, 65_536, u32::MAX] {
            assert_eq!(Ending::try_from(status), Err(Nonsense::Status), "{status}");
        }
    }
}
