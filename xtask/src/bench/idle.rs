//! What gateways use while nobody asks them anything.

use std::time::{Duration, Instant};

use crate::bench::refusal::Refusal;
use crate::bench::started::Place;
use crate::bench::tree::Reading;

const LONG_ENOUGH: Duration = Duration::from_secs(20);
/// What was asked last is settled then.
const REST: Duration = Duration::from_secs(2);

/// Percent of one CPU that each of these uses, all in the same time.
pub fn percents(places: &[Result<Place, Refusal>]) -> Vec<Result<f64, Refusal>> {
    println!("==> idle: {} s", LONG_ENOUGH.as_secs());
    std::thread::sleep(REST);
    let began = Instant::now();
    let before: Vec<Result<(Place, Reading), Refusal>> = places
        .iter()
        .map(|place| {
            let place = place.clone()?;
            Ok((place, place.tree.read()?))
        })
        .collect();
    std::thread::sleep(LONG_ENOUGH);
    let used = |before: Result<(Place, Reading), Refusal>| {
        let (place, before) = before?;
        let used = place.tree.read()?.since(&before)?;
        Ok(used.all().as_secs_f64() / began.elapsed().as_secs_f64() * 100.0)
    };
    before.into_iter().map(used).collect()
}
