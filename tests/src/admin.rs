//! The admin API's answers, by the names of the contract.

use anyhow::Context;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::poll;
use crate::usage::Usage;

#[derive(Clone, Debug)]
pub struct Admin {
    base: String,
    http: reqwest::Client,
    token: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Rows<T> {
    rows: Vec<T>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct UsageRow {
    pub consumer: String,
    pub route: String,
    pub model: String,
    pub backend: String,
    pub requests: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cached_input_tokens: u64,
    pub reasoning_tokens: u64,
    pub estimated_requests: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct BudgetRow {
    pub policy: String,
    pub limit: String,
    pub scope: serde_json::Value,
    pub window_start: serde_json::Value,
    pub tokens: u64,
    pub spent: u64,
    pub leased: u64,
}

// === impl UsageRow ===

impl UsageRow {
    pub fn usage(&self) -> Usage {
        Usage { input: self.input_tokens, output: self.output_tokens, cached: self.cached_input_tokens }
    }
}

// === impl Admin ===

impl Admin {
    pub fn new(port: u16) -> Self {
        Self { base: format!("http://127.0.0.1:{port}"), http: crate::client::direct(), token: None }
    }

    /// Shows this token with every question.
    pub fn with_token(self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self }
    }

    pub async fn text(&self, path: &str) -> anyhow::Result<String> {
        let mut get = self.http.get(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            get = get.bearer_auth(token);
        }
        let answer = get.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        anyhow::ensure!(status.is_success(), "GET {path}: {status}: {text}");
        Ok(text)
    }

    pub async fn json<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let text = self.text(path).await?;
        serde_json::from_str(&text).with_context(|| format!("GET {path} answered {text}"))
    }

    pub async fn status(&self) -> anyhow::Result<serde_json::Value> {
        self.json("/api/status").await
    }

    /// `query` as in `consumer=app`; empty: all rows.
    pub async fn usage(&self, query: &str) -> anyhow::Result<Vec<UsageRow>> {
        Ok(self.json::<Rows<UsageRow>>(&format!("/api/usage?{query}")).await?.rows)
    }

    pub async fn budgets(&self) -> anyhow::Result<Vec<BudgetRow>> {
        Ok(self.json::<Rows<BudgetRow>>("/api/budgets").await?.rows)
    }

    /// Waits until usage for this query is of so many requests, and gives the rows.
    pub async fn usage_of(&self, query: &str, requests: u64) -> anyhow::Result<Vec<UsageRow>> {
        poll::until(&format!("usage of {requests} requests ({query})"), || async {
            let rows = self.usage(query).await?;
            let found: u64 = rows.iter().map(|row| row.requests).sum();
            anyhow::ensure!(found == requests, "{found} requests in {rows:?}");
            Ok(rows)
        })
        .await
    }

    /// Waits until nothing is leased any more, and gives the budgets.
    pub async fn settled_budgets(&self) -> anyhow::Result<Vec<BudgetRow>> {
        poll::until("no tokens are leased", || async {
            let rows = self.budgets().await?;
            anyhow::ensure!(rows.iter().all(|row| row.leased == 0), "{rows:?}");
            Ok(rows)
        })
        .await
    }
}
