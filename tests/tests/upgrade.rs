//! Another version of the filter takes over in a running Envoy.

use std::sync::Arc;

use anyhow::Context;
use tollgate_tests::client::{Client, Traffic, chat, chat_stream};
use tollgate_tests::config;
use tollgate_tests::elsewhere::{Elsewhere, answers};
use tollgate_tests::envoy_admin::EnvoyAdmin;
use tollgate_tests::filter::Form;
use tollgate_tests::{poll, process};

use crate::fixtures::{APP_KEY, models};
use crate::suite::{Shared, e2e};

e2e! {
    new_code_takes_over_everywhere_without_a_failed_request,
}

const UPGRADES: u8 = 4;
const WORKERS: u32 = 2;

/// All filters of an Envoy change to the new code at once: the connections', the requests' and the attempts'. Their code
/// is fetched meanwhile, and Envoy refuses them until it is there.
async fn new_code_takes_over_everywhere_without_a_failed_request(shared: Arc<Shared>) -> anyhow::Result<()> {
    let tap = shared.tap().await?;
    let elsewhere = Elsewhere::new(&shared.tools, "new_code_takes_over_everywhere_without_a_failed_request")?;
    let port = process::free_port()?;
    let url = format!("http://127.0.0.1:{port}");
    elsewhere.conf.write("entry.yaml", &config::entry(port))?;
    elsewhere.conf.write("models.yaml", &models(&tap))?;
    elsewhere.conf.write("app.yaml", &config::consumer("app", APP_KEY, ""))?;
    let form = Form::chosen();
    let file = elsewhere.home.join("filter");
    let code = std::fs::read(form.code(&shared.tools))?;
    let serve = |version: u8| {
        std::fs::write(&file, form.of_version(&code, version))?;
        elsewhere.serve(&[form.option(), &file.display().to_string()])
    };
    let mut control = serve(0)?;
    elsewhere.bootstrap("24h")?;
    let envoy = elsewhere.envoy(WORKERS)?;
    answers(&url, APP_KEY).await?;
    let stats = EnvoyAdmin::of(envoy.id())?;

    let bodies = [chat("smol", 4), chat_stream("smol", 30)];
    let of_one_version = || {
        poll::until("nothing runs but one version of the code", || async {
            let running = stats.stat("wasm.envoy.wasm.runtime.v8.active")?;
            // The one that the others are copies of, that of the main thread, and those of the workers.
            anyhow::ensure!(running == u64::from(WORKERS) + 2, "{running} VMs");
            Ok(())
        })
    };
    // A module stays in Envoy's memory, and nothing runs it.
    let has_vms = form == Form::Wasm;
    if has_vms {
        of_one_version().await?;
    }
    for version in 1..=UPGRADES {
        let traffic = Traffic::start(&Client::new(&url, Some(APP_KEY)), "/v1/chat/completions", &bodies);
        traffic.more(2).await?;
        control.kill()?;
        control = serve(version)?;
        let admin = elsewhere.admin();
        poll::until("Envoy has taken everything", || async {
            let status = admin.status().await?;
            let proxy = status.pointer("/gateways/0/proxies/0/acked");
            anyhow::ensure!(proxy == Some(&true.into()), "{status}");
            Ok(())
        })
        .await?;
        traffic.more(2).await?;
        for answer in traffic.stop().await? {
            let answer = answer.map_err(|error| anyhow::anyhow!("a dropped request: {error}"))?;
            anyhow::ensure!(answer.complete, "an answer broke off");
            answer.expect(200)?;
        }
        // With the connections of before, the last users of the old code go, unless a filter was left behind.
        if has_vms {
            of_one_version().await.with_context(|| format!("after upgrade {version}"))?;
        }
    }
    Ok(())
}
