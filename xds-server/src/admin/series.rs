//! `/api/usage/series`: usage by hour or by day, for plots.

use axum::extract::{Query, State};
use serde::Serialize;
use tollgate_core::ledger::series::{By, MAX_SERIES, Step};

use super::api::{Problem, duration, unknown};
use super::{Admin, Json};
use crate::ledger::series::{SERIES, SeriesQuery, SeriesRow};

/// `{"step": "day", "series": [...]}`
#[derive(Serialize)]
pub(super) struct Plot {
    step: &'static str,
    series: Vec<SeriesRow>,
}

pub(super) async fn series(
    State(admin): State<Admin>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<Plot>, Problem> {
    let query = query(parameters)?;
    let step = match query.step {
        Step::Hour => "hour",
        Step::Day => "day",
    };
    Ok(Json(Plot { step, series: admin.ledger.series(query).await? }))
}

/// An empty value counts as absent.
fn query(parameters: Vec<(String, String)>) -> Result<SeriesQuery, Problem> {
    let mut query =
        SeriesQuery { by: By::Consumer, step: Step::Day, consumer: None, model: None, since: None, most: SERIES };
    for (field, value) in parameters {
        if value.is_empty() {
            continue;
        }
        match (field.as_str(), value.as_str()) {
            ("by", "consumer") => query.by = By::Consumer,
            ("by", "model") => query.by = By::Model,
            ("by", "backend") => query.by = By::Backend,
            ("by", _) => return Err(neither(field, &value, "consumer, model or backend")),
            ("step", "hour") => query.step = Step::Hour,
            ("step", "day") => query.step = Step::Day,
            ("step", _) => return Err(neither(field, &value, "hour or day")),
            ("consumer", _) => query.consumer = Some(value),
            ("model", _) => query.model = Some(value),
            ("since", _) => query.since = Some(duration(field, &value)?),
            ("limit", _) => match value.parse() {
                Ok(most @ 1..=MAX_SERIES) => query.most = most,
                _ => {
                    let message = "it is no number of series that one answer has".to_owned();
                    let hint = format!("use a number from 1 to {MAX_SERIES}; all that is not in these is in `other`");
                    return Err(Problem::Parameter { field, message, hint });
                }
            },
            _ => return Err(unknown(field, "by, step, consumer, model, since or limit")),
        }
    }
    // Of days there are as many as minutes are kept, whatever is asked for. Hours are there for longer than they are shown.
    if query.step == Step::Hour && query.since.is_some_and(|since| since > Step::Hour.longest()) {
        let message = "that is longer than hours are shown".to_owned();
        return Err(Problem::Parameter { field: "since".into(), message, hint: "use 14d at most, or step=day".into() });
    }
    Ok(query)
}

fn neither(field: String, value: &str, known: &str) -> Problem {
    let value: String = value.chars().take(64).collect();
    Problem::Parameter { field, message: format!("there is no {value:?} here"), hint: format!("use {known}") }
}
