//! What LiteLLM's `simple-shuffle` draws by: the weights of the deployments, else their requests per minute, else their
//! tokens per minute.

/// What a deployment says of its share.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Share {
    pub(super) weight: Option<f64>,
    pub(super) rpm: Option<f64>,
    pub(super) tpm: Option<f64>,
}

/// The largest weight of a target.
const MAX: f64 = 1_000_000.0;
/// Precise enough for shares that are no whole numbers.
const SCALE: f64 = 10_000.0;

/// Weights of targets that are drawn among each other.
pub(super) fn weights(shares: &[Share]) -> Vec<u32> {
    let metrics: [fn(&Share) -> Option<f64>; 3] = [|share| share.weight, |share| share.rpm, |share| share.tpm];
    let of = |metric: fn(&Share) -> Option<f64>| shares.iter().map(|share| metric(share).unwrap_or(0.0)).collect();
    let drawn = metrics.into_iter().map(of).find(|values: &Vec<f64>| values.iter().any(|value| *value > 0.0));
    match drawn {
        Some(values) => whole(&values),
        None => vec![1; shares.len()],
    }
}

/// The same shares as whole numbers. What has a share keeps one.
fn whole(values: &[f64]) -> Vec<u32> {
    let largest = values.iter().copied().fold(0.0, f64::max);
    for factor in [1.0, 10.0, 100.0, 1000.0] {
        let is_whole = |value: &f64| (value * factor - (value * factor).round()).abs() < 1e-9;
        if largest * factor <= MAX && values.iter().all(is_whole) {
            return values.iter().map(|value| rounded(value * factor)).collect();
        }
    }
    let scaled = values.iter().map(|value| (*value, value / largest * SCALE));
    scaled.map(|(value, scaled)| if value > 0.0 { rounded(scaled).max(1) } else { 0 }).collect()
}

/// A number of at most a million, so that nothing of it is lost but its fraction.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was brought into these bounds")]
fn rounded(value: f64) -> u32 {
    value.round().clamp(0.0, MAX) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(shares: &[[Option<f64>; 3]]) -> Vec<u32> {
        weights(
            &shares
                .iter()
                .map(|[weight, rpm, tpm]| Share { weight: *weight, rpm: *rpm, tpm: *tpm })
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn weights_come_before_requests_and_those_before_tokens() {
        let (none, one) = ([None; 3], [None, None, Some(7.0)]);
        assert_eq!(of(&[none, none]), [1, 1]);
        assert_eq!(of(&[one, none]), [7, 0]);
        assert_eq!(of(&[[None, Some(900.0), Some(1.0)], [None, Some(300.0), Some(5.0)]]), [900, 300]);
        assert_eq!(of(&[[Some(2.0), Some(900.0), None], [Some(1.0), Some(300.0), None]]), [2, 1]);
        // A weight of nothing is none.
        assert_eq!(of(&[[Some(0.0), Some(9.0), None], [None, Some(3.0), None]]), [9, 3]);
        assert_eq!(of(&[[Some(0.0), None, None], [Some(0.0), None, None]]), [1, 1]);
    }

    #[test]
    fn shares_become_the_least_whole_numbers_that_are_exact() {
        let weight =
            |weights: &[f64]| of(&weights.iter().map(|weight| [Some(*weight), None, None]).collect::<Vec<_>>());
        assert_eq!(weight(&[0.9, 0.1]), [9, 1]);
        assert_eq!(weight(&[0.25, 0.75]), [25, 75]);
        assert_eq!(weight(&[0.125, 1.0]), [125, 1000]);
        assert_eq!(weight(&[1_000_000.0, 1.0]), [1_000_000, 1]);
        // Too large to be exact: of ten thousand.
        assert_eq!(weight(&[2_000_000.0, 1_000_000.0, 1.0, 0.0]), [10_000, 5_000, 1, 0]);
        assert_eq!(weight(&[1.0, 1.0 / 3.0]), [10_000, 3_333]);
    }

    proptest! {
        #[test]
        fn what_has_a_share_keeps_one(weights in proptest::collection::vec(0.0_f64..1e12, 1..9)) {
            let whole = of(&weights.iter().map(|weight| [Some(*weight), None, None]).collect::<Vec<_>>());
            prop_assert!(whole.iter().zip(&weights).all(|(whole, weight)| *whole <= 1_000_000 && (*weight == 0.0 || *whole > 0)));
        }
    }
}
