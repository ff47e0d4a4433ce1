//! The admin page: a person logs in with a real browser, and sees what the API says.

use std::sync::Arc;

use anyhow::Context;
use serde_json::{Value, json};
use tollgate_tests::admin::UsageRow;
use tollgate_tests::browser::Figures;
use tollgate_tests::cli::tollgate;
use tollgate_tests::config::{self, Target};
use tollgate_tests::{browser, poll};

use crate::fixtures::{BACKEND_MODEL, Basic, models_with};
use crate::suite::{Shared, e2e};

e2e! {
    a_person_sees_in_a_browser_what_the_api_says,
    commands_show_the_token_of_the_admin_port,
}

const TOKEN: &str = "words-that-open-the-admin-port";
const OTHER_KEY: &str = "the-key-of-the-consumer-other";
/// A name that a client makes up. It does something if it is ever read as HTML.
const HOSTILE: &str = "new-<img src=x onerror=alert(1)>";

async fn start(shared: &Shared, test: &str) -> anyhow::Result<Basic> {
    Basic::start_with(shared, test, |setup, tap| {
        let target = &[Target::new("runner").model(BACKEND_MODEL)][..];
        let models = models_with(tap, "Required", &[("smol", target, None), ("new-*", target, None)]);
        setup
            .file("models.yaml", &models)?
            .file("other.yaml", &config::consumer("other", OTHER_KEY, ""))?
            .file("budget.yaml", &config::budget(200, ""))?
            .admin_token(TOKEN)
    })
    .await
}

/// Two consumers ask two models.
async fn ask(basic: &Basic) -> anyhow::Result<Vec<UsageRow>> {
    for _ in 0..3 {
        basic.client().chat("smol").await?.expect(200)?;
    }
    basic.client().chat(HOSTILE).await?.expect(200)?;
    basic.gateway.client(OTHER_KEY).chat("smol").await?.expect(200)?;
    basic.gateway.admin().settled_budgets().await?;
    basic.gateway.admin().usage_of("since=24h", 5).await
}

async fn a_person_sees_in_a_browser_what_the_api_says(shared: Arc<Shared>) -> anyhow::Result<()> {
    let chromium = browser::chromium().map_err(anyhow::Error::msg)?;
    let basic = start(&shared, "a_person_sees_in_a_browser_what_the_api_says").await?;
    let rows = ask(&basic).await?;
    let home = basic.gateway.home();
    let job = json!({
        "chromium": chromium,
        "url": format!("http://127.0.0.1:{}/", basic.gateway.admin_port()),
        "token": TOKEN,
        "pictures": home,
        "consumer": "app",
    });
    let seen = browser::visit(&shared.tools, &job, &home.join("seen.json")).await?;

    anyhow::ensure!(seen.first_page == "Tollgate: log in" && seen.after == seen.first_page, "{seen:?}");
    anyhow::ensure!(seen.wrong_token.contains("not the token"), "{}", seen.wrong_token);
    agrees(&seen.whole, &rows)?;
    let of_app: Vec<UsageRow> = rows.iter().filter(|row| row.consumer == "app").cloned().collect();
    agrees(&seen.filtered, &of_app)?;
    agrees(&seen.reloaded, &of_app).context("opened again")?;
    anyhow::ensure!(seen.address.contains("consumer=app"), "{}", seen.address);
    let requests: u64 = rows.iter().map(|row| row.requests).sum();
    anyhow::ensure!(seen.requests.plotted == requests, "{:?}", seen.requests);
    sorts(&seen.orders)?;
    anyhow::ensure!(seen.read_out.contains(" tokens"), "{}", seen.read_out);

    let budgets = &seen.whole.budgets;
    for row in basic.gateway.admin().budgets().await? {
        anyhow::ensure!(budgets.contains(&row.spent.to_string()), "{row:?} is not in {budgets}");
    }
    anyhow::ensure!(budgets.contains("over 80 %"), "nobody is near the end of a budget in {budgets}");
    let gateways = &seen.whole.gateways;
    anyhow::ensure!(gateways.contains("default/llm") && gateways.contains("up to date"), "{gateways}");

    let hostile = &seen.hostile;
    anyhow::ensure!(hostile.title == "Tollgate" && hostile.images == 0 && hostile.shown, "{hostile:?}");
    anyhow::ensure!(hostile.models.contains(HOSTILE), "{hostile:?}");
    anyhow::ensure!(seen.problems.is_empty() && seen.foreign.is_empty(), "{:?}, {:?}", seen.problems, seen.foreign);
    anyhow::ensure!(seen.axe.is_empty(), "{:?}", seen.axe);
    anyhow::ensure!(seen.wider.len() == 3 && seen.wider.values().all(|wider| *wider == 0), "{:?}", seen.wider);
    Ok(())
}

/// The sums, the table, the plot and its legend are those of the rows.
fn agrees(figures: &Figures, rows: &[UsageRow]) -> anyhow::Result<()> {
    let sum = |field: &dyn Fn(&UsageRow) -> u64| rows.iter().map(field).sum::<u64>();
    let tokens = sum(&|row| row.input_tokens + row.output_tokens);
    for (field, expected) in [
        ("tokens", tokens),
        ("requests", sum(&|row| row.requests)),
        ("input_tokens", sum(&|row| row.input_tokens)),
        ("output_tokens", sum(&|row| row.output_tokens)),
    ] {
        anyhow::ensure!(figures.sums.get(field) == Some(&expected), "{field} is not {expected} in {figures:?}");
    }
    anyhow::ensure!(figures.plotted == tokens && figures.bars > 0, "{tokens} are not plotted in {figures:?}");
    anyhow::ensure!(figures.rows.len() == rows.len(), "{figures:?} are not {rows:?}");
    for row in rows {
        let is_there = |line: &&Vec<String>| {
            let says = |text: &str| line.iter().any(|cell| cell.contains(text));
            says(&row.consumer) && says(&row.model) && says(&row.input_tokens.to_string())
        };
        anyhow::ensure!(figures.rows.iter().any(|line| is_there(&line)), "{row:?} is not in {figures:?}");
        anyhow::ensure!(figures.legend.iter().any(|name| name.contains(&row.consumer)), "{:?}", figures.legend);
    }
    Ok(())
}

/// First the most, then the least.
fn sorts(orders: &[(String, Vec<u64>)]) -> anyhow::Result<()> {
    let [(first, most), (second, least)] = orders else { anyhow::bail!("{orders:?}") };
    anyhow::ensure!(first == "descending" && second == "ascending" && most.len() == 3, "{orders:?}");
    anyhow::ensure!(most.is_sorted_by(|one, next| one >= next) && least.is_sorted(), "{orders:?}");
    Ok(())
}

async fn commands_show_the_token_of_the_admin_port(shared: Arc<Shared>) -> anyhow::Result<()> {
    let basic = start(&shared, "commands_show_the_token_of_the_admin_port").await?;
    let rows = ask(&basic).await?;
    let file = basic.gateway.home().join("admin-token").display().to_string();
    let admin = format!("http://localhost:{}/", basic.gateway.admin_port());
    let run = |arguments: &[&str]| tollgate(&shared.tools, &[arguments, &["--admin", &admin]].concat());

    let without = run(&["usage"])?;
    anyhow::ensure!(without.code == Some(2) && without.all().contains("--admin-token-file"), "{without:?}");
    let wrong = basic.gateway.home().join("wrong-token");
    std::fs::write(&wrong, "words-that-open-nothing")?;
    let refused = run(&["status", "--admin-token-file", &wrong.display().to_string()])?;
    anyhow::ensure!(refused.all().contains("does not take this token"), "{refused:?}");
    anyhow::ensure!(!refused.all().contains("words-that-open"), "{refused:?}");
    run(&["status", "--admin-token-file", &file])?.success()?;

    let tokens: u64 = rows.iter().map(|row| row.input_tokens).sum();
    for by in ["consumer", "model", "hour", "day"] {
        let arguments = ["usage", "--by", by, "--since", "24h", "--admin-token-file", &file];
        let json = run(&[&arguments[..], &["-o", "json"]].concat())?.success()?;
        let said: Value = serde_json::from_str(&json.out)?;
        let found = said.get("rows").and_then(Value::as_array).context("rows")?;
        let sum: u64 = found.iter().filter_map(|row| row.get("input_tokens")?.as_u64()).sum();
        anyhow::ensure!(sum == tokens, "by {by} {sum} are not {tokens}: {said}");
        let table = run(&arguments)?.success()?;
        anyhow::ensure!(table.out.lines().count() == found.len() + 2 && table.out.contains("TOTAL"), "{}", table.out);
    }

    // A new token acts without a restart.
    std::fs::write(&file, "other-words-that-open-the-admin-port")?;
    poll::until("the new token is taken", || async { run(&["status", "--admin-token-file", &file])?.success() })
        .await?;
    Ok(())
}
