//! `tollgate usage`: the usage table of a running control plane, for people.

use anyhow::Context as _;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{Outcome, print};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tollgate usage
  tollgate usage --consumer alice --since 24h -o json")]
pub struct Args {
    /// Only this Consumer
    #[arg(long, value_name = "NAME")]
    consumer: Option<String>,
    /// Only this model
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Only as far back as this
    #[arg(long, value_name = "DURATION")]
    since: Option<String>,
    /// Where the control plane's admin API is
    #[arg(long, default_value = "127.0.0.1:19000", value_name = "IP:PORT")]
    admin: String,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Debug, Serialize, Deserialize)]
struct Usage {
    rows: Vec<Row>,
}

/// As `GET /api/usage` answers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Row {
    consumer: String,
    route: String,
    model: String,
    backend: String,
    requests: u64,
    input_tokens: u64,
    output_tokens: u64,
    cached_input_tokens: u64,
    reasoning_tokens: u64,
    estimated_requests: u64,
}

pub fn main(args: Args) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let output = args.output;
    let usage = runtime.block_on(ask(args))?;
    match output {
        Output::Json => print(&format!("{}\n", serde_json::to_string_pretty(&usage)?)),
        Output::Table => print(&table(&usage.rows)),
    }
    Ok(Outcome::Good)
}

async fn ask(args: Args) -> anyhow::Result<Usage> {
    let query: Vec<(&str, String)> = [("consumer", args.consumer), ("model", args.model), ("since", args.since)]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://{}/api/usage", args.admin);
    let answer = client
        .get(&url)
        .query(&query)
        .send()
        .await
        .with_context(|| format!("{url} does not answer (is tollgate running? --admin names its admin address)"))?;
    let status = answer.status();
    if !status.is_success() {
        anyhow::bail!("{url} answers {status}: {}", answer.text().await.unwrap_or_default().trim());
    }
    answer.json().await.with_context(|| format!("{url} is not the admin API of tollgate"))
}

/// Columns as wide as their widest cell, numbers to the right, a line of sums.
fn table(rows: &[Row]) -> String {
    const HEAD: [&str; 10] =
        ["CONSUMER", "ROUTE", "MODEL", "BACKEND", "REQUESTS", "INPUT", "OUTPUT", "CACHED", "REASONING", "ESTIMATED"];
    const TEXTS: usize = 4;
    if rows.is_empty() {
        return "no usage\n".to_owned();
    }
    let mut sum = Row { consumer: "TOTAL".to_owned(), ..Row::default() };
    for row in rows {
        sum.requests += row.requests;
        sum.input_tokens += row.input_tokens;
        sum.output_tokens += row.output_tokens;
        sum.cached_input_tokens += row.cached_input_tokens;
        sum.reasoning_tokens += row.reasoning_tokens;
        sum.estimated_requests += row.estimated_requests;
    }
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(rows.iter().chain([&sum]).map(Row::cells));
    let mut widths = [0; HEAD.len()];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            if column < TEXTS { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

// === impl Row ===

impl Row {
    fn cells(&self) -> [String; 10] {
        [
            self.consumer.clone(),
            self.route.clone(),
            self.model.clone(),
            self.backend.clone(),
            self.requests.to_string(),
            self.input_tokens.to_string(),
            self.output_tokens.to_string(),
            self.cached_input_tokens.to_string(),
            self.reasoning_tokens.to_string(),
            self.estimated_requests.to_string(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_with_sums() {
        let row = |consumer: &str, requests| Row {
            consumer: consumer.to_owned(),
            route: "chat".to_owned(),
            model: "smol".to_owned(),
            backend: "a".to_owned(),
            requests,
            ..Row::default()
        };
        let text = table(&[row("alice", 2), row("bob", 40)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[3].starts_with("TOTAL") && lines[3].contains(" 42 "), "{text}");
        assert_eq!(table(&[]), "no usage\n");
    }
}
