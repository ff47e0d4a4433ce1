//! The admin page in a real browser, by tests/python/page.py. The browser is the system's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::scripts;
use crate::tools::Tools;

/// Debian's name, and the one of others.
const NAMES: [&str; 2] = ["chromium", "chromium-browser"];

/// What a person has seen.
#[derive(Debug, Deserialize)]
pub struct Seen {
    /// The title that the address leads to at first.
    pub first_page: String,
    /// What was said of a wrong token.
    pub wrong_token: String,
    pub whole: Figures,
    /// Of one consumer, and the same when the page was opened again.
    pub filtered: Figures,
    pub reloaded: Figures,
    pub address: String,
    /// Requests are plotted, of seven days.
    pub requests: Figures,
    /// Each order of the table, with the figures that it is by.
    pub orders: Vec<(String, Vec<u64>)>,
    /// Of a bar, by the keyboard.
    pub read_out: String,
    /// By picture: so much of the page is beyond the window.
    pub wider: BTreeMap<String, i64>,
    pub hostile: Hostile,
    /// The title that the address leads to after logout.
    pub after: String,
    /// Errors and warnings of the console, with what the content policy refused.
    pub problems: Vec<String>,
    /// What axe says is hard to use.
    pub axe: Vec<Value>,
    /// Requests to others.
    pub foreign: Vec<String>,
}

/// What stands on the page.
#[derive(Debug, Deserialize)]
pub struct Figures {
    pub sums: BTreeMap<String, u64>,
    pub rows: Vec<Vec<String>>,
    /// The sum of all that is plotted.
    pub plotted: u64,
    pub bars: u64,
    pub legend: Vec<String>,
    pub budgets: String,
    pub gateways: String,
}

/// The page with HTML in the place of names.
#[derive(Debug, Deserialize)]
pub struct Hostile {
    pub title: String,
    pub images: u64,
    /// It is there as text, wherever consumers are named.
    pub shown: bool,
    pub models: String,
}

/// The browser, or what to tell whoever has none.
pub fn chromium() -> Result<PathBuf, &'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path);
    folders
        .find_map(|folder| NAMES.map(|name| folder.join(name)).into_iter().find(|program| program.is_file()))
        .ok_or("this machine lacks chromium, for the admin page: on Debian apt-get install chromium")
}

/// Runs the whole visit, and gives what a person would have seen.
pub async fn visit(tools: &Tools, job: &Value, log: &Path) -> anyhow::Result<Seen> {
    let output = scripts::run(tools, "page.py", job).await?;
    std::fs::write(log, &output)?;
    Ok(serde_json::from_slice(&output)?)
}
