//! Certificates with lives of seconds: renewed under load, and nobody notices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use tollgate_tests::admin::Admin;
use tollgate_tests::client::{Client, Traffic, chat, chat_stream};
use tollgate_tests::config;
use tollgate_tests::elsewhere::{Elsewhere, answers};
use tollgate_tests::envoy_admin::EnvoyAdmin;
use tollgate_tests::poll;
use tollgate_tests::process;

use crate::fixtures::{APP_KEY, Basic, models};
use crate::suite::{Shared, e2e};

e2e! {
    certificates_are_renewed_under_load,
    an_envoy_elsewhere_is_served_renewed_and_emptied,
}

/// Lives in these seconds: short enough to see some, long enough for a machine that is busy.
const LIFETIME: &str = "6s";
const RENEWALS: usize = 3;
/// Of Envoy: how often it has read a certificate of its own or an authority.
const UPDATES: &str = "cluster.tollgate_control.client_ssl_socket_factory.ssl_context_update_by_sds";
const LATER_KEY: &str = "a-key-that-came-after-the-renewals";

/// Several lives pass. No request fails, no connection between Envoy and control plane ends, a key that is added
/// after it still arrives; and the Envoy, adopted by a new control plane, comes back with a certificate of today.
async fn certificates_are_renewed_under_load(shared: Arc<Shared>) -> anyhow::Result<()> {
    let mut basic = Basic::start_with(&shared, "certificates_are_renewed_under_load", |setup, _| {
        Ok(setup.arguments(&["--concurrency", "2", "--certificate-lifetime", LIFETIME]))
    })
    .await?;
    let envoy = basic.gateway.envoy_id()?;
    let stat = |name: &str| EnvoyAdmin::of(envoy)?.stat(&format!("cluster.tollgate_control.{name}"));
    // On a slow machine the first certificate may have ended before Envoy came with it.
    let ended = stat("upstream_cx_destroy")?;
    let bodies = [chat("smol", 4), chat_stream("smol", 30)];
    let traffic = Traffic::start(&basic.client(), "/v1/chat/completions", &bodies);
    let admin = basic.gateway.admin().clone();
    let mut before = Ends::of(&admin).await?;
    for _ in 0..RENEWALS {
        before = poll::until("server and Envoy have new certificates", || async {
            let now = Ends::of(&admin).await?;
            anyhow::ensure!(now.server > before.server && now.envoy > before.envoy, "{now:?}");
            Ok(now)
        })
        .await?;
        traffic.more(2).await?;
    }
    anyhow::ensure!(before.authority > before.server, "the CA outlives what it signs: {before:?}");
    poll::until("Envoy has read each of them", || async {
        // One for the certificate and one for the CA at its start, then one of each per renewal.
        let updates = stat("client_ssl_socket_factory.ssl_context_update_by_sds")?;
        anyhow::ensure!(updates >= RENEWALS as u64, "{updates} updates");
        Ok(())
    })
    .await?;
    anyhow::ensure!(stat("upstream_cx_destroy")? == ended, "a connection to the control plane ended");
    basic.gateway.folder().write("later.yaml", &config::consumer("later", LATER_KEY, ""))?;
    let later = basic.gateway.client(LATER_KEY);
    poll::until("the later key is known", || async {
        later.chat("smol").await?.expect(200)?;
        Ok(())
    })
    .await?;

    // Every certificate that this Envoy was started with has ended; it needs the present one to be let in again.
    basic.gateway.process().kill()?;
    basic.gateway.restart().await?;
    anyhow::ensure!(basic.gateway.envoy_id()? == envoy, "another Envoy serves now");
    traffic.more(4).await?;
    for answer in traffic.stop().await? {
        let answer = answer.map_err(|error| anyhow::anyhow!("a dropped request: {error}"))?;
        anyhow::ensure!(answer.complete, "an answer broke off");
        answer.expect(200)?;
    }
    Ok(())
}

/// `tollgate serve` and an Envoy that only shares the bootstrap's files with it: `tollgate bootstrap` again is all that
/// it needs to go on, and when its Gateway goes, it is emptied.
async fn an_envoy_elsewhere_is_served_renewed_and_emptied(shared: Arc<Shared>) -> anyhow::Result<()> {
    let tap = shared.tap().await?;
    let elsewhere = Elsewhere::new(&shared.tools, "an_envoy_elsewhere_is_served_renewed_and_emptied")?;
    let port = process::free_port()?;
    elsewhere.conf.write("entry.yaml", &config::entry(port))?;
    elsewhere.conf.write("models.yaml", &models(&tap))?;
    elsewhere.conf.write("app.yaml", &config::consumer("app", APP_KEY, ""))?;
    let mut control = elsewhere.serve(&[])?;
    elsewhere.bootstrap("24h")?;
    let envoy = elsewhere.envoy(1)?;
    let url = format!("http://127.0.0.1:{port}");
    answers(&url, APP_KEY).await?;

    // The control plane is away for longer than the certificate lives: it does not let the Envoy in. The Envoy is connected
    // when it gets that certificate, so that a slow machine does not start it too late.
    let read = || EnvoyAdmin::of(envoy.id())?.stat(UPDATES);
    let before = read()?;
    elsewhere.bootstrap(LIFETIME)?;
    poll::until("the Envoy has read its new certificate", || async {
        anyhow::ensure!(read()? > before, "not yet");
        Ok(())
    })
    .await?;
    control.kill()?;
    // Its life, and the second that it is rounded to.
    let end = elsewhere.certified()? + Duration::from_secs(7);
    poll::until("the certificate has ended", || async {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        anyhow::ensure!(now > end, "{end:?}");
        Ok(())
    })
    .await?;
    elsewhere.conf.write("later.yaml", &config::consumer("later", LATER_KEY, ""))?;
    let _control = elsewhere.serve(&[])?;
    poll::until("the Envoy is sent away again and again", || async {
        let refused = expired(&elsewhere.admin()).await?;
        anyhow::ensure!(refused > 2, "{refused} times");
        Ok(())
    })
    .await?;
    Client::new(&url, Some(LATER_KEY)).chat("smol").await?.expect(401)?;
    elsewhere.bootstrap("24h")?;
    answers(&url, LATER_KEY).await?;

    elsewhere.conf.remove("entry.yaml")?;
    poll::until("the Envoy has no listener any more", || async {
        anyhow::ensure!(Client::new(&url, Some(APP_KEY)).chat("smol").await.is_err(), "it still answers");
        Ok(())
    })
    .await
}

/// How many were sent away because their certificate has ended.
async fn expired(admin: &Admin) -> anyhow::Result<u64> {
    let text = admin.text("/metrics").await?;
    let mut lines = text.lines().filter(|line| line.starts_with("tollgate_tls_handshake_failures_total"));
    let line = lines.find(|line| line.contains("port=\"xds\"") && line.contains("reason=\"Expired\""));
    let count = line.and_then(|line| line.rsplit_once(' ')).with_context(|| format!("no such count in {text}"))?.1;
    Ok(count.parse()?)
}

/// When certificates end, as the metrics say it.
#[derive(Debug, Clone, Copy)]
struct Ends {
    authority: i64,
    server: i64,
    envoy: i64,
}

// === impl Ends ===

impl Ends {
    async fn of(admin: &Admin) -> anyhow::Result<Self> {
        let text = admin.text("/metrics").await?;
        let of = |line: &str| {
            let rest = line.strip_prefix("tollgate_certificate_expiry_seconds{certificate=\"")?;
            let (name, end) = rest.split_once("\"} ")?;
            Some((name.to_owned(), end.parse::<i64>().ok()?))
        };
        let ends: BTreeMap<String, i64> = text.lines().filter_map(of).collect();
        let end = |name: &str| ends.get(name).copied().with_context(|| format!("no end of {name}: {ends:?}"));
        Ok(Self { authority: end("ca")?, server: end("server")?, envoy: end("envoy")? })
    }
}
