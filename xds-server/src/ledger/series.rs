//! Usage over time: which rows of a store become a plot, for all stores. `core::ledger::series` sums them up.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tollgate_core::ledger::series::{By, Names, Point, Row, Series, Step, Who};
use tollgate_core::ledger::usage::Totals;

use super::StoreError;
use super::query::{minute_before, rfc3339};

/// How many series with a name an answer has, unless another number is asked for.
pub const SERIES: usize = 10;
/// The name of the series of all others.
pub const OTHERS: &str = "other";

/// Which plot is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesQuery {
    pub by: By,
    pub step: Step,
    /// The consumer as rows name it. `default/name` is the same as `name`.
    pub consumer: Option<String>,
    pub model: Option<String>,
    /// How far back, to the minute. None: as far as points of this step go.
    pub since: Option<Duration>,
    /// The most series with a name.
    pub most: usize,
}

/// One series as `/api/usage/series` answers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SeriesRow {
    pub name: String,
    /// Present in the series of all others: so many names are in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub names: Option<u64>,
    pub points: Vec<PointRow>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PointRow {
    /// When its hour or day begins. RFC 3339.
    pub start: String,
    #[serde(flatten)]
    pub totals: Totals,
}

/// Which rows are asked for: all from this minute since the epoch on.
pub(super) struct Minutes {
    pub since: u64,
}

/// Takes rows one by one.
pub(super) type Take<'a> = &'a mut dyn FnMut(&Row<'_>);

/// See [`Ledger::series`](super::Ledger::series). `read` is called twice.
pub(super) fn series(
    query: SeriesQuery,
    now: Timestamp,
    read: impl Fn(&Minutes, Take<'_>) -> Result<(), StoreError>,
) -> Result<Vec<SeriesRow>, StoreError> {
    let SeriesQuery { by, step, consumer, model, since, most } = query;
    let longest = step.longest();
    let minutes = Minutes { since: minute_before(now, since.map_or(longest, |since| since.min(longest))) };
    let consumer = consumer.as_deref().map(|name| name.strip_prefix("default/").unwrap_or(name));
    let is_meant = |row: &Row<'_>| {
        consumer.is_none_or(|name| name == row.consumer) && model.as_deref().is_none_or(|name| name == row.model)
    };
    let mut names = Names::new(by);
    read(&minutes, &mut |row| {
        if is_meant(row) {
            names.add(row);
        }
    })?;
    let mut plot = names.plot(step, most);
    read(&minutes, &mut |row| {
        if is_meant(row) {
            plot.add(row);
        }
    })?;
    Ok(plot.series().into_iter().map(SeriesRow::from).collect())
}

// === impl SeriesRow ===

impl From<Series> for SeriesRow {
    fn from(Series { who, points }: Series) -> Self {
        let (name, names) = match who {
            Who::Named(name) => (name, None),
            Who::Others(count) => (OTHERS.to_owned(), Some(u64::try_from(count).unwrap_or(u64::MAX))),
        };
        let point = |Point { start, totals }| PointRow { start: rfc3339(start), totals };
        Self { name, names, points: points.into_iter().map(point).collect() }
    }
}
