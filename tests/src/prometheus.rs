//! A real Prometheus with the rules of the chart, which scrapes what it is given. Debian's package `prometheus` has it.
#![allow(clippy::indexing_slicing, reason = "what JSON does not have is null")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;
use tokio::time::sleep;

/// How long a minute of the rules is here: `for: 5m` is two seconds, and `[10m]` four. The one place where the rules of a
/// test differ from those of the chart.
const MINUTE: Duration = Duration::from_millis(400);
/// How often it scrapes, and looks at the rules. A scrape may take as long, and one that fails on a slow machine makes no
/// alert fire: they wait for some.
const STEP: &str = "500ms";
/// Nothing in the rules looks back or waits for longer, in minutes.
const LONGEST: u32 = 15;
/// As that of all polls.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(100);

pub struct Prometheus {
    process: Child,
    url: String,
    _dir: tempfile::TempDir,
}

/// Whether this machine has Prometheus. Without it a test says SKIP.
pub fn is_here() -> bool {
    let is_here = Command::new("prometheus").arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_here {
        println!("SKIP: there is no prometheus in PATH (on Debian: apt-get install prometheus)");
    }
    is_here
}

/// The chart's file of that name.
pub fn of_chart(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/chart/files").join(name)
}

// === impl Prometheus ===

impl Prometheus {
    /// Scrapes `/metrics` of these addresses.
    pub async fn start(targets: &[&str]) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let rules = std::fs::read_to_string(of_chart("alerts.yaml"))?;
        std::fs::write(dir.path().join("alerts.yaml"), scaled(&rules))?;
        let configuration = serde_json::json!({
            "global": {"scrape_interval": STEP, "scrape_timeout": STEP, "evaluation_interval": STEP},
            "rule_files": ["alerts.yaml"],
            "scrape_configs": [{"job_name": "tollgate", "static_configs": [{"targets": targets}]}],
        });
        std::fs::write(dir.path().join("prometheus.yml"), configuration.to_string())?;
        let log = dir.path().join("log");
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log)?)
            .spawn()?;
        let mut prometheus = Self { process, url: String::new(), _dir: dir };
        let begun = Instant::now();
        prometheus.url = loop {
            let said = std::fs::read_to_string(&log)?;
            if let Some(address) = address_in(&said) {
                break format!("http://{address}");
            }
            anyhow::ensure!(begun.elapsed() < PATIENCE, "prometheus does not listen: {said}");
            sleep(LOOK).await;
        };
        while !prometheus.query("up == 1").await.is_ok_and(|found| found.len() == targets.len()) {
            anyhow::ensure!(begun.elapsed() < PATIENCE, "prometheus does not scrape {targets:?}");
            sleep(LOOK).await;
        }
        Ok(prometheus)
    }

    /// What it finds now.
    pub async fn query(&self, expression: &str) -> anyhow::Result<Vec<Value>> {
        let url = reqwest::Url::parse_with_params(&format!("{}/api/v1/query", self.url), [("query", expression)])?;
        let answer: Value = reqwest::get(url).await?.json().await?;
        anyhow::ensure!(answer["status"] == "success", "{expression}: {answer}");
        Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default())
    }

    /// The alerts that are pending or firing, by name.
    pub async fn alerts(&self) -> anyhow::Result<Vec<(String, String)>> {
        let answer: Value = reqwest::get(format!("{}/api/v1/rules", self.url)).await?.json().await?;
        let groups = answer["data"]["groups"].as_array().context("no groups")?;
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten());
        let mut alerts = Vec::new();
        for rule in rules {
            anyhow::ensure!(rule["health"] != "err", "{rule}");
            let text = |field: &str| rule[field].as_str().unwrap_or_default().to_owned();
            if text("state") != "inactive" {
                alerts.push((text("name"), text("state")));
            }
        }
        Ok(alerts)
    }

    /// Nothing of these fires, and nothing begins to in a time in which it would.
    pub async fn silent(&self, but: &[&str]) -> anyhow::Result<()> {
        sleep(MINUTE * LONGEST + Duration::from_secs(1)).await;
        let mut alerts = self.alerts().await?;
        alerts.retain(|(name, state)| state == "firing" && !but.contains(&name.as_str()));
        let firing = self.query("ALERTS").await?;
        anyhow::ensure!(alerts.is_empty(), "{alerts:?} fire without a fault: {firing:?}");
        Ok(())
    }

    /// Waits until this alert fires, and repeats `fault` meanwhile.
    pub async fn fires(&self, alert: &str, mut fault: impl AsyncFnMut()) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            fault().await;
            let alerts = self.alerts().await?;
            if alerts.iter().any(|(name, state)| name == alert && state == "firing") {
                return Ok(());
            }
            anyhow::ensure!(begun.elapsed() < PATIENCE, "{alert} does not fire: {alerts:?}");
            sleep(LOOK).await;
        }
    }

    /// Waits until this alert does not fire any more.
    pub async fn ends(&self, alert: &str, mut cure: impl AsyncFnMut()) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.alerts().await?.iter().any(|(name, _)| name == alert) {
            anyhow::ensure!(begun.elapsed() < PATIENCE, "{alert} goes on");
            cure().await;
            sleep(LOOK).await;
        }
        Ok(())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _status = self.process.wait();
    }
}

/// Where it listens, as its log says it.
fn address_in(log: &str) -> Option<&str> {
    let said = log.lines().find(|line| line.contains("\"Listening on\""))?;
    said.split_once("address=")?.1.split_whitespace().next()
}

/// The same rules with minutes of [`MINUTE`].
fn scaled(rules: &str) -> String {
    // What stands before a time in a rule.
    ["for: ", "[", "offset "].iter().fold(rules.to_owned(), |rules, before| {
        let mut parts = rules.split(before);
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |scaled, part| scaled + before + &starting_scaled(part))
    })
}

/// The same with another time where it begins with one.
fn starting_scaled(text: &str) -> String {
    let digits = text.chars().take_while(char::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    match (number.parse::<u32>(), rest.strip_prefix('m')) {
        (Ok(minutes), Some(rest)) => format!("{}ms{rest}", (MINUTE * minutes).as_millis()),
        _ => text.to_owned(),
    }
}

#[test]
fn a_minute_of_the_rules_is_shorter_and_nothing_else_changes() {
    let rules = "  for: 5m\n  expr: a[10m] unless a offset 15m) > 2m, [x], the offset of 3 m: 5m of b\n";
    let scaled_rules =
        "  for: 2000ms\n  expr: a[4000ms] unless a offset 6000ms) > 2m, [x], the offset of 3 m: 5m of b\n";
    assert_eq!(scaled(rules), scaled_rules);
}
