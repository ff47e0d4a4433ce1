//! Budgets hold under concurrency, and the ledger's sum is the sum of the answers.

use std::sync::Arc;

use anyhow::Context;
use futures::future;
use tollgate_tests::client::{Answer, Client, chat, chat_stream};
use tollgate_tests::config;
use tollgate_tests::poll;
use tollgate_tests::usage::Usage;

use crate::fixtures::Basic;
use crate::suite::{Shared, e2e};

e2e! {
    a_budget_holds_under_concurrency,
    shadow_counts_and_a_raised_limit_acts,
}

const CLIENTS: usize = 16;
const TOKENS: u64 = 1500;

/// 16 clients, half of them streaming, on two Envoy workers, ask for more than there is.
async fn a_budget_holds_under_concurrency(shared: Arc<Shared>) -> anyhow::Result<()> {
    let basic = Basic::start_with(&shared, "a_budget_holds_under_concurrency", |setup, _| {
        setup.arguments(&["--concurrency", "2"]).file("budget.yaml", &config::budget(TOKENS, ""))
    })
    .await?;
    let clients = (0..CLIENTS).map(|number| drain(basic.client(), number % 2 == 0));
    let mut answers: Vec<Answer> = future::try_join_all(clients).await?.into_iter().flatten().collect();
    use_up(&basic, &mut answers).await?;

    let refused = answers.iter().filter(|answer| answer.status == 429).count();
    anyhow::ensure!(refused >= CLIENTS, "{refused} requests were refused");
    anyhow::ensure!(
        answers
            .iter()
            .filter(|answer| answer.status == 429)
            .all(|answer| { answer.header("retry-after").is_some_and(|text| text.parse::<u64>().is_ok()) }),
        "a 429 without retry-after"
    );
    let answered: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 200).collect();
    for answer in &answered {
        let limit = answer.header("x-ratelimit-limit-tokens");
        anyhow::ensure!(limit == Some(&TOKENS.to_string()), "limit {limit:?}");
        for name in ["x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"] {
            anyhow::ensure!(answer.header(name).is_some(), "no {name}");
        }
    }

    let seen = basic.tap.settled().await?;
    anyhow::ensure!(seen.len() == answered.len(), "{} at the backend, {} answers", seen.len(), answered.len());
    let costs: Vec<u64> = seen
        .iter()
        .map(|seen| Ok(seen.usage().context("an answer without usage")?.total()))
        .collect::<anyhow::Result<_>>()?;
    let total: u64 = costs.iter().sum();

    let budgets = basic.gateway.admin().settled_budgets().await?;
    let [budget] = budgets.as_slice() else { anyhow::bail!("{budgets:?}") };
    anyhow::ensure!(budget.tokens == TOKENS, "{budget:?}");
    anyhow::ensure!(budget.spent == total, "{budget:?}, but the answers say {total}");
    let rows = basic.gateway.admin().usage_of("consumer=app", answered.len() as u64).await?;
    let counted: Usage = rows.iter().map(|row| row.usage()).sum();
    anyhow::ensure!(counted.total() == total, "{rows:?}, but the answers say {total}");

    // The bound: what running requests cost beyond their reservations. At most one request runs
    // per client, so it is below what the dearest so many answers cost.
    let mut dearest = costs.clone();
    dearest.sort_unstable_by(|a, b| b.cmp(a));
    let bound: u64 = dearest.iter().take(CLIENTS).sum();
    println!("{} answers, {refused} refused, {total} of {TOKENS} tokens, bound {bound}", costs.len());
    anyhow::ensure!(total <= TOKENS + bound, "{total} is over {TOKENS} + {bound}");
    Ok(())
}

/// A budget can be used up: whoever asks gets what is left of it when nothing is leased any more. What is left when all
/// clients were refused says how fast the machine was: tokens that are leased for others are not there for them.
async fn use_up(basic: &Basic, answers: &mut Vec<Answer>) -> anyhow::Result<()> {
    let client = basic.client();
    loop {
        let budgets = basic.gateway.admin().settled_budgets().await?;
        let spent: u64 = budgets.iter().map(|budget| budget.spent).sum();
        let seen = basic.tap.settled().await?;
        let dearest = seen.iter().filter_map(|seen| Some(seen.usage()?.total())).max().unwrap_or(0);
        if spent + dearest > TOKENS {
            return Ok(());
        }
        let rest = format!("the rest is given, of {budgets:?}");
        answers.push(poll::until(&rest, || async { client.chat("smol").await?.expect(200) }).await?);
        while answers.last().is_some_and(|answer| answer.status == 200) {
            answers.push(client.chat("smol").await?);
        }
    }
}

/// Asks until it was refused four times, with a pause after each.
async fn drain(client: Client, stream: bool) -> anyhow::Result<Vec<Answer>> {
    let body = if stream { chat_stream("smol", 8) } else { chat("smol", 8) }.to_string();
    let mut answers = Vec::new();
    let mut refused = 0;
    while refused < 4 {
        let answer = client.post("/v1/chat/completions", body.clone()).await?;
        match answer.status {
            200 => anyhow::ensure!(answer.complete, "a broken answer"),
            429 => {
                refused += 1;
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
            _ => anyhow::bail!("{}: {}", answer.status, answer.text()),
        }
        answers.push(answer);
    }
    Ok(answers)
}

/// A limit in shadow counts and never refuses; a raised limit acts on who was refused.
async fn shadow_counts_and_a_raised_limit_acts(shared: Arc<Shared>) -> anyhow::Result<()> {
    let basic = Basic::start_with(&shared, "shadow_counts_and_a_raised_limit_acts", |setup, _| {
        setup.file("budget.yaml", &config::budget(30, "mode: Shadow"))
    })
    .await?;
    let client = basic.client();
    for _ in 0..3 {
        client.chat("smol").await?.expect(200)?;
    }
    let total: u64 = basic.tap.settled().await?.iter().filter_map(|seen| Some(seen.usage()?.total())).sum();
    poll::until("the shadow budget counts", || async {
        let budgets = basic.gateway.admin().budgets().await?;
        anyhow::ensure!(budgets.iter().map(|budget| budget.spent).sum::<u64>() == total, "{budgets:?}");
        Ok(())
    })
    .await?;

    // Enforced now: nothing is left.
    basic.gateway.folder().write("budget.yaml", &config::budget(30, ""))?;
    answers_with(&client, 429).await?;
    basic.gateway.folder().write("budget.yaml", &config::budget(100_000, ""))?;
    answers_with(&client, 200).await?;
    Ok(())
}

async fn answers_with(client: &Client, status: u16) -> anyhow::Result<()> {
    poll::until(&format!("an answer with {status}"), || async {
        client.chat("smol").await?.expect(status)?;
        Ok(())
    })
    .await
}
