//! `tollgate usage`: the usage table of a running control plane, for people. `--by` sums it up by one name, or by time.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::ask::AdminApi;
use super::terminal::{self, Side, inert, inert_json};
use super::{Outcome, ask, print};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tollgate usage
  tollgate usage --consumer alice --since 24h -o json
  tollgate usage --by day --since 30d --admin https://tollgate.example/admin/ --admin-token-file token")]
pub struct Args {
    /// Only this Consumer
    #[arg(long, value_name = "NAME")]
    consumer: Option<String>,
    /// Only this model
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Only as far back as this. By hour 14d at most, and by day 90d
    #[arg(long, value_name = "DURATION")]
    since: Option<String>,
    /// Sum up by this. Hours and days are those of UTC
    #[arg(long, value_enum)]
    by: Option<By>,
    #[command(flatten)]
    api: AdminApi,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Consumer,
    Model,
    Hour,
    Day,
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
const NOTHING: &str = "no usage\n";

/// A row as `GET /api/usage` answers it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Row {
    consumer: String,
    route: String,
    model: String,
    backend: String,
    #[serde(flatten)]
    totals: Totals,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Totals {
    requests: u64,
    input_tokens: u64,
    output_tokens: u64,
    cached_input_tokens: u64,
    reasoning_tokens: u64,
    estimated_requests: u64,
}

/// An answer of `GET /api/usage/series`.
#[derive(Debug, Deserialize)]
struct Plot {
    series: Vec<Series>,
}

#[derive(Debug, Deserialize)]
struct Series {
    points: Vec<Point>,
}

#[derive(Debug, Deserialize)]
struct Point {
    start: String,
    #[serde(flatten)]
    totals: Totals,
}

/// Sums by one thing, in its order.
#[derive(Debug)]
struct Sums {
    by: By,
    rows: BTreeMap<String, Totals>,
}

pub fn main(args: &Args) -> anyhow::Result<Outcome> {
    let (json, table) = match args.by {
        None => {
            let usage = ask::block_on(args.usage())?;
            (serde_json::to_string_pretty(&usage)?, table(&usage.rows))
        }
        Some(by) => {
            let sums = ask::block_on(args.sums(by))?;
            (serde_json::to_string_pretty(&sums.json())?, sums.table())
        }
    };
    match args.output {
        Output::Json => print(&(inert_json(&json) + "\n")),
        Output::Table => print(&table),
    }
    Ok(Outcome::Good)
}

// === impl Args ===

impl Args {
    fn filters(&self) -> Vec<(&str, &str)> {
        let given = [("consumer", &self.consumer), ("model", &self.model), ("since", &self.since)];
        given.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }

    async fn usage(&self) -> anyhow::Result<Usage> {
        let mut all = Usage::default();
        // If it is empty, the first rows are asked for.
        let mut next = String::new();
        loop {
            let query = [self.filters().as_slice(), &[("limit", PAGE), ("continue", &next)]].concat();
            let page: Usage = self.api.get("api/usage", &query).await?;
            all.rows.extend(page.rows);
            match page.next {
                Some(after) if after != next => next = after,
                _ => return Ok(all),
            }
        }
    }

    async fn sums(&self, by: By) -> anyhow::Result<Sums> {
        let mut rows: BTreeMap<String, Totals> = BTreeMap::new();
        let step = match by {
            By::Hour => "hour",
            By::Day => "day",
            By::Consumer | By::Model => {
                for row in self.usage().await?.rows {
                    let name = if by == By::Consumer { row.consumer } else { row.model };
                    rows.entry(name).or_default().add(row.totals);
                }
                return Ok(Sums { by, rows });
            }
        };
        // All series together are everything, however few there are.
        let query = [self.filters().as_slice(), &[("step", step), ("limit", "1")]].concat();
        let plot: Plot = self.api.get("api/usage/series", &query).await?;
        for point in plot.series.into_iter().flat_map(|series| series.points) {
            rows.entry(point.start).or_default().add(point.totals);
        }
        Ok(Sums { by, rows })
    }
}

// === impl Sums ===

impl Sums {
    /// Rows as those of the API, with the one thing that they are by.
    fn json(&self) -> serde_json::Value {
        let field = match self.by {
            By::Consumer => "consumer",
            By::Model => "model",
            By::Hour | By::Day => "start",
        };
        let rows = self.rows.iter().map(|(name, totals)| {
            let mut row = serde_json::json!(totals);
            if let Some(fields) = row.as_object_mut() {
                fields.insert(field.to_owned(), name.as_str().into());
            }
            row
        });
        serde_json::json!({"rows": rows.collect::<Vec<_>>()})
    }

    fn table(&self) -> String {
        const FIGURES: [&str; 6] = ["REQUESTS", "INPUT", "OUTPUT", "CACHED", "REASONING", "ESTIMATED"];
        if self.rows.is_empty() {
            return NOTHING.to_owned();
        }
        let head = match self.by {
            By::Consumer => "CONSUMER",
            By::Model => "MODEL",
            By::Hour => "HOUR (UTC)",
            By::Day => "DAY (UTC)",
        };
        let mut sum = Totals::default();
        self.rows.values().for_each(|totals| sum.add(*totals));
        let line = |name: String, [a, b, c, d, e, f]: [String; 6]| [name, a, b, c, d, e, f];
        let mut lines = vec![line(head.to_owned(), FIGURES.map(str::to_owned))];
        lines.extend(self.rows.iter().map(|(name, totals)| line(inert(self.said(name)), totals.cells())));
        lines.push(line("TOTAL".to_owned(), sum.cells()));
        let mut sides = [Side::Right; 7];
        if let Some(first) = sides.first_mut() {
            *first = Side::Left;
        }
        terminal::table(&lines, sides)
    }

    /// A time as short as it can be said.
    fn said<'a>(&self, name: &'a str) -> &'a str {
        match self.by {
            By::Consumer | By::Model => name,
            By::Hour => name.strip_suffix(":00Z").unwrap_or(name),
            By::Day => name.strip_suffix("T00:00:00Z").unwrap_or(name),
        }
    }
}

/// A table of the rows: numbers to the right, a line of sums.
fn table(rows: &[Row]) -> String {
    const HEAD: [&str; 10] =
        ["CONSUMER", "ROUTE", "MODEL", "BACKEND", "REQUESTS", "INPUT", "OUTPUT", "CACHED", "REASONING", "ESTIMATED"];
    const TEXTS: usize = 4;
    if rows.is_empty() {
        return NOTHING.to_owned();
    }
    let mut sum = Row { consumer: "TOTAL".to_owned(), ..Row::default() };
    rows.iter().for_each(|row| sum.totals.add(row.totals));
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(rows.iter().chain([&sum]).map(Row::cells));
    let mut sides = [Side::Right; HEAD.len()];
    sides.iter_mut().take(TEXTS).for_each(|side| *side = Side::Left);
    terminal::table(&lines, sides)
}

// === impl Row ===

impl Row {
    fn cells(&self) -> [String; 10] {
        let [requests, input, output, cached, reasoning, estimated] = self.totals.cells();
        let [consumer, route, model, backend] =
            [&self.consumer, &self.route, &self.model, &self.backend].map(|name| inert(name));
        [consumer, route, model, backend, requests, input, output, cached, reasoning, estimated]
    }
}

// === impl Totals ===

impl Totals {
    fn add(&mut self, more: Self) {
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.requests, more.requests);
        add(&mut self.input_tokens, more.input_tokens);
        add(&mut self.output_tokens, more.output_tokens);
        add(&mut self.cached_input_tokens, more.cached_input_tokens);
        add(&mut self.reasoning_tokens, more.reasoning_tokens);
        add(&mut self.estimated_requests, more.estimated_requests);
    }

    fn cells(&self) -> [String; 6] {
        let Self { requests, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens, estimated_requests } =
            self;
        [requests, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens, estimated_requests]
            .map(u64::to_string)
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
            totals: Totals { requests, ..Totals::default() },
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
    fn sums_by_day_say_the_day_and_end_with_their_total() {
        let totals = Totals { requests: 2, input_tokens: 30, ..Totals::default() };
        let days = ["2026-11-29T00:00:00Z", "2026-11-30T00:00:00Z"];
        let rows: BTreeMap<String, Totals> = days.map(|day| (day.to_owned(), totals)).into();
        let sums = Sums { by: By::Day, rows: rows.clone() };
        let text = sums.table();
        assert!(text.starts_with("DAY (UTC)") && text.contains("\n2026-11-30 "), "{text}");
        assert!(text.lines().last().unwrap().starts_with("TOTAL") && text.contains(" 60 "), "{text}");
        assert_eq!(sums.json().pointer("/rows/1/start").unwrap(), days[1]);
        assert_eq!(Sums { by: By::Model, rows: BTreeMap::new() }.table(), NOTHING);
        let text = Sums { by: By::Consumer, rows: [("a\u{1b}[2J".to_owned(), totals)].into() }.table();
        assert!(!text.contains('\u{1b}'), "{text:?}");
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
