//! The definitions in manifests/crds on a real API server: it accepts and refuses the examples of tests/crds as the reader
//! of files does (xtask/tests/crds.rs), but for those whose first line says who refuses alone.

use std::process::Stdio;
use std::sync::Arc;

use anyhow::Context;
use tokio::io::AsyncWriteExt;
use tollgate_tests::cli::Output;
use tollgate_tests::lab::Lab;
use tollgate_tests::tools::Tools;

use crate::suite::e2e;

e2e! { crds_accept_and_refuse_the_examples }

async fn crds_accept_and_refuse_the_examples(lab: Arc<Lab>) -> anyhow::Result<()> {
    let examples = Tools::find()?.tests.join("crds");
    let mut wrong = Vec::new();
    for (folder, accepted) in [("accepted", true), ("refused", false)] {
        for file in std::fs::read_dir(examples.join(folder))? {
            let file = file?.path();
            for document in std::fs::read_to_string(&file)?.split("---\n").filter(|text| !text.trim().is_empty()) {
                let output = try_to_create(&lab, document).await?;
                if (output.code == Some(0)) != (accepted || document.starts_with("# core:")) {
                    wrong.push(format!("{}: {document}{output:?}", file.display()));
                }
            }
        }
    }
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

async fn try_to_create(lab: &Lab, document: &str) -> anyhow::Result<Output> {
    let mut command = lab.kubectl_command(&["create", "--dry-run=server", "--validate=strict", "-f", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("kubectl does not start")?;
    let mut input = child.stdin.take().context("kubectl has no input")?;
    input.write_all(document.as_bytes()).await?;
    drop(input);
    Ok(child.wait_with_output().await?.into())
}
