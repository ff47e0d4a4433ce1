//! Usage over time between replicas, there and back.

use std::time::Duration;

use tollgate_core::ledger::series::{By, MAX_SERIES, Step};
use tollgate_core::ledger::usage::Totals;
use tollgate_proto::replica as wire;
use tollgate_proto::replica::series_query as asked;

use crate::ledger::series::{PointRow, SeriesQuery, SeriesRow};

pub fn query(query: SeriesQuery) -> wire::SeriesQuery {
    let SeriesQuery { by, step, consumer, model, since, most } = query;
    let by = match by {
        By::Consumer => asked::By::Consumer,
        By::Model => asked::By::Model,
        By::Backend => asked::By::Backend,
    };
    let step = match step {
        Step::Hour => asked::Step::Hour,
        Step::Day => asked::Step::Day,
    };
    wire::SeriesQuery {
        by: by.into(),
        step: step.into(),
        consumer,
        model,
        since: since.map(|since| since.as_secs()),
        most: u32::try_from(most).unwrap_or(u32::MAX),
    }
}

pub fn query_of(query: wire::SeriesQuery) -> SeriesQuery {
    let by = match query.by() {
        asked::By::Consumer => By::Consumer,
        asked::By::Model => By::Model,
        asked::By::Backend => By::Backend,
    };
    let step = match query.step() {
        asked::Step::Hour => Step::Hour,
        asked::Step::Day => Step::Day,
    };
    let wire::SeriesQuery { consumer, model, since, most, .. } = query;
    let most = usize::try_from(most).unwrap_or(MAX_SERIES).min(MAX_SERIES);
    SeriesQuery { by, step, consumer, model, since: since.map(Duration::from_secs), most }
}

pub fn rows(plot: wire::Plot) -> Vec<SeriesRow> {
    let point = |point: wire::Point| PointRow {
        start: point.start,
        totals: Totals {
            requests: point.requests,
            input_tokens: point.input_tokens,
            output_tokens: point.output_tokens,
            cached_input_tokens: point.cached_input_tokens,
            reasoning_tokens: point.reasoning_tokens,
            estimated_requests: point.estimated_requests,
        },
    };
    let row = |series: wire::Series| SeriesRow {
        name: series.name,
        names: series.names,
        points: series.points.into_iter().map(point).collect(),
    };
    plot.series.into_iter().map(row).collect()
}

pub fn of_rows(rows: Vec<SeriesRow>) -> wire::Plot {
    let point = |PointRow { start, totals }| wire::Point {
        start,
        requests: totals.requests,
        input_tokens: totals.input_tokens,
        output_tokens: totals.output_tokens,
        cached_input_tokens: totals.cached_input_tokens,
        reasoning_tokens: totals.reasoning_tokens,
        estimated_requests: totals.estimated_requests,
    };
    let series = |SeriesRow { name, names, points }| wire::Series {
        name,
        names,
        points: points.into_iter().map(point).collect(),
    };
    wire::Plot { series: rows.into_iter().map(series).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_plots_arrive_as_they_were() {
        for by in [By::Consumer, By::Model, By::Backend] {
            for step in [Step::Hour, Step::Day] {
                let since = Some(Duration::from_secs(60));
                let asked = SeriesQuery { by, step, consumer: Some("app".into()), model: None, since, most: 7 };
                assert_eq!(query_of(query(asked.clone())), asked);
            }
        }
        let totals = Totals {
            requests: 1,
            input_tokens: 2,
            output_tokens: 3,
            cached_input_tokens: 4,
            reasoning_tokens: 5,
            estimated_requests: 6,
        };
        let points = vec![PointRow { start: "2026-11-30T00:00:00Z".into(), totals }];
        let plot = vec![
            SeriesRow { name: "app".into(), names: None, points },
            SeriesRow { name: "other".into(), names: Some(2), points: vec![] },
        ];
        assert_eq!(rows(of_rows(plot.clone())), plot);
    }

    #[test]
    fn nobody_gets_more_series_than_one_answer_has() {
        assert_eq!(query_of(wire::SeriesQuery { most: u32::MAX, ..wire::SeriesQuery::default() }).most, MAX_SERIES);
    }
}
