//! Questions to the admin API of a running control plane.

use anyhow::Context as _;
use serde::de::DeserializeOwned;

/// Where the admin API is, unless the user says otherwise.
pub const DEFAULT: &str = "127.0.0.1:19000";

/// The answer of `GET path`.
pub async fn get<T: DeserializeOwned>(admin: &str, path: &str, query: &[(&str, &str)]) -> anyhow::Result<T> {
    let answer = answer(admin, path, query).await?;
    let url = answer.url().to_string();
    answer.json().await.with_context(|| format!("{url} is not the admin API of tollgate"))
}

/// The same, as it comes.
pub async fn answer(admin: &str, path: &str, query: &[(&str, &str)]) -> anyhow::Result<reqwest::Response> {
    let url = format!("http://{admin}{path}");
    let client = reqwest::Client::builder().no_proxy().build()?;
    let answer = client
        .get(&url)
        .query(query)
        .send()
        .await
        .with_context(|| format!("{url} does not answer (is tollgate running? --admin names its admin address)"))?;
    let status = answer.status();
    if !status.is_success() {
        anyhow::bail!("{url} answers {status}: {}", answer.text().await.unwrap_or_default().trim());
    }
    Ok(answer)
}

/// Asks until the answer is there.
pub fn block_on<T>(asking: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(asking)
}
