//! What the control plane of a lab has in its books.

use serde_json::{Value, json};

use super::Lab;
use super::install::NAMESPACE;
use crate::poll;

/// The Pod that is asked where it does not matter which.
const ANY: &str = "deploy/tollgate";

/// What is in the books of this consumer, once it is of so many requests.
pub async fn rows(lab: &Lab, consumer: &str, requests: u64) -> anyhow::Result<Vec<Value>> {
    poll::until("what was used is in the books", || async {
        let own = as_told(lab, ANY, consumer).await?;
        let found: u64 = own.iter().filter_map(|row| row.get("requests")?.as_u64()).sum();
        anyhow::ensure!(found == requests, "{found} requests, not {requests}: {own:?}");
        Ok(own)
    })
    .await
}

/// What is in the books of a consumer, as this Pod of the control plane tells it.
pub async fn as_told(lab: &Lab, pod: &str, consumer: &str) -> anyhow::Result<Vec<Value>> {
    let usage = admin(lab, pod, "usage").await?;
    let rows = usage.get("rows").and_then(Value::as_array).into_iter().flatten();
    Ok(rows.filter(|row| row.get("consumer") == Some(&json!(consumer))).cloned().collect())
}

/// The tokens of these rows.
pub fn tokens(rows: &[Value]) -> u64 {
    let count = |row: &Value, name: &str| row.get(name).and_then(Value::as_u64).unwrap_or(0);
    rows.iter().map(|row| count(row, "input_tokens") + count(row, "output_tokens")).sum()
}

/// What this consumer has spent of its budgets, by their policies.
pub async fn spent(lab: &Lab, consumer: &str) -> anyhow::Result<Vec<(String, u64)>> {
    let found = admin(lab, ANY, "budgets").await?;
    let rows = found.get("rows").and_then(Value::as_array).into_iter().flatten();
    let own = rows.filter(|row| row.pointer("/scope/Consumer") == Some(&json!(consumer)));
    let mut spent: Vec<_> =
        own.filter_map(|row| Some((row.get("policy")?.as_str()?.to_owned(), row.get("spent")?.as_u64()?))).collect();
    spent.sort();
    Ok(spent)
}

/// What the admin API of a Pod has under this name.
async fn admin(lab: &Lab, pod: &str, name: &str) -> anyhow::Result<Value> {
    let url = format!("http://127.0.0.1:19000/api/{name}");
    let exec = ["-n", NAMESPACE, "exec", pod, "-c", "tollgate", "--", "curl", "-sf", &url];
    Ok(serde_json::from_str(&lab.kubectl(&exec).await?.success()?.out)?)
}
