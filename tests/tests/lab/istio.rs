//! What is installed into an Istio mesh, on a real API server with Istio's own definitions and their rules.

use std::sync::Arc;

use tollgate_tests::cli;
use tollgate_tests::lab::Lab;
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::tools::Tools;

e2e! { istio_takes_the_policies_of_a_mesh }

const TRY: [&str; 5] = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];

async fn istio_takes_the_policies_of_a_mesh(lab: Arc<Lab>) -> anyhow::Result<()> {
    let tools = Tools::find()?;
    lab.install_istio().await?;
    for namespace in ["istio-runners", "istio-callers"] {
        lab.kubectl(&["create", "namespace", namespace]).await?.success()?;
    }
    let line = "mesh policies --gateway default/llm --gateway edge/a.b --runners istio-runners --callers istio-callers";
    let arguments: Vec<&str> = line.split(' ').collect();
    for format in ["yaml", "json"] {
        let printed = cli::tollgate(&tools, &[&arguments[..], &["-o", format]].concat())?.success()?.out;
        let taken = lab.kubectl_with(&TRY, &printed).await?.success()?.out;
        anyhow::ensure!(taken.lines().count() == 5, "{format}: {taken}");
        // Whoever takes everything shows nothing.
        for (right, wrong, told) in [
            ("principals", "principal", "unknown field"),
            ("STRICT", "STRONG", "Unsupported value"),
            ("egress", "egres", "unknown field"),
        ] {
            anyhow::ensure!(printed.contains(right), "{printed}");
            let refused = lab.kubectl_with(&TRY, &printed.replace(right, wrong)).await?;
            anyhow::ensure!(refused.code != Some(0) && refused.err.contains(told), "{wrong}: {refused:?}");
        }
    }
    Ok(())
}
