//! `/api/*`: JSON for tools and for the page.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio_stream::StreamExt as _;
use tokio_util::io::ReaderStream;
use tollgate_core::status::ObjectStatus;

use super::{Admin, Json, Status, paging, since};
use crate::ledger::StoreError;
use crate::ledger::query::{BudgetRow, Listed, Page, UsageQuery, UsageRow};

const BACKUP_CHUNK: usize = 64 << 10;

/// `{"rows": [...]}`, and `next` if there are more rows.
#[derive(Serialize)]
pub(super) struct Rows<T> {
    rows: Vec<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Why a request cannot be answered.
#[derive(Debug)]
pub(super) enum Problem {
    /// This parameter has a value that means nothing.
    Parameter {
        field: String,
        message: String,
        hint: String,
    },
    NotFound,
    /// Whoever asks is not let in, or not now.
    Refused {
        status: StatusCode,
        message: &'static str,
        hint: &'static str,
    },
    Ledger(StoreError),
}

pub(super) async fn usage(
    State(admin): State<Admin>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<Rows<UsageRow>>, Problem> {
    Ok(Json(admin.ledger.usage(usage_query(parameters)?).await?.into()))
}

pub(super) async fn budgets(
    State(admin): State<Admin>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<Rows<BudgetRow>>, Problem> {
    let mut page = Page::default();
    for (field, value) in parameters {
        if !value.is_empty() && !paging::read(&mut page, &field, &value)? {
            return Err(unknown(field, "limit or continue"));
        }
    }
    Ok(Json(admin.ledger.budgets(page).await?.into()))
}

/// A copy of the books, as bytes. One is made at a time, because each needs room on the ledger's disk.
pub(super) async fn backup(State(admin): State<Admin>) -> Result<Response, Problem> {
    static ONE: Semaphore = Semaphore::const_new(1);
    let busy = || Problem::refused(StatusCode::SERVICE_UNAVAILABLE, "another copy is being made", "try again later");
    let turn = ONE.try_acquire().map_err(|_| busy())?;
    let file = admin.ledger.backup().await?;
    let size = file.metadata().map(|about| about.len()).unwrap_or_default();
    let bytes = ReaderStream::with_capacity(tokio::fs::File::from_std(file), BACKUP_CHUNK);
    // The file takes room until it is sent, or nobody wants it any more.
    let bytes = bytes.map(move |chunk| {
        let _until_the_end = &turn;
        chunk
    });
    let head = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"ledger.redb\"")),
        (header::CONTENT_LENGTH, HeaderValue::from(size)),
    ];
    Ok((head, Body::from_stream(bytes)).into_response())
}

/// The status of the control plane, and that of each object as `kubectl get -o json` would show it.
#[derive(Serialize)]
struct WithObjects<'a> {
    #[serde(flatten)]
    status: &'a Status,
    objects: Vec<ObjectStatus>,
}

/// `?objects=false` leaves the objects out.
pub(super) async fn status(
    State(admin): State<Admin>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let mut shows_objects = true;
    for (field, value) in parameters {
        match (field.as_str(), value.as_str()) {
            ("objects", "" | "true") => shows_objects = true,
            ("objects", "false") => shows_objects = false,
            ("objects", _) => {
                let message = format!("{value:?} is neither true nor false");
                return Err(Problem::Parameter { field, message, hint: "use objects=false to leave them out".into() });
            }
            _ => return Err(unknown(field, "objects")),
        }
    }
    let status = admin.status.borrow().clone();
    if !shows_objects {
        return Ok(Json(&*status).into_response());
    }
    // With many objects it takes a while.
    Ok(match tokio::task::spawn_blocking(move || admin.objects.statuses()).await {
        Ok(objects) => Json(WithObjects { status: &status, objects }).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    })
}

/// An empty value counts as absent: `?consumer=&model=&since=` asks for everything.
fn usage_query(parameters: Vec<(String, String)>) -> Result<UsageQuery, Problem> {
    let mut query = UsageQuery::default();
    for (field, value) in parameters {
        if value.is_empty() {
            continue;
        }
        match field.as_str() {
            "consumer" => query.consumer = Some(value),
            "model" => query.model = Some(value),
            "since" => query.since = Some(duration(field, &value)?),
            _ if paging::read(&mut query.page, &field, &value)? => {}
            _ => return Err(unknown(field, "consumer, model, since, limit or continue")),
        }
    }
    Ok(query)
}

pub(super) fn unknown(field: String, known: &str) -> Problem {
    Problem::Parameter { message: format!("there is no parameter {field:?}"), hint: format!("use {known}"), field }
}

pub(super) fn duration(field: String, value: &str) -> Result<Duration, Problem> {
    since::parse(value).map_err(|error| Problem::Parameter {
        field,
        message: error.to_string(),
        hint: "use numbers with s, m, h, d or w, for example 30m, 1h, 7d or 1h30m".into(),
    })
}

// === impl Rows ===

impl<T> From<Listed<T>> for Rows<T> {
    fn from(listed: Listed<T>) -> Self {
        Self { rows: listed.rows, next: listed.next.map(paging::token) }
    }
}

// === impl Problem ===

impl Problem {
    pub(super) fn not_found() -> Self {
        Self::NotFound
    }

    pub(super) fn refused(status: StatusCode, message: &'static str, hint: &'static str) -> Self {
        Self::Refused { status, message, hint }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::Ledger(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            error: Error,
        }
        #[derive(Serialize)]
        struct Error {
            #[serde(skip_serializing_if = "Option::is_none")]
            field: Option<String>,
            message: String,
            #[serde(skip_serializing_if = "String::is_empty")]
            hint: String,
        }
        let (status, error) = match self {
            Self::Parameter { field, message, hint } => {
                (StatusCode::BAD_REQUEST, Error { field: Some(field), message, hint })
            }
            Self::NotFound => {
                let hint = "there are /, /api/usage, /api/usage/series, /api/budgets, /api/status, /api/ledger/backup, /healthz, /readyz and /metrics";
                (StatusCode::NOT_FOUND, Error { field: None, message: "no such page".into(), hint: hint.into() })
            }
            Self::Refused { status, message, hint } => {
                (status, Error { field: None, message: message.into(), hint: hint.into() })
            }
            Self::Ledger(error) => {
                let message = error.to_string();
                (StatusCode::SERVICE_UNAVAILABLE, Error { field: None, message, hint: String::new() })
            }
        };
        (status, Json(Body { error })).into_response()
    }
}
