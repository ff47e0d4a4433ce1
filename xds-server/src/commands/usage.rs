//! `tollgate usage`: the usage table of a running control plane, for people.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::terminal::{self, Side, inert, inert_json};
use super::{Outcome, ask, print};

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
    #[arg(long, default_value = ask::DEFAULT, value_name = "IP:PORT")]
    admin: String,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// One page of the table, or all pages together.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Usage {
    rows: Vec<Row>,
    #[serde(default, skip_serializing)]
    next: Option<String>,
}

/// The number of rows that are asked for at once. It is the most that an answer has.
const PAGE: &str = "10000";

/// A row as `GET /api/usage` answers it.
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
    let output = args.output;
    let usage = ask::block_on(asked(args))?;
    match output {
        Output::Json => print(&(inert_json(&serde_json::to_string_pretty(&usage)?) + "\n")),
        Output::Table => print(&table(&usage.rows)),
    }
    Ok(Outcome::Good)
}

async fn asked(args: Args) -> anyhow::Result<Usage> {
    let given = [("consumer", &args.consumer), ("model", &args.model), ("since", &args.since)];
    let given: Vec<(&str, &str)> =
        given.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect();
    let mut all = Usage::default();
    // If it is empty, the first rows are asked for.
    let mut next = String::new();
    loop {
        let query = [given.as_slice(), &[("limit", PAGE), ("continue", &next)]].concat();
        let page: Usage = ask::get(&args.admin, "/api/usage", &query).await?;
        all.rows.extend(page.rows);
        match page.next {
            Some(after) if after != next => next = after,
            _ => return Ok(all),
        }
    }
}

/// A table of the rows: numbers to the right, a line of sums.
fn table(rows: &[Row]) -> String {
    const HEAD: [&str; 10] =
        ["CONSUMER", "ROUTE", "MODEL", "BACKEND", "REQUESTS", "INPUT", "OUTPUT", "CACHED", "REASONING", "ESTIMATED"];
    const TEXTS: usize = 4;
    if rows.is_empty() {
        return "no usage\n".to_owned();
    }
    let mut sum = Row { consumer: "TOTAL".to_owned(), ..Row::default() };
    for row in rows {
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut sum.requests, row.requests);
        add(&mut sum.input_tokens, row.input_tokens);
        add(&mut sum.output_tokens, row.output_tokens);
        add(&mut sum.cached_input_tokens, row.cached_input_tokens);
        add(&mut sum.reasoning_tokens, row.reasoning_tokens);
        add(&mut sum.estimated_requests, row.estimated_requests);
    }
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(rows.iter().chain([&sum]).map(Row::cells));
    let mut sides = [Side::Right; HEAD.len()];
    sides.iter_mut().take(TEXTS).for_each(|side| *side = Side::Left);
    terminal::table(&lines, sides)
}

// === impl Row ===

impl Row {
    fn cells(&self) -> [String; 10] {
        [
            inert(&self.consumer),
            inert(&self.route),
            inert(&self.model),
            inert(&self.backend),
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
        let text = table(&[row("alice", u64::MAX), row("bob", 2)]);
        assert!(text.contains(&u64::MAX.to_string()), "sums end at the top: {text}");
    }

    #[test]
    fn names_do_nothing_to_a_terminal() {
        let model = "gpt-\u{1b}[2J\r\n\u{9b}31m\u{202e}4";
        let row = Row { model: model.to_owned(), ..Row::default() };
        let text = table(std::slice::from_ref(&row));
        assert_eq!(text.lines().count(), 3);
        assert!(!text.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{text:?}");
        assert!(text.contains("gpt-\\u{1b}[2J\\r\\n\\u{9b}31m\\u{202e}4"), "{text}");
        let json = inert_json(&serde_json::to_string_pretty(&row).unwrap());
        assert!(!json.chars().any(|c| c != '\n' && c.is_control()));
        assert_eq!(serde_json::from_str::<Row>(&json).unwrap().model, model);
    }
}
