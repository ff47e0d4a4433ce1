//! The commands of the binary, as a person uses them.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use serde_json::Value;
use tollgate_tests::cli::tollgate;
use tollgate_tests::client::chat_stream;
use tollgate_tests::config::{self, Folder, Target};
use tollgate_tests::poll;
use tollgate_tests::process;

use crate::fixtures::{APP_KEY, Basic};
use crate::suite::{Shared, e2e};

e2e! {
    the_whole_example_runs,
    validate_finds_mistakes,
    translate_shows_everything_but_secrets,
    a_new_key_works,
    usage_prints_what_the_api_says,
    status_says_what_is_not_well_and_why,
    the_help_teaches,
    a_stop_is_clean,
    nothing_temporary_is_left_by_a_stop,
    an_unknown_consumer_is_refused_from_the_start,
    books_come_back_from_a_copy,
}

/// The example of the reference, all fields of it, with a port for this test.
const EXAMPLE: &str = include_str!("example.yaml");

/// The example with every field is valid, and runs: Envoy accepts what is made of it.
async fn the_whole_example_runs(shared: Arc<Shared>) -> anyhow::Result<()> {
    let tap = shared.tap().await?;
    let setup = shared.setup("the_whole_example_runs")?;
    let text = EXAMPLE
        .replace("port: 8080", &format!("port: {}", setup.port()))
        .replace("port: 8081", &format!("port: {}", tap.port()));
    let gateway = setup.file("example.yaml", &text)?.start().await?;
    let folder = gateway.folder().path().to_str().context("a path in UTF-8")?.to_owned();
    tollgate(&shared.tools, &["validate", "-f", &folder])?.success()?;
    let client = gateway.client("the-key-of-research-app");
    client.chat("smol").await?.expect(200)?;
    client.chat("gpt-4").await?.expect(404)?;
    gateway.admin().usage_of("consumer=research-app", 1).await?;
    gateway
        .status_when("the Gateway is programmed", |status| {
            status.pointer("/gateways/0/programmed") == Some(&Value::Bool(true))
        })
        .await?;
    let nacks = gateway.envoy()?.stat("cluster_manager.cds.update_rejected")?
        + gateway.envoy()?.stat("listener_manager.lds.update_rejected")?;
    anyhow::ensure!(nacks == 0, "Envoy refused {nacks} updates");
    Ok(())
}

/// `validate` passes what is right, and says file, line, field and hint of what is wrong.
async fn validate_finds_mistakes(shared: Arc<Shared>) -> anyhow::Result<()> {
    let home = shared.tools.logs.join("validate_finds_mistakes");
    let folder = Folder::new(&home)?;
    let path = path(&home)?;
    folder.write("entry.yaml", &config::entry(8080))?;
    let models = config::documents(&[
        config::pool("Required", &[("smol", &[Target::new("runner")], None)]),
        config::backend("runner", "OpenAI", 8081, ""),
    ]);
    folder.write("models.yaml", &models)?;
    tollgate(&shared.tools, &["validate", "-f", &path])?.success()?;

    for (wrong, words) in [
        // A backend that is not there.
        (models.replace("backendRef: {name: runner}", "backendRef: {name: runer}"), vec!["runer", "backendRef"]),
        // A field that does not exist.
        (models.replace("access:", "acess:"), vec!["acess", "models.yaml:5"]),
        // A value that does not exist.
        (models.replace("schema: OpenAI", "schema: OpenApi"), vec!["schema", "OpenApi"]),
        // No YAML.
        (models.replace("spec:\n", "spec: {\n"), vec!["models.yaml:"]),
    ] {
        folder.write("models.yaml", &wrong)?;
        let output = tollgate(&shared.tools, &["validate", "-f", &path])?;
        anyhow::ensure!(output.code == Some(1), "{output:?} for\n{wrong}");
        for word in words.into_iter().chain(["models.yaml"]) {
            anyhow::ensure!(output.all().contains(word), "no {word} in {output:?}");
        }
    }
    Ok(())
}

/// `translate` prints Envoy's resources and the filter's configuration, and no secret.
async fn translate_shows_everything_but_secrets(shared: Arc<Shared>) -> anyhow::Result<()> {
    const CREDENTIAL: &str = "planted-credential-to-translate";
    const KEY: &str = "planted-key-to-translate";
    let home = shared.tools.logs.join("translate_shows_everything_but_secrets");
    let folder = Folder::new(&home)?;
    folder.write("entry.yaml", &config::entry(8080))?;
    folder.write(
        "models.yaml",
        &config::documents(&[
            config::pool("Required", &[("smol", &[Target::new("runner")], None)]),
            config::backend("runner", "OpenAI", 8081, "credential: {secretRef: {name: credential}}"),
            config::secret("credential", CREDENTIAL),
            config::secret("app-key", KEY),
            "apiVersion: tollgate.dev/v1alpha1\nkind: Consumer\nmetadata: {name: app}\n\
             spec: {keys: [{secretRef: {name: app-key}}]}\n"
                .to_owned(),
        ]),
    )?;
    let path = path(&home)?;
    for format in ["yaml", "json"] {
        let output = tollgate(&shared.tools, &["translate", "-f", &path, "-o", format])?.success()?;
        for secret in [CREDENTIAL, KEY] {
            anyhow::ensure!(!output.all().contains(secret), "{secret} in {}", output.all());
        }
        for part in ["backend/default/runner", "httproute/default/chat/rule/0/match/0", "smol"] {
            anyhow::ensure!(output.out.contains(part), "no {part} in {}", output.out);
        }
        if format == "json" {
            serde_json::from_str::<Value>(&output.out)?;
        }
    }
    Ok(())
}

/// `key new` prints a key once, with a Secret and its hash; the applied documents let it in.
async fn a_new_key_works(shared: Arc<Shared>) -> anyhow::Result<()> {
    let basic = Basic::start(&shared, "a_new_key_works").await?;
    let output = tollgate(&shared.tools, &["key", "new", "--consumer", "web"])?.success()?;
    let all = output.all();
    // The key is the only long word whose hash is printed, too.
    let key = all
        .split(|letter: char| letter.is_whitespace() || "\"':,{}".contains(letter))
        .find(|word| word.len() >= 20 && all.contains(&config::sha256_hex(word)))
        .with_context(|| format!("no key with its hash in {all}"))?;
    let again = tollgate(&shared.tools, &["key", "new", "--consumer", "web"])?.success()?;
    anyhow::ensure!(!again.all().contains(key), "the same key twice");

    basic.gateway.folder().write("web.yaml", &config::consumer("web", key, ""))?;
    let client = basic.gateway.client(key);
    poll::until("the new key is let in", || async {
        client.chat("smol").await?.expect(200)?;
        Ok(())
    })
    .await
}

/// `usage` and `/api/usage` say the same.
async fn usage_prints_what_the_api_says(shared: Arc<Shared>) -> anyhow::Result<()> {
    let basic = Basic::start(&shared, "usage_prints_what_the_api_says").await?;
    let today = || time::OffsetDateTime::now_utc().date();
    let day = today();
    basic.client().chat("smol").await?.expect(200)?;
    let rows = basic.gateway.admin().usage_of("consumer=app", 1).await?;
    let row = rows.first().context("a row")?;
    let admin = format!("127.0.0.1:{}", basic.gateway.admin_port());
    let arguments = ["usage", "--consumer", "app", "--since", "1h", "--admin", &admin];
    let json = tollgate(&shared.tools, &[&arguments[..], &["-o", "json"]].concat())?.success()?;
    let said: Value = serde_json::from_str(&json.out)?;
    anyhow::ensure!(
        said.pointer("/rows/0/input_tokens").and_then(Value::as_u64) == Some(row.input_tokens),
        "{said} is not {row:?}"
    );
    let table = tollgate(&shared.tools, &arguments)?.success()?;
    for word in ["app", "chat", "smol", "runner", &row.input_tokens.to_string()] {
        anyhow::ensure!(table.out.contains(word), "no {word} in\n{}", table.out);
    }
    poll::until("the consumer says when it was used last and what it spent", || async {
        let json = tollgate(&shared.tools, &["status", "consumer/app", "--admin", &admin, "-o", "json"])?.success()?;
        let status: Value = serde_json::from_str(&json.out)?;
        anyhow::ensure!(status.pointer("/objects/0/lastUsed").is_some_and(Value::is_string), "{status}");
        let spent = status.pointer("/objects/0/spentToday/tokens").and_then(Value::as_u64);
        // At midnight (UTC) all is forgotten that was spent before.
        let is_over = spent.is_none() && today() != day;
        anyhow::ensure!(is_over || spent == Some(row.input_tokens + row.output_tokens), "{status} is not {row:?}");
        Ok(())
    })
    .await?;
    let none =
        tollgate(&shared.tools, &["usage", "--consumer", "nobody", "--admin", &admin, "-o", "json"])?.success()?;
    let none: Value = serde_json::from_str(&none.out)?;
    anyhow::ensure!(none.pointer("/rows").and_then(Value::as_array).is_some_and(Vec::is_empty), "{none}");
    Ok(())
}

/// The status of a gateway that works, of a route that leads nowhere, and of a listener that Envoy cannot open.
async fn status_says_what_is_not_well_and_why(shared: Arc<Shared>) -> anyhow::Result<()> {
    let basic = Basic::start(&shared, "status_says_what_is_not_well_and_why").await?;
    let admin = format!("127.0.0.1:{}", basic.gateway.admin_port());
    let status = |arguments: &[&str]| tollgate(&shared.tools, &[&["status"], arguments, &["--admin", &admin]].concat());
    let is_well = || async { status(&[])?.success() };
    let table = poll::until("all is well", is_well).await?.out;
    for word in ["gateway/llm", "httproute/chat", "modelpool/chat", "modelbackend/runner", "consumer/app", "127.0.0.1"]
    {
        anyhow::ensure!(table.contains(word), "no {word} in\n{table}");
    }
    anyhow::ensure!(!table.contains("Not well") && !table.contains("False"), "{table}");

    let folder = basic.gateway.folder();
    folder.write(
        "broken.yaml",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: broken}\n\
         spec: {parentRefs: [{name: llm}], hostnames: [broken.org], rules: [{backendRefs: [{name: absent, port: 80}]}]}\n",
    )?;
    let broken = poll::until("the broken route has a status", || async {
        let json = status(&["httproute/broken", "-o", "json"])?;
        anyhow::ensure!(json.code == Some(1), "{json:?}");
        Ok(serde_json::from_str::<Value>(&json.out)?)
    })
    .await?;
    let conditions = conditions(&broken, "/objects/0/parents/0/conditions");
    anyhow::ensure!(conditions.contains("Accepted=True Accepted"), "{conditions}");
    anyhow::ensure!(conditions.contains("ResolvedRefs=False BackendNotFound"), "{conditions}");
    anyhow::ensure!(conditions.contains("Service default/absent does not exist"), "{conditions}");
    status(&["httproute/chat"])?.success()?;
    folder.remove("broken.yaml")?;

    let held = std::net::TcpListener::bind("127.0.0.1:0")?;
    let gateway = |port: u16| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: taken}}\n\
             spec: {{gatewayClassName: tollgate, listeners: [{{name: http, port: {port}, protocol: HTTP}}]}}\n"
        )
    };
    folder.write("taken.yaml", &gateway(held.local_addr()?.port()))?;
    let refused = poll::until("Envoy refuses the port", || async {
        let json = status(&["gateways/taken", "--namespace", "default", "-o", "json"])?;
        let value: Value = serde_json::from_str(&json.out)?;
        let said = self::conditions(&value, "/objects/0/conditions");
        anyhow::ensure!(json.code == Some(1) && said.contains("Programmed=False Invalid"), "{json:?}");
        Ok(value)
    })
    .await?;
    for conditions in ["/objects/0/conditions", "/objects/0/listeners/0/conditions"] {
        let said = self::conditions(&refused, conditions);
        let is_told = said.contains("Programmed=False Invalid") && said.contains("in use");
        anyhow::ensure!(is_told && said.contains("Accepted=True"), "{said}");
    }
    let table = status(&[])?;
    anyhow::ensure!(
        table.code == Some(1) && table.out.contains("Gateway default/taken: Programmed=False"),
        "{table:?}"
    );
    status(&["gateway/llm"])?.success()?;
    basic.client().chat("smol").await?.expect(200)?;

    folder.remove("taken.yaml")?;
    poll::until("all is well again", is_well).await?;
    anyhow::ensure!(status(&["gateway/taken"])?.code == Some(2), "it is gone");
    Ok(())
}

/// `Type=Status Reason message`, a line each.
fn conditions(value: &Value, path: &str) -> String {
    let conditions = value.pointer(path).and_then(Value::as_array).into_iter().flatten();
    let line = |condition: &Value| {
        let text = |name: &str| condition.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        format!("{}={} {} {}\n", text("type"), text("status"), text("reason"), text("message"))
    };
    conditions.map(line).collect()
}

/// Every command has help, and shells can complete them.
async fn the_help_teaches(shared: Arc<Shared>) -> anyhow::Result<()> {
    let help = tollgate(&shared.tools, &["--help"])?.success()?.out;
    for command in ["init", "run", "serve", "translate", "validate", "key", "status", "usage"] {
        anyhow::ensure!(help.contains(command), "no {command} in\n{help}");
        let own = tollgate(&shared.tools, &[command, "--help"])?.success()?.out;
        anyhow::ensure!(own.lines().count() > 5, "little help about {command}:\n{own}");
    }
    let completion = tollgate(&shared.tools, &["completion", "bash"])?.success()?;
    anyhow::ensure!(completion.out.contains("tollgate"), "{}", completion.out);
    let envoy = shared.tools.envoy.to_str().context("a path in UTF-8")?;
    let wrong = ["run", "-f", "/no/such/folder", "--envoy", envoy, "--admin", "127.0.0.1:0"];
    let wrong = tollgate(&shared.tools, &wrong)?;
    anyhow::ensure!(wrong.code != Some(0) && wrong.all().contains("/no/such/folder"), "{wrong:?}");
    Ok(())
}

/// SIGTERM: the running answer comes to its end, then everything is gone.
async fn a_stop_is_clean(shared: Arc<Shared>) -> anyhow::Result<()> {
    let mut basic = Basic::start(&shared, "a_stop_is_clean").await?;
    let envoy = basic.gateway.envoy_id()?;
    let client = basic.client();
    let running =
        tokio::spawn(async move { client.post("/v1/chat/completions", chat_stream("smol", 12).to_string()).await });
    poll::until("the answer has begun", || async {
        anyhow::ensure!(basic.tap.seen().iter().any(|seen| !seen.answer.is_empty()), "not yet");
        Ok(())
    })
    .await?;
    let status = basic.gateway.process().stop().await?;
    anyhow::ensure!(status.success(), "it ended with {status}");
    anyhow::ensure!(!process::is_alive(envoy), "Envoy is still there");
    let answer = running.await??.expect(200)?;
    anyhow::ensure!(answer.complete && answer.text().contains("[DONE]"), "cut off: {}", answer.text());

    // What the last request used was not lost with the stop.
    basic.gateway.restart().await?;
    let rows = basic.gateway.admin().usage_of("consumer=app", 1).await?;
    let said = basic.tap.seen().iter().find_map(|seen| seen.usage());
    anyhow::ensure!(rows.first().map(|row| row.usage()) == said, "{rows:?} is not {said:?}");

    // A second Ctrl-C-like signal is as good as the first.
    basic.gateway.process().signal(rustix::process::Signal::INT)?;
    let status = basic.gateway.process().wait().await?;
    anyhow::ensure!(status.success(), "it ended with {status}");
    Ok(())
}

/// Where the state's path is too long for a socket, that of Envoy's admin API is among the temporary files, and only as long
/// as there is an Envoy. Elsewhere it is gone, too.
async fn nothing_temporary_is_left_by_a_stop(shared: Arc<Shared>) -> anyhow::Result<()> {
    const SOCKET: &str = "envoy-admin.sock";
    // Its path must be short, too.
    let temporary = tempfile::tempdir()?;
    let left = || -> anyhow::Result<Vec<_>> {
        let entries = std::fs::read_dir(temporary.path())?.map(|entry| anyhow::Ok(entry?.path()));
        entries.collect()
    };
    let tap = shared.tap().await?;
    let name = "nothing_temporary_is_left_by_a_stop";
    let setup = shared.setup(name)?.temporary(temporary.path()).state_named(&"long-".repeat(20));
    let entry = config::entry(setup.port());
    let models = config::documents(&[
        config::pool("Anonymous", &[("smol", &[Target::new("runner")], None)]),
        config::backend("runner", "OpenAI", tap.port(), ""),
    ]);
    let mut gateway = setup.file("entry.yaml", &entry)?.file("models.yaml", &models)?.start().await?;
    let [folder] = left()?.try_into().map_err(|left| anyhow::anyhow!("{left:?}"))?;
    anyhow::ensure!(folder.join(SOCKET).exists(), "no socket in {}", folder.display());
    let status = gateway.process().stop().await?;
    anyhow::ensure!(status.success() && left()?.is_empty(), "{status}, {:?}", left()?);

    // An Envoy that outlives its control plane keeps its socket for the next one.
    gateway.restart().await?;
    let envoy = gateway.envoy_id()?;
    gateway.process().kill()?;
    anyhow::ensure!(folder.join(SOCKET).exists(), "no socket in {}", folder.display());
    gateway.restart().await?;
    anyhow::ensure!(gateway.envoy_id()? == envoy, "another Envoy");
    gateway.process().signal(rustix::process::Signal::INT)?;
    let status = gateway.process().wait().await?;
    anyhow::ensure!(status.success() && left()?.is_empty(), "{status}, {:?}", left()?);
    let in_state = gateway.state().join(SOCKET);
    anyhow::ensure!(!in_state.exists(), "{}", in_state.display());
    Ok(())
}

/// A folder without a key for the caller says so, and does not serve before it is ready.
async fn an_unknown_consumer_is_refused_from_the_start(shared: Arc<Shared>) -> anyhow::Result<()> {
    let basic = Basic::start(&shared, "an_unknown_consumer_is_refused_from_the_start").await?;
    basic.gateway.without_key().chat("smol").await?.expect(401)?;
    basic.gateway.client("wrong").chat("smol").await?.expect(401)?;
    basic.gateway.client(APP_KEY).chat("smol").await?.expect(200)?;
    Ok(())
}

/// A copy is made while requests are served, and brings back what was used until then.
async fn books_come_back_from_a_copy(shared: Arc<Shared>) -> anyhow::Result<()> {
    let mut basic = Basic::start_with(&shared, "books_come_back_from_a_copy", |setup, _| {
        setup.file("budget.yaml", &config::budget(1_000_000, ""))
    })
    .await?;
    let client = basic.client();
    let ask = async |times: u64| {
        for _ in 0..times {
            client.chat("smol").await?.expect(200)?;
        }
        anyhow::Ok(())
    };
    ask(3).await?;
    let before = basic.gateway.admin().usage_of("consumer=app", 3).await?;
    let (copy, ledger) =
        (path(&basic.gateway.home().join("books.redb"))?, path(&basic.gateway.state().join("ledger"))?);
    let admin = format!("127.0.0.1:{}", basic.gateway.admin_port());
    let run = |arguments: &[&str]| tollgate(&shared.tools, arguments);
    let backup = ["ledger", "backup", "--to", &copy, "--admin", &admin];
    run(&backup)?.success()?;
    let again = run(&backup)?;
    anyhow::ensure!(again.code == Some(2) && again.err.contains("cannot be made"), "{again:?}");
    ask(2).await?;
    basic.gateway.admin().usage_of("consumer=app", 5).await?;

    let restore = ["ledger", "restore", &copy, "--ledger", &ledger];
    let replace = [&restore[..], &["--replace"]].concat();
    let in_use = run(&replace)?;
    anyhow::ensure!(in_use.code == Some(2) && in_use.err.contains("in use by another process"), "{in_use:?}");
    basic.gateway.process().stop().await?;
    let there = run(&restore)?;
    anyhow::ensure!(there.code == Some(2) && there.err.contains("--replace"), "{there:?}");
    let restored = run(&replace)?.success()?;
    anyhow::ensure!(restored.out.contains("1 budgets"), "{restored:?}");
    basic.gateway.restart().await?;
    let after = basic.gateway.admin().usage_of("consumer=app", 3).await?;
    anyhow::ensure!(after == before, "{after:?} is not {before:?}");
    ask(1).await?;
    basic.gateway.admin().usage_of("consumer=app", 4).await.map(drop)
}

fn path(folder: &Path) -> anyhow::Result<String> {
    Ok(folder.to_str().context("a path in UTF-8")?.to_owned())
}
