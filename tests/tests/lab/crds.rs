//! The definitions in manifests/crds on a real API server: it accepts and refuses the examples of tests/crds as the reader
//! of files does (xtask/tests/crds.rs), but for those that say who refuses alone.

use std::sync::Arc;

use tollgate_tests::lab::Lab;
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::tools::Tools;

e2e! { crds_accept_and_refuse_the_examples }

const TRY: [&str; 5] = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];

async fn crds_accept_and_refuse_the_examples(lab: Arc<Lab>) -> anyhow::Result<()> {
    let examples = Tools::find()?.tests.join("crds");
    let mut wrong = Vec::new();
    for (folder, accepted) in [("accepted", true), ("refused", false)] {
        for file in std::fs::read_dir(examples.join(folder))? {
            let file = file?.path();
            for document in std::fs::read_to_string(&file)?.split("---\n").filter(|text| !text.trim().is_empty()) {
                let output = lab.kubectl_with(&TRY, document).await?;
                let meant = document.lines().find_map(|line| line.strip_prefix("# refused by the API server: "));
                let as_meant = match meant.filter(|_| !accepted) {
                    None => output.code == Some(0),
                    // An example that is refused for another reason shows nothing.
                    Some(meant) => output.code != Some(0) && output.err.contains(meant),
                };
                if !as_meant {
                    wrong.push(format!("{}: {document}{output:?}", file.display()));
                }
            }
        }
    }
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
