//! A copy of the books, made while they are written on and put back later, by the commands of docs/operations.md.

use std::fs::File;
use std::sync::Arc;

use anyhow::Context;
use tollgate_tests::cli::Output;
use tollgate_tests::lab::install::{CONTROL_PLANE, LASTING, NAMESPACE};
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::lab::{Lab, PATIENCE, WAIT, books};
use tollgate_tests::poll;

use crate::chain::{BUDGET, Chain, chain, chat};

e2e! {
    a_copy_of_the_books_is_put_back,
}

const DOCUMENT: &str = include_str!("../../../docs/operations.md");
const DEPLOYMENT: &str = "deployment/tollgate";
const CONSUMER: &str = "restored/research";
/// Whoever runs the commands by hand sees a Pod that is slow.
const STARTS: &str = "--pod-running-timeout=300s";

async fn a_copy_of_the_books_is_put_back(lab: Arc<Lab>) -> anyhow::Result<()> {
    lab.install_books().await?;
    lab.upgrade(&LASTING).await?;
    let found = chain(&lab, "restored", BUDGET).await?;
    let first = books::tokens(&books::rows(&lab, CONSUMER, 1).await?);
    let copy = lab.home().join("books.redb");
    let backup =
        ["-n", NAMESPACE, "exec", DEPLOYMENT, "-c", "tollgate", "--", "/usr/local/bin/tollgate", "ledger", "backup"];
    let done = lab.kubectl_command(&backup).stdout(File::create(&copy)?).status().await?;
    anyhow::ensure!(done.success(), "there is no copy: {done}");
    asked(&lab, &found).await?;
    books::rows(&lab, CONSUMER, 2).await?;

    scale(&lab, "0").await?;
    poll::within(PATIENCE, "the control plane is gone", || async {
        let found =
            lab.kubectl(&["-n", NAMESPACE, "get", "pods", "-l", CONTROL_PLANE, "-o", "name"]).await?.success()?;
        anyhow::ensure!(found.out.is_empty(), "{found:?}");
        Ok(())
    })
    .await?;
    restore(&lab, File::open(&copy)?).await?;
    // Requests go on meanwhile, from the leases.
    asked(&lab, &found).await?;
    scale(&lab, "1").await?;
    lab.kubectl(&["-n", NAMESPACE, "rollout", "status", DEPLOYMENT, WAIT]).await?.success()?;

    // What the proxy could not tell meanwhile it tells now. What it had told after the copy is forgotten.
    let rows = books::rows(&lab, CONSUMER, 2).await?;
    anyhow::ensure!(books::tokens(&rows) > first, "{rows:?}");
    poll::until("it counts against the budget", || async {
        let spent = books::spent(&lab, CONSUMER).await?;
        anyhow::ensure!(spent.iter().any(|(_, spent)| *spent > first), "{spent:?}, and {first} before the copy");
        Ok(())
    })
    .await?;
    asked(&lab, &found).await?;
    lab.upgrade(&[]).await
}

async fn asked(lab: &Lab, chain: &Chain) -> anyhow::Result<()> {
    let answer = chat(lab, &chain.url, &chain.research).await?;
    anyhow::ensure!(answer.status == 200, "{answer:?}");
    Ok(())
}

async fn scale(lab: &Lab, replicas: &str) -> anyhow::Result<()> {
    let replicas = format!("--replicas={replicas}");
    lab.kubectl(&["-n", NAMESPACE, "scale", DEPLOYMENT, &replicas]).await?.success()?;
    Ok(())
}

/// Runs the Pod that the document says, with the copy as its input.
async fn restore(lab: &Lab, copy: File) -> anyhow::Result<()> {
    let image = lab.field(&["-n", NAMESPACE, DEPLOYMENT], "{.spec.template.spec.containers[0].image}").await?;
    let (_, overrides) = DOCUMENT.split_once("--overrides='").context("the document has no overrides")?;
    let (overrides, rest) = overrides.split_once("' \\\n").context("the overrides have no end")?;
    let (_, command) = rest.split_once("-- ").context("the document has no command")?;
    let (command, _) = command.split_once(" < books.redb").context("the command has no input")?;
    let overrides = format!("--overrides={}", overrides.replace("tollgate-ledger", "books"));
    let run = ["-n", NAMESPACE, "run", "restore", "-i", "--rm", "--restart=Never", "--override-type=strategic", STARTS];
    let command: Vec<&str> = command.split_whitespace().collect();
    let image = format!("--image={image}");
    let run = [&run[..], &[&image, &overrides, "--"], &command].concat();
    let done: Output = lab.kubectl_command(&run).stdin(copy).output().await?.into();
    done.success()?;
    Ok(())
}
