//! What the books of both control planes must say: of each row what the backends counted, and of each budget the sum of its
//! rows. What a killed proxy had leased is the one thing that a budget may have beyond.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context;
use serde_json::Value;
use tollgate_tests::admin::{BudgetRow, UsageRow};
use tollgate_tests::lab::PATIENCE;
use tollgate_tests::poll;
use tollgate_tests::soak::{self, Consumer};

use super::{PLACE, Run, objects};
use crate::replicas::{replicas, told};

/// What one request can use beyond what was reserved for it, and how many of `spends` run at once.
const BEYOND: u64 = 6 * 150;

/// A limit, and the consumer that it is of.
type Bucket = (String, Option<String>);

#[derive(Default)]
pub struct Books {
    /// Charged because a killed proxy's lease had ended.
    ended: BTreeMap<Bucket, u64>,
    /// At most so much may be charged so: what was leased when a proxy was killed.
    leased: BTreeMap<Bucket, u64>,
    table: String,
}

/// What both control planes say.
struct Told {
    rows: Vec<UsageRow>,
    budgets: BTreeMap<Bucket, BudgetRow>,
}

// === impl Books ===

impl Books {
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Notes what is leased. A proxy is about to be killed, or was a moment ago.
    pub async fn leased_before(&mut self, pod: &str) -> anyhow::Result<()> {
        for (bucket, budget) in budgets(told(pod, "budgets").await?)? {
            let most = self.leased.entry(bucket).or_default();
            *most = budget.leased.max(*most);
        }
        Ok(())
    }

    /// What is wrong with the budgets, and what of each was charged for leases that ended.
    fn judge(&self, told: &Told) -> Result<BTreeMap<Bucket, u64>, String> {
        let (mut ended, mut wrong) = (BTreeMap::new(), Vec::new());
        for (bucket, budget) in &told.budgets {
            let used = told.used(bucket);
            let before = self.ended.get(bucket).copied().unwrap_or(0);
            let most = before + self.leased.get(bucket).copied().unwrap_or(0);
            let beyond = budget.spent.checked_sub(used);
            let right = beyond.is_some_and(|beyond| (before..=most).contains(&beyond));
            if !right || budget.leased > 0 {
                wrong.push(format!(
                    "{bucket:?}: {} spent, {} leased; {used} in rows and {before} to {most} of leases that ended",
                    budget.spent, budget.leased
                ));
            }
            ended.insert(bucket.clone(), beyond.unwrap_or(0));
        }
        let little = told.budgets.iter().find(|((limit, _), _)| limit == "little").map_or(0, |(_, row)| row.spent);
        if little > objects::LITTLE + BEYOND {
            wrong.push(format!("{little} tokens of {} were spent", objects::LITTLE));
        }
        if wrong.is_empty() { Ok(ended) } else { Err(wrong.join("\n")) }
    }
}

// === impl Told ===

impl Told {
    /// The tokens of the rows that are charged to a bucket.
    fn used(&self, (limit, consumer): &Bucket) -> u64 {
        let charged = |row: &&UsageRow| match (limit.as_str(), consumer) {
            ("shared", _) => row.consumer != Consumer::Spends.name(),
            (_, Some(consumer)) => row.consumer == *consumer,
            (_, None) => false,
        };
        self.rows.iter().filter(charged).map(|row| row.input_tokens + row.output_tokens).sum()
    }
}

impl Run {
    /// Holds everybody until the books are complete, and compares.
    pub(super) async fn settled(&mut self, when: &str) -> anyhow::Result<()> {
        self.load.hold_all().await?;
        let (count, sent) = (self.backend.count(), self.load.sent());
        let (ended, table) = poll::within(PATIENCE, "the books are right", || async {
            let told = self.told().await?;
            let verdict = soak::books::compare(&Consumer::ALL, &told.rows, &count, &sent, &self.excused);
            anyhow::ensure!(verdict.wrong.is_empty(), "{}\n{}", verdict.wrong.join("\n"), verdict.table);
            let ended = self.books.judge(&told).map_err(anyhow::Error::msg)?;
            let table = verdict.table + &told.table(&ended);
            Ok((ended, table))
        })
        .await
        .with_context(|| when.to_owned())?;
        let more: u64 = ended.iter().map(|(bucket, now)| now - self.books.ended.get(bucket).unwrap_or(&0)).sum();
        let most: u64 = self.books.leased.values().sum();
        println!("          the books are right {when}; {more} tokens were charged for leases that ended, of {most}");
        self.books = Books { ended, leased: BTreeMap::new(), table };
        self.load.go_on();
        Ok(())
    }

    /// What both say alike.
    async fn told(&self) -> anyhow::Result<Told> {
        let mut all = Vec::new();
        for pod in replicas(&self.lab).await? {
            all.push((told(&pod, "usage").await?, told(&pod, "budgets").await?));
        }
        let (usage, found) = all.pop().context("there is no control plane")?;
        anyhow::ensure!(all.iter().all(|other| *other == (usage.clone(), found.clone())), "they differ");
        let mut rows: Vec<UsageRow> = serde_json::from_value(Value::Array(usage))?;
        rows.retain(|row| row.consumer.starts_with(&format!("{PLACE}/")));
        for row in &mut rows {
            row.consumer = short(&row.consumer);
            row.backend = short(&row.backend);
        }
        Ok(Told { rows, budgets: budgets(found)? })
    }
}

impl Told {
    fn table(&self, ended: &BTreeMap<Bucket, u64>) -> String {
        let mut text = String::new();
        for (bucket @ (limit, consumer), budget) in &self.budgets {
            let (name, beyond) = (consumer.as_deref().unwrap_or("all"), ended.get(bucket).unwrap_or(&0));
            let used = self.used(bucket);
            let _ = writeln!(
                text,
                "budget {limit:<7} of {name:<7} {:>10} spent = {used:>10} in rows + {beyond:>8} of leases that ended",
                budget.spent
            );
        }
        text
    }
}

/// Ours, with the windows of each put together: a run may pass midnight.
fn budgets(rows: Vec<Value>) -> anyhow::Result<BTreeMap<Bucket, BudgetRow>> {
    let mut all: BTreeMap<Bucket, BudgetRow> = BTreeMap::new();
    let rows: Vec<BudgetRow> = serde_json::from_value(Value::Array(rows))?;
    for row in rows.into_iter().filter(|row| row.policy.starts_with(&format!("{PLACE}/"))) {
        let consumer = row.scope.get("Consumer").and_then(Value::as_str).map(short);
        match all.entry((row.limit.clone(), consumer)) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(row);
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                entry.get_mut().spent += row.spent;
                entry.get_mut().leased += row.leased;
            }
        }
    }
    anyhow::ensure!(!all.is_empty(), "there are no budgets");
    Ok(all)
}

/// Without its namespace.
fn short(name: &str) -> String {
    name.strip_prefix(&format!("{PLACE}/")).unwrap_or(name).to_owned()
}
