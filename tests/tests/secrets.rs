//! Planted keys are searched for in everything that can be read.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rustix::process::Signal;
use tollgate_tests::client::{chat, chat_stream};
use tollgate_tests::config::{self, Target};
use tollgate_tests::poll;
use tollgate_tests::process;
use tollgate_tests::tap::Behaviour;

use crate::fixtures::Basic;
use crate::suite::{Shared, e2e};

e2e! {
    keys_are_nowhere_to_be_seen,
    the_state_is_for_its_owner_alone,
    a_crash_leaves_no_core_file,
}

/// The client's key, by Secret, so that the control plane has it in memory at all.
const CLIENT_KEY: &str = "planted-client-key-of-research";
const WRONG_KEY: &str = "planted-key-that-nobody-knows";
const CREDENTIAL: &str = "planted-credential-of-the-provider";
const OTHER_CREDENTIAL: &str = "planted-credential-of-the-spare-one";

/// No log, metric, error, admin page or Envoy dump shows a key or credential, and no backend sees a
/// client's key.
async fn keys_are_nowhere_to_be_seen(shared: Arc<Shared>) -> anyhow::Result<()> {
    let (tap, spare) = (shared.tap().await?, shared.tap().await?);
    let setup = shared.setup("keys_are_nowhere_to_be_seen")?;
    let entry = config::entry(setup.port());
    let failing = [Target::new("provider"), Target::new("spare").priority(1)];
    let consumer = "\
apiVersion: tollgate.dev/v1alpha1
kind: Consumer
metadata: {name: research}
spec:
  keys:
  - secretRef: {name: research-key}
";
    let credential = |name: &str| format!("credential: {{secretRef: {{name: {name}}}}}");
    let gateway = setup
        .file("entry.yaml", &entry)?
        .file(
            "models.yaml",
            &config::documents(&[
                config::pool(
                    "Required",
                    // One with the attempt filter, one without.
                    &[("smol", &failing, None), ("alone", &[Target::new("single")], None)],
                ),
                config::backend("provider", "OpenAI", tap.port(), &credential("provider-key")),
                config::backend("single", "OpenAI", tap.port(), &credential("provider-key")),
                config::backend("spare", "OpenAI", spare.port(), &credential("spare-key")),
                config::secret("provider-key", CREDENTIAL),
                config::secret("spare-key", OTHER_CREDENTIAL),
                config::secret("research-key", CLIENT_KEY),
                consumer.to_owned(),
            ]),
        )?
        .file("budget.yaml", &config::budget(100_000, ""))?
        .start()
        .await?;

    let mut said = String::new();
    let body = chat("smol", 2).to_string();
    let path = "/v1/chat/completions";
    let open = gateway.without_key();
    let bearer = format!("Bearer {CLIENT_KEY}");
    for headers in [
        vec![("authorization", bearer.as_str())],
        vec![("x-api-key", CLIENT_KEY)],
        vec![("api-key", CLIENT_KEY)],
        // All of them at once, and an internal header of ours as a client makes it up.
        vec![
            ("authorization", bearer.as_str()),
            ("x-api-key", CLIENT_KEY),
            ("api-key", CLIENT_KEY),
            ("x-tollgate-consumer", CLIENT_KEY),
        ],
    ] {
        open.post_with(path, &headers, body.clone()).await?.expect(200).with_context(|| format!("{headers:?}"))?;
    }
    let client = gateway.client(CLIENT_KEY);
    client.post(path, chat("alone", 2).to_string()).await?.expect(200)?;
    client.post(path, chat_stream("smol", 2).to_string()).await?.expect(200)?;
    tap.behave(Behaviour::Reset);
    client.post(path, body.clone()).await?.expect(200)?;
    // Errors of every kind that a key can run into.
    said.push_str(&client.post(path, chat("alone", 2).to_string()).await?.expect(503)?.text());
    said.push_str(&gateway.client(WRONG_KEY).post(path, body.clone()).await?.expect(401)?.text());
    said.push_str(&client.post(path, "{").await?.expect(400)?.text());
    said.push_str(&client.get("/nowhere").await?.text());
    poll::until("usage is counted", || async {
        let rows = gateway.admin().usage("consumer=research").await?;
        anyhow::ensure!(rows.iter().map(|row| row.requests).sum::<u64>() >= 7, "{rows:?}");
        Ok(())
    })
    .await?;

    let mut places = vec![("an error", said), ("a log", gateway.logs()?)];
    for path in ["/", "/metrics", "/api/status", "/api/usage", "/api/budgets", "/readyz", "/healthz"] {
        places.push((path, gateway.admin().text(path).await?));
    }
    for path in ["/stats", "/stats/prometheus"] {
        places.push((path, gateway.envoy()?.get(path)?));
    }
    for path in ["/config_dump?include_eds", "/clusters", "/certs", "/listeners"] {
        anyhow::ensure!(gateway.envoy()?.get(path).is_err(), "Envoy's admin API tells {path}");
    }
    anyhow::ensure!(places.iter().all(|(_, text)| !text.is_empty()), "a place is empty");
    for (place, text) in &places {
        for secret in [CLIENT_KEY, WRONG_KEY, CREDENTIAL, OTHER_CREDENTIAL] {
            let found = text.lines().find(|line| line.contains(secret));
            anyhow::ensure!(found.is_none(), "{secret} in {place}: {found:?}");
        }
    }

    let seen: Vec<_> = tap.settled().await?.into_iter().chain(spare.settled().await?).collect();
    for seen in &seen {
        let there = seen.everything();
        for name in [CLIENT_KEY, "x-tollgate", "x-envoy-max-retries"] {
            anyhow::ensure!(!there.contains(name), "{name} at the backend:\n{there}");
        }
        for name in ["x-api-key", "api-key"] {
            anyhow::ensure!(seen.header(name).is_none(), "{name} at the backend:\n{there}");
        }
    }
    // The search would have found them: they did arrive where they belong.
    let at = |tap: &tollgate_tests::tap::Tap, secret: &str| {
        let expected = format!("Bearer {secret}");
        tap.seen().iter().all(|seen| seen.header("authorization") == Some(&expected))
    };
    anyhow::ensure!(at(&tap, CREDENTIAL) && at(&spare, OTHER_CREDENTIAL), "{seen:?}");
    anyhow::ensure!(!spare.seen().is_empty(), "no failover happened");
    Ok(())
}

/// Whatever the umask, nobody else can look into what a run keeps, be it made by us, by the ledger or by Envoy.
async fn the_state_is_for_its_owner_alone(shared: Arc<Shared>) -> anyhow::Result<()> {
    let basic = Basic::start_with(&shared, "the_state_is_for_its_owner_alone", |setup, _| {
        setup.umask("000").file("budget.yaml", &config::budget(100_000, ""))
    })
    .await?;
    basic.client().chat("smol").await?.expect(200)?;
    basic.gateway.admin().usage_of("consumer=app", 1).await?;
    let mut seen = Vec::new();
    modes(&basic.gateway.state(), &mut seen)?;
    let names: Vec<_> = seen.iter().map(|(path, _)| path.display().to_string()).collect();
    for name in ["pki/ca.key", "ledger/ledger.redb", "envoy-bootstrap.json", "envoy.log", "key.pem"] {
        anyhow::ensure!(names.iter().any(|path| path.ends_with(name)), "no {name} in {names:?}");
    }
    let open: Vec<_> = seen.iter().filter(|(_, mode)| mode & 0o077 != 0).collect();
    anyhow::ensure!(open.is_empty(), "{open:?}");
    Ok(())
}

/// The memory of both processes has keys in it.
async fn a_crash_leaves_no_core_file(shared: Arc<Shared>) -> anyhow::Result<()> {
    let basic = Basic::start(&shared, "a_crash_leaves_no_core_file").await?;
    basic.client().chat("smol").await?.expect(200)?;
    let (control, envoy) = (basic.gateway.id(), basic.gateway.envoy_id()?);
    for id in [control, envoy] {
        let limits = std::fs::read_to_string(format!("/proc/{id}/limits"))?;
        let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).context("no such limit")?;
        let values: Vec<_> = core.split_whitespace().take(2).collect();
        anyhow::ensure!(values == ["1", "1"], "{core}");
    }
    let folder = std::fs::read_link(format!("/proc/{envoy}/cwd"))?;
    let there = || -> anyhow::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path()));
        entries.filter(|path| path.as_ref().is_ok_and(|path| is_core(path))).collect()
    };
    let before = there()?;
    for id in [envoy, control] {
        process::signal_process(id, Signal::ABORT)?;
        poll::until("it has ended", || async {
            // One that has ended is nowhere, also before its parent has heard of it.
            anyhow::ensure!(std::fs::read_link(format!("/proc/{id}/cwd")).is_err(), "it lives");
            Ok(())
        })
        .await?;
    }
    anyhow::ensure!(there()? == before, "in {}: {:?}", folder.display(), there()?);
    Ok(())
}

fn is_core(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core"))
}

/// The modes of a folder and all that is in it; links have none of their own.
fn modes(path: &Path, seen: &mut Vec<(PathBuf, u32)>) -> anyhow::Result<()> {
    let about = std::fs::symlink_metadata(path)?;
    if about.is_symlink() {
        return Ok(());
    }
    seen.push((path.to_owned(), about.permissions().mode() & 0o777));
    if about.is_dir() {
        for entry in std::fs::read_dir(path)? {
            modes(&entry?.path(), seen)?;
        }
    }
    Ok(())
}
