//! Usage over time, for plots. The rows of the books by minute become points by hour or by day, a series for each of the
//! names that used most and one for all others.
//!
//! The rows are read twice: once to see who used most ([`Names`]), and once to sum up ([`Plot`]). So memory holds the
//! names and the points that are answered, however many names have used something in each hour.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::upkeep::USAGE_KEPT;
use super::usage::Totals;

/// The most series with a name in one answer.
pub const MAX_SERIES: usize = 50;

/// What a series is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Consumer,
    Model,
    Backend,
}

/// The time of one point. Hours and days are those of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Hour,
    Day,
}

/// What finished requests used in one minute, as it is in the books.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// Since the epoch.
    pub minute: u64,
    pub consumer: &'a str,
    pub model: &'a str,
    pub backend: &'a str,
    pub totals: Totals,
}

/// Who is in the series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    Named(String),
    /// All that used less, so many of them.
    Others(usize),
}

/// Points in the order of time, without those in which nothing was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    pub who: Who,
    pub points: Vec<Point>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// When its hour or day begins, in Unix seconds.
    pub start: i64,
    pub totals: Totals,
}

/// What each name used, to see who used most.
#[derive(Debug)]
pub struct Names {
    by: By,
    sums: HashMap<String, Totals>,
}

/// Sums by the names that used most, and by time.
#[derive(Debug)]
pub struct Plot {
    by: By,
    step: Step,
    /// Where each of the names is in `named`.
    places: HashMap<String, usize>,
    named: Vec<(String, Sums)>,
    others: Sums,
    others_count: usize,
}

/// By the number of the hour or day since the epoch.
type Sums = BTreeMap<u64, Totals>;

// === impl By ===

impl By {
    fn name<'a>(self, row: &Row<'a>) -> &'a str {
        match self {
            Self::Consumer => row.consumer,
            Self::Model => row.model,
            Self::Backend => row.backend,
        }
    }
}

// === impl Step ===

impl Step {
    /// How far back points go. Days go as far as minutes are kept, and of hours there are no more than 336.
    pub fn longest(self) -> Duration {
        match self {
            Self::Hour => Duration::from_secs(14 * 24 * 3600),
            Self::Day => USAGE_KEPT,
        }
    }

    fn minutes(self) -> u64 {
        match self {
            Self::Hour => 60,
            Self::Day => 24 * 60,
        }
    }

    fn start_of(self, number: u64) -> i64 {
        super::usage::second_of(number.saturating_mul(self.minutes()))
    }
}

// === impl Names ===

impl Names {
    pub fn new(by: By) -> Self {
        Self { by, sums: HashMap::new() }
    }

    pub fn add(&mut self, row: &Row<'_>) {
        let name = self.by.name(row);
        match self.sums.get_mut(name) {
            Some(sum) => *sum += row.totals,
            None => drop(self.sums.insert(name.to_owned(), row.totals)),
        }
    }

    /// A plot of the names that used most tokens, so many of them. The others are one series together.
    pub fn plot(self, step: Step, most: usize) -> Plot {
        let mut names: Vec<(String, Totals)> = self.sums.into_iter().collect();
        // Requests without tokens, as those that failed, have an order too.
        let rank = |sum: &Totals| (sum.tokens(), sum.requests);
        names.sort_by(|(name, sum), (other_name, other)| rank(other).cmp(&rank(sum)).then(name.cmp(other_name)));
        let others_count = names.len().saturating_sub(most);
        names.truncate(most);
        let places = names.iter().enumerate().map(|(place, (name, _))| (name.clone(), place)).collect();
        let named = names.into_iter().map(|(name, _)| (name, Sums::new())).collect();
        Plot { by: self.by, step, places, named, others: Sums::new(), others_count }
    }
}

// === impl Plot ===

impl Plot {
    pub fn add(&mut self, row: &Row<'_>) {
        let place = self.places.get(self.by.name(row)).and_then(|place| self.named.get_mut(*place));
        // Whoever has come since the names were read is among the others.
        let sums = place.map_or(&mut self.others, |(_, sums)| sums);
        *sums.entry(row.minute / self.step.minutes()).or_default() += row.totals;
    }

    /// Whoever used most comes first, and the others last.
    pub fn series(self) -> Vec<Series> {
        let step = self.step;
        let points = |sums: Sums| {
            let point = |(number, totals)| Point { start: step.start_of(number), totals };
            sums.into_iter().map(point).collect()
        };
        let others = (!self.others.is_empty())
            .then(|| Series { who: Who::Others(self.others_count.max(1)), points: points(self.others) });
        let named = self.named.into_iter().map(|(name, sums)| Series { who: Who::Named(name), points: points(sums) });
        named.chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = 24 * 60;

    fn row<'a>(minute: u64, consumer: &'a str, model: &'a str, input_tokens: u64) -> Row<'a> {
        let totals = Totals { requests: 1, input_tokens, ..Totals::default() };
        Row { minute, consumer, model, backend: "b", totals }
    }

    fn series(rows: &[Row<'_>], by: By, step: Step, most: usize) -> Vec<Series> {
        let mut names = Names::new(by);
        rows.iter().for_each(|row| names.add(row));
        let mut plot = names.plot(step, most);
        rows.iter().for_each(|row| plot.add(row));
        plot.series()
    }

    fn points(series: &Series) -> Vec<(i64, u64)> {
        series.points.iter().map(|point| (point.start, point.totals.input_tokens)).collect()
    }

    #[test]
    fn days_begin_at_midnight_and_hours_at_the_full_hour() {
        let rows =
            [row(DAY - 1, "a", "m", 1), row(DAY, "a", "m", 2), row(DAY + 59, "a", "m", 3), row(DAY + 60, "a", "m", 4)];
        let days = series(&rows, By::Consumer, Step::Day, 10);
        assert_eq!(days.iter().map(points).collect::<Vec<_>>(), [[(0, 1), (86_400, 9)]]);
        let hours = series(&rows, By::Consumer, Step::Hour, 10);
        assert_eq!(points(&hours[0]), [(23 * 3600, 1), (86_400, 5), (86_400 + 3600, 4)]);
    }

    #[test]
    fn who_used_most_comes_first_and_all_others_are_one() {
        let rows =
            [row(0, "a", "x", 1), row(0, "b", "x", 5), row(0, "c", "y", 2), row(DAY, "d", "y", 1), row(0, "b", "y", 1)];
        let found = series(&rows, By::Consumer, Step::Day, 2);
        let named = |name: &str| Who::Named(name.to_owned());
        let who: Vec<Who> = found.iter().map(|series| series.who.clone()).collect();
        assert_eq!(who, [named("b"), named("c"), Who::Others(2)]);
        assert_eq!(points(&found[2]), [(0, 1), (86_400, 1)]);
        let by_model = series(&rows, By::Model, Step::Day, 2);
        assert_eq!(by_model.iter().map(|series| series.who.clone()).collect::<Vec<_>>(), [named("x"), named("y")]);
        assert_eq!(series(&rows, By::Backend, Step::Day, 2).len(), 1);
        assert_eq!(series(&[], By::Model, Step::Day, 2), []);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_counts_twice(
            rows in prop::collection::vec((0..5 * DAY, 0..6usize, 0..100u64), 0..60),
            most in 0..8usize,
            is_by_hour in any::<bool>(),
        ) {
            const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "other"];
            let rows: Vec<Row<'_>> = rows.iter().map(|(at, name, tokens)| row(*at, NAMES[*name], "m", *tokens)).collect();
            let step = if is_by_hour { Step::Hour } else { Step::Day };
            let found = series(&rows, By::Consumer, step, most);
            prop_assert!(found.len() <= most + 1);
            let sum = |find: &dyn Fn(&Totals) -> u64| -> u64 {
                found.iter().flat_map(|series| &series.points).map(|point| find(&point.totals)).sum()
            };
            prop_assert_eq!(sum(&|totals| totals.requests), rows.len() as u64);
            prop_assert_eq!(sum(&|totals| totals.input_tokens), rows.iter().map(|row| row.totals.input_tokens).sum::<u64>());
            for series in &found {
                prop_assert!(series.points.windows(2).all(|two| two[0].start < two[1].start));
            }
        }
    }
}
