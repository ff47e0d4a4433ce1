//! Another version of the filter takes over in a running Envoy.

use std::sync::Arc;

use tollgate_tests::client::{Client, Traffic, chat, chat_stream};
use tollgate_tests::config;
use tollgate_tests::elsewhere::{Elsewhere, answers};
use tollgate_tests::envoy_admin::EnvoyAdmin;
use tollgate_tests::{poll, process};

use crate::fixtures::{APP_KEY, models};
use crate::suite::{Shared, e2e};

e2e! {
    new_code_takes_over_everywhere_without_a_failed_request,
}

const UPGRADES: u8 = 4;

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
    let wasm = elsewhere.home.join("filter.wasm");
    let code = std::fs::read(&shared.tools.filter)?;
    let serve = |version: u8| {
        std::fs::write(&wasm, of_version(&code, version))?;
        elsewhere.serve(&["--wasm", &wasm.display().to_string()])
    };
    let mut control = serve(0)?;
    elsewhere.bootstrap("24h")?;
    let envoy = elsewhere.envoy(2)?;
    answers(&url, APP_KEY).await?;
    let stats = EnvoyAdmin::of(envoy.id())?;

    let bodies = [chat("smol", 4), chat_stream("smol", 30)];
    let vms = || stats.stat("wasm.envoy.wasm.runtime.v8.active");
    let of_one_version = vms()?;
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
        poll::until("nothing runs the old code", || async {
            let running = vms()?;
            anyhow::ensure!(running == of_one_version, "{running} VMs after upgrade {version}, not {of_one_version}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// The same code with another hash: with a custom section, which nobody reads (WebAssembly specification, section
/// 5.5.3).
fn of_version(code: &[u8], version: u8) -> Vec<u8> {
    let section = [0, 3, 1, b'v', version];
    [code, &section].concat()
}
