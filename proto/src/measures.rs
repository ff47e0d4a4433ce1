//! How the requests of a usage row spread ([`Usage::spread`](crate::v1::Usage)): in which buckets a filter counts them, and
//! the control plane tells of them. The bounds are those that OpenTelemetry advises for its metrics of GenAI
//! (semantic-conventions-genai, gen-ai-metrics).

use crate::v1::Operation;

/// What OpenTelemetry's conventions call a value that they do not know.
pub const OTHER: &str = "_OTHER";

/// What is measured of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    InputTokens,
    OutputTokens,
    /// From the request's first byte to the end of its answer, in milliseconds.
    Duration,
    /// From the request's first byte to the first text of its answer, in milliseconds. Streams alone have it.
    FirstToken,
    /// From the first text to the end, for each token after the first one, in microseconds. Streams alone have it.
    PerToken,
}

const TOKENS: &[u32] =
    &[1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864];
const DURATION_MS: &[u32] = &[10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10_240, 20_480, 40_960, 81_920];
const FIRST_TOKEN_MS: &[u32] = &[1, 5, 10, 20, 40, 60, 80, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10_000];
const PER_TOKEN_US: &[u32] = &[
    10_000, 25_000, 50_000, 75_000, 100_000, 150_000, 200_000, 300_000, 400_000, 500_000, 750_000, 1_000_000, 2_500_000,
];

/// The number of buckets of all measures together.
pub const BUCKETS: usize = 2 * (TOKENS.len() + 1) + DURATION_MS.len() + FIRST_TOKEN_MS.len() + PER_TOKEN_US.len() + 3;

// === impl Operation ===

impl Operation {
    /// The value of `gen_ai.operation.name` (semantic-conventions-genai).
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::TextCompletion => "text_completion",
            Self::Embeddings => "embeddings",
            Self::Unspecified => OTHER,
        }
    }
}

// === impl Measure ===

impl Measure {
    /// In the order in which their buckets are numbered.
    pub const ALL: [Self; 5] =
        [Self::InputTokens, Self::OutputTokens, Self::Duration, Self::FirstToken, Self::PerToken];

    /// The largest value of each bucket, in the measure's unit. One more bucket is for what is larger.
    pub fn bounds(self) -> &'static [u32] {
        match self {
            Self::InputTokens | Self::OutputTokens => TOKENS,
            Self::Duration => DURATION_MS,
            Self::FirstToken => FIRST_TOKEN_MS,
            Self::PerToken => PER_TOKEN_US,
        }
    }

    /// The number of its first bucket. The others follow.
    pub fn first_bucket(self) -> usize {
        let before = Self::ALL.iter().take_while(|measure| **measure != self);
        before.map(|measure| measure.bounds().len() + 1).sum()
    }

    /// The number of the bucket that a value is in.
    pub fn bucket(self, value: u64) -> usize {
        self.first_bucket() + self.bounds().partition_point(|bound| u64::from(*bound) < value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bucket_has_a_number_of_its_own() {
        let numbers = Measure::ALL.iter().flat_map(|measure| {
            let first = measure.first_bucket();
            first..=first + measure.bounds().len()
        });
        assert_eq!(numbers.collect::<Vec<_>>(), (0..BUCKETS).collect::<Vec<_>>());
    }

    #[test]
    fn a_bound_is_in_its_bucket_and_what_is_more_in_the_next() {
        for measure in Measure::ALL {
            assert!(measure.bounds().is_sorted_by(|one, next| one < next), "{measure:?}");
            for (place, bound) in measure.bounds().iter().enumerate() {
                let bucket = measure.first_bucket() + place;
                assert_eq!(measure.bucket(u64::from(*bound)), bucket, "{measure:?} {bound}");
                assert_eq!(measure.bucket(u64::from(*bound) + 1), bucket + 1, "{measure:?} {bound}");
            }
            assert_eq!(measure.bucket(0), measure.first_bucket());
            assert_eq!(measure.bucket(u64::MAX), measure.first_bucket() + measure.bounds().len());
        }
    }
}
