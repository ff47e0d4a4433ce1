//! Long lists come in pages. A request may have `limit` and `continue`, and its answer has `next` if there is more.
//!
//! `next` names the last row of a page, so pages neither repeat nor skip rows that were there all the time.

use super::api::Problem;
use crate::ledger::query::{MAX_ROWS, Page};

/// Reads one parameter into `page`. Returns false if the parameter has nothing to do with paging.
pub(super) fn read(page: &mut Page, field: &str, value: &str) -> Result<bool, Problem> {
    let problem = |message: String, hint: String| Problem::Parameter { field: field.to_owned(), message, hint };
    match field {
        "limit" => match value.parse() {
            Ok(limit @ 1..=MAX_ROWS) => page.limit = limit,
            _ => {
                let hint = format!("use a number from 1 to {MAX_ROWS}, and continue with the answer's `next` for more");
                return Err(problem("it is no number of rows that one answer has".into(), hint));
            }
        },
        "continue" => match from_token(value) {
            Some(after) => page.after = Some(after),
            None => {
                let hint = "use `next` of an answer as it is, or leave it out for the first page";
                return Err(problem("no answer has given this out".into(), hint.into()));
            }
        },
        _ => return Ok(false),
    }
    Ok(true)
}

pub(super) fn token(after: Vec<String>) -> String {
    hex::encode(serde_json::Value::from(after).to_string())
}

fn from_token(token: &str) -> Option<Vec<String>> {
    serde_json::from_slice(&hex::decode(token).ok()?).ok()
}
