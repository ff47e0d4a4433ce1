//! A runner whose sidecar has the filter: who may ask it, what that costs, and what holds while policies change or the
//! control plane is away. Callers have sidecars too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use serde_json::json;
use tollgate_tests::admin::Admin;
use tollgate_tests::client::{self, Client};
use tollgate_tests::config;
use tollgate_tests::istiod::{GATEWAY, Istiod};
use tollgate_tests::mesh::{Holds, Sidecar, folder, identity};
use tollgate_tests::meshed::{FOREIGN, KEY, Meshed, endpoints, policy};
use tollgate_tests::poll;
use tollgate_tests::process::free_port;
use tollgate_tests::tap::Tap;

use crate::suite::{Shared, e2e};

e2e! {
    sidecars_know_their_callers_and_charge_them,
    a_policy_changes_in_a_sidecar_and_no_connection_ends,
    a_sidecar_goes_on_while_the_control_plane_is_away,
    a_sidecar_gets_the_keys_of_its_own_workload,
    a_request_is_charged_once_at_a_gateway_and_at_its_runner,
    a_callers_sidecar_leads_by_the_model,
}

pub const CHAT: &str = "/v1/chat/completions";

/// A runner that is recorded, with what its sidecar needs.
pub async fn meshed(shared: &Shared, test: &str, account: &str) -> anyhow::Result<(Meshed, Tap)> {
    let tap = shared.tap().await?;
    Ok((Meshed::new(&shared.tools, test, account, tap.port())?, tap))
}

/// Until the filter has its keys it refuses everybody by 503.
async fn answers(client: &Client, expected: u16, what: &str) -> anyhow::Result<()> {
    poll::until(what, || async { client.chat("smol").await?.expect(expected) }).await.map(drop)
}

/// Asks until what is leased is enough for some more requests. It was used just now, so that nothing of it goes back. Returns
/// how many requests that took.
async fn paid_ahead(meshed: &Meshed, client: &Client) -> anyhow::Result<u64> {
    // A request of `chat` takes less than 100.
    const SOME: u64 = 500;
    let asked = AtomicU64::new(0);
    poll::until("some more requests are paid for", || async {
        client.chat("smol").await?.expect(200)?;
        asked.fetch_add(1, Ordering::Relaxed);
        let leased: u64 = meshed.elsewhere.admin().budgets().await?.iter().map(|row| row.leased).sum();
        anyhow::ensure!(leased >= SOME, "{leased} tokens are leased");
        Ok(())
    })
    .await?;
    Ok(asked.into_inner())
}

async fn sidecars_know_their_callers_and_charge_them(shared: Arc<Shared>) -> anyhow::Result<()> {
    let (meshed, tap) = meshed(&shared, "sidecars_know_their_callers_and_charge_them", "runner").await?;
    let _control_plane = meshed.serve().await?;
    let runner = meshed.istiod.sidecar(tap.port()).await?;
    let web = meshed.caller("web", &runner).await?;
    let stranger = meshed.caller("stranger", &runner).await?;

    // By its certificate.
    let client = Client::new(&web.url(), None);
    answers(&client, 200, "the caller is known").await?;
    tap.forget();
    let answer = client.post(CHAT, client::chat_stream("smol", 16).to_string()).await?.expect(200)?;
    anyhow::ensure!(answer.header("x-ratelimit-limit-tokens") == Some("1000000"), "{answer:?}");
    anyhow::ensure!(answer.usage().is_none(), "nobody asked for the usage: {}", answer.text());
    let seen = tap.settled().await?;
    anyhow::ensure!(seen.iter().all(|seen| seen.usage().is_some()), "the runner is asked for it: {seen:?}");
    let admin = meshed.elsewhere.admin();
    let rows = admin.usage_of("consumer=web", 2).await?;
    let is_of_runner =
        |row: &_| matches!(row, tollgate_tests::admin::UsageRow { route, .. } if route == "service/runner");
    anyhow::ensure!(rows.iter().all(is_of_runner), "{rows:?}");
    let used: u64 = rows.iter().map(|row| row.input_tokens + row.output_tokens).sum();
    let budgets = admin.settled_budgets().await?;
    let of_web = budgets.iter().find(|row| row.scope == serde_json::json!({"Consumer": "web"}));
    anyhow::ensure!(of_web.is_some_and(|row| row.spent == used), "{used}: {budgets:?}");

    // The policy says who carries its filter.
    let programmed = || async {
        let status = meshed.elsewhere.admin().status().await?;
        let objects = status.get("objects").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
        let policy = objects.into_iter().find(|object| object.get("kind") == Some(&serde_json::json!("TokenPolicy")));
        let policy = policy.with_context(|| format!("no policy in {status}"))?;
        let conditions = policy.pointer("/ancestors/0/conditions").and_then(serde_json::Value::as_array).cloned();
        let mut conditions = conditions.unwrap_or_default().into_iter();
        conditions
            .find(|condition| condition.get("type") == Some(&serde_json::json!("Programmed")))
            .with_context(|| format!("not said in {policy}"))
    };
    poll::until("the policy says who carries its filter", || async {
        let condition = programmed().await?;
        anyhow::ensure!(condition.get("status") == Some(&serde_json::json!("True")), "{condition}");
        let carried = serde_json::json!("1 of 1 Pods carry the filter");
        anyhow::ensure!(condition.get("message") == Some(&carried), "{condition}");
        Ok(())
    })
    .await?;

    // By a key, which goes no further. A key of another namespace is nobody's here.
    let unknown = Client::new(&stranger.url(), None).chat("smol").await?.expect(401)?;
    anyhow::ensure!(unknown.text().contains(&identity("stranger")), "{}", unknown.text());
    tap.forget();
    Client::new(&stranger.url(), Some(KEY)).chat("smol").await?.expect(200)?;
    let seen = tap.settled().await?;
    anyhow::ensure!(seen.iter().all(|seen| !seen.everything().contains(KEY)), "{seen:?}");
    admin.usage_of("consumer=keyed", 1).await?;
    Client::new(&stranger.url(), Some(FOREIGN)).chat("smol").await?.expect(401)?;
    Client::new(&web.url(), Some(KEY)).chat("smol").await?.expect(401)?;

    // What a client says of itself counts for nothing.
    let forged = format!("By=spiffe://x/y;Hash=00;URI={}", identity("web"));
    let headers = [("x-forwarded-client-cert", forged.as_str()), ("x-tollgate-consumer", "web")];
    let body = client::chat("smol", 8).to_string();
    Client::new(&stranger.url(), None).post_with(CHAT, &headers, body).await?.expect(401)?;

    // What only reads is the runner's business.
    tap.forget();
    Client::new(&stranger.url(), Some(KEY)).get("/health").await?;
    let seen = tap.settled().await?;
    anyhow::ensure!(seen.len() == 1 && seen.iter().all(|seen| !seen.everything().contains(KEY)), "{seen:?}");

    // A key is revoked while it runs, and a new one arrives.
    meshed.elsewhere.conf.write("keyed.yaml", &config::consumer("keyed", "another-key", ""))?;
    answers(&Client::new(&stranger.url(), Some(KEY)), 401, "the key is revoked").await?;
    answers(&Client::new(&stranger.url(), Some("another-key")), 200, "the new key is known").await
}

/// A Service without Pods, at which callers ask for the models of two runners.
const MODELS: &str = "\
apiVersion: v1
kind: Service
metadata: {name: llm}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: large}
spec: {selector: {app: large}, ports: [{name: http, port: 80}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelBackend
metadata: {name: runner}
spec: {schema: OpenAI, endpoint: {service: {name: runner, port: 80}}, pathPrefix: /v1}
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelBackend
metadata: {name: large}
spec: {schema: OpenAI, endpoint: {service: {name: large, port: 80}}, pathPrefix: /v1}
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelPool
metadata: {name: chat}
spec:
  parentRefs: [{name: llm}]
  models:
  - {name: small, targets: [{backendRef: {name: runner}, model: smol}]}
  - {name: 'large-*', targets: [{backendRef: {name: large}}]}
";

async fn a_callers_sidecar_leads_by_the_model(shared: Arc<Shared>) -> anyhow::Result<()> {
    let (meshed, tap) = meshed(&shared, "a_callers_sidecar_leads_by_the_model", "runner").await?;
    meshed.elsewhere.conf.write("models.yaml", MODELS)?;
    let mut control_plane = meshed.serve().await?;
    let small = meshed.istiod.sidecar(tap.port()).await?;
    let (of_large, others) = (shared.tap().await?, shared.tap().await?);
    let (at_large, at_web) = (folder(&meshed.elsewhere.home, "large"), folder(&meshed.elsewhere.home, "web"));
    for (folder, account) in [(&at_large, "large"), (&at_web, "web")] {
        meshed.authority.issue(folder, &identity(account), Holds::Now, &meshed.authority)?;
    }
    let large = Sidecar::inbound(&shared.tools, &at_large, &identity("web"), of_large.port()).await?;
    let istiod = Istiod::new(&shared.tools, meshed.elsewhere.conf.path(), &at_web, meshed.istiod.ports);
    let backends = [("runner", "runner", small.port()), ("large", "large", large.port())];
    let caller = istiod.caller(&at_web, &backends, others.port()).await?;
    let client = Client::new(&caller.url(), None);
    let at = |host: &'static str| [("host", host), ("x-tollgate-backend", "default/large")];
    let llm = [("host", "llm.default.svc.cluster.local")];
    let ask = |model: &str| client.post_with(CHAT, &llm, client::chat(model, 8).to_string());
    poll::until("the caller is known", || async { ask("small").await?.expect(200) }).await?;

    // The model says which runner it is, and the client does not. There it has the runner's name.
    tap.forget();
    let forged = at("llm.default.svc.cluster.local");
    client.post_with(CHAT, &forged, client::chat("small", 8).to_string()).await?.expect(200)?;
    ask("large-1").await?.expect(200)?;
    let models = |seen: Vec<tollgate_tests::tap::Seen>| seen.iter().map(|seen| seen.model()).collect::<Vec<_>>();
    let seen = tap.settled().await?;
    anyhow::ensure!(seen.iter().all(|seen| !seen.everything().contains("x-tollgate")), "{seen:?}");
    anyhow::ensure!(models(seen) == [Some("smol".to_owned())]);
    let seen = of_large.settled().await?;
    anyhow::ensure!(seen.iter().all(|seen| !seen.everything().contains("x-tollgate")), "{seen:?}");
    anyhow::ensure!(models(seen) == [Some("large-1".to_owned())]);
    // Who it was, and what it cost, the runner's own sidecar says.
    meshed.elsewhere.admin().usage_of("consumer=web", 2).await?;

    let unknown = ask("unknown").await?.expect(404)?;
    anyhow::ensure!(unknown.text().contains("model_not_found"), "{}", unknown.text());
    let listed = client.get_with("/v1/models", &llm).await?.expect(200)?;
    anyhow::ensure!(listed.json()?.pointer("/data/0/id") == Some(&serde_json::json!("small")), "{}", listed.text());

    // Another Service on the same port gets what it is sent.
    let body = client::chat("unknown", 8).to_string();
    client.post_with(CHAT, &at("shop.default.svc.cluster.local"), body).await?.expect(200)?;
    let seen = others.settled().await?;
    anyhow::ensure!(seen.iter().all(|seen| seen.header("x-tollgate-backend") == Some("default/large")), "{seen:?}");
    anyhow::ensure!(models(seen) == [Some("unknown".to_owned())]);

    // It needs no control plane.
    control_plane.kill()?;
    control_plane.wait().await?;
    ask("large-2").await?.expect(200).map(drop)
}

async fn a_policy_changes_in_a_sidecar_and_no_connection_ends(shared: Arc<Shared>) -> anyhow::Result<()> {
    let (meshed, tap) = meshed(&shared, "a_policy_changes_in_a_sidecar_and_no_connection_ends", "runner").await?;
    let _control_plane = meshed.serve().await?;
    let runner = meshed.istiod.sidecar(tap.port()).await?;
    let web = meshed.caller("web", &runner).await?;
    let client = Client::new(&web.url(), None);
    answers(&client, 200, "the caller is known").await?;
    let connections = || web.stats("cluster.outbound.upstream_cx_total");
    let before = connections().await?;
    let streaming = client.clone();
    let stream = tokio::spawn(async move { streaming.post(CHAT, client::long_stream("smol", 200).to_string()).await });

    // A stricter policy, in force while the stream runs.
    meshed.elsewhere.conf.write("policy.yaml", &policy(3).replace("name: budget", "name: strict"))?;
    meshed.istiod.send().await?;
    answers(&client, 429, "the new policy holds").await?;
    let answer = stream.await??.expect(200)?;
    anyhow::ensure!(answer.text().trim_end().ends_with("data: [DONE]"), "the stream was broken: {}", answer.text());
    anyhow::ensure!(connections().await? <= before + 1, "a connection was ended, and another one made");
    anyhow::ensure!(runner.stats("listener_manager.listener_modified").await? == 0, "the listener is another");
    anyhow::ensure!(runner.stats("listener_manager.total_filter_chains_draining").await? == 0, "chains are drained");

    // One that cannot be read closes the Service, and a good one opens it.
    meshed.elsewhere.conf.write("policy.yaml", &policy(3).replace("window: 3650d", "window: sometimes"))?;
    meshed.istiod.send().await?;
    poll::until("the Service is closed", || async {
        let closed = client.chat("smol").await?.expect(503)?;
        anyhow::ensure!(closed.text().contains("policy_invalid"), "{}", closed.text());
        Ok(())
    })
    .await?;
    meshed.elsewhere.conf.write("policy.yaml", &policy(1_000_000))?;
    meshed.istiod.send().await?;
    answers(&client, 200, "it is open again").await
}

async fn a_sidecar_goes_on_while_the_control_plane_is_away(shared: Arc<Shared>) -> anyhow::Result<()> {
    let (meshed, tap) = meshed(&shared, "a_sidecar_goes_on_while_the_control_plane_is_away", "runner").await?;
    let mut control_plane = meshed.serve().await?;
    let runner = meshed.istiod.sidecar(tap.port()).await?;
    let web = meshed.caller("web", &runner).await?;
    let client = Client::new(&web.url(), None);
    answers(&client, 200, "the caller is known").await?;
    let filter = meshed.istiod.send().await?;

    let asked = paid_ahead(&meshed, &client).await? + 1;
    control_plane.kill()?;
    control_plane.wait().await?;
    client.chat("smol").await?.expect(200).context("its lease is left")?;
    // Whoever is not known stays so.
    let stranger = meshed.caller("stranger", &runner).await?;
    Client::new(&stranger.url(), None).chat("smol").await?.expect(401)?;

    // One that starts meanwhile has no keys yet: it refuses at once, and lets nobody wait or pass.
    let late = meshed.istiod.started(tap.port(), &filter).await?;
    let caller = meshed.caller("web", &late).await?;
    let by_late = Client::new(&caller.url(), None);
    let refused = by_late.chat("smol").await?.expect(503)?;
    anyhow::ensure!(refused.text().contains("backend_unavailable"), "{}", refused.text());

    let _again = meshed.serve().await?;
    answers(&by_late, 200, "it has its keys").await?;
    anyhow::ensure!(meshed.istiod.send().await? == filter, "the same objects mean the same");
    // What was used while nobody listened is told now.
    meshed.elsewhere.admin().usage_of("consumer=web", asked + 2).await?;
    meshed.elsewhere.conf.write("keyed.yaml", &config::consumer("keyed", "another-key", ""))?;
    answers(&Client::new(&stranger.url(), Some("another-key")), 200, "a new key is known").await
}

/// Its certificate is another account's than that of the Pods behind the Service.
async fn a_sidecar_gets_the_keys_of_its_own_workload(shared: Arc<Shared>) -> anyhow::Result<()> {
    let (meshed, tap) = meshed(&shared, "a_sidecar_gets_the_keys_of_its_own_workload", "other").await?;
    let control_plane = meshed.serve().await?;
    let runner = meshed.istiod.sidecar(tap.port()).await?;
    let folder = folder(&meshed.elsewhere.home, "web");
    meshed.authority.issue(&folder, &identity("web"), Holds::Now, &meshed.authority)?;
    let web = Sidecar::lasting(&shared.tools, &folder, &identity("other"), runner.port()).await?;
    let client = Client::new(&web.url(), None);
    poll::until("it was refused", || async {
        let refused = control_plane.log().contains("runs (any more) as the account");
        anyhow::ensure!(refused, "it was not");
        Ok(())
    })
    .await?;
    let answer = client.chat("smol").await?.expect(503)?;
    anyhow::ensure!(answer.text().contains("backend_unavailable"), "{}", answer.text());
    anyhow::ensure!(tap.seen().is_empty(), "a request has passed");
    Ok(())
}

/// One policy is for the Gateway's route and for the Service, and another one for the Service alone.
async fn a_request_is_charged_once_at_a_gateway_and_at_its_runner(shared: Arc<Shared>) -> anyhow::Result<()> {
    let (meshed, tap) = meshed(&shared, "a_request_is_charged_once_at_a_gateway_and_at_its_runner", "runner").await?;
    let conf = &meshed.elsewhere.conf;
    let port = free_port()?;
    let backend = "\
apiVersion: tollgate.dev/v1alpha1
kind: ModelBackend
metadata: {name: runner}
spec: {schema: OpenAI, endpoint: {service: {name: runner, port: 80}}, pathPrefix: /v1}
";
    let both = config::budget(1_000_000, "").replace("  limits:", "  - {kind: Service, name: runner}\n  limits:");
    let both = both.replace("scope: [Consumer]", "scope: [Consumer, Model]");
    let documents = [
        config::entry(port),
        config::pool("Required", &[("smol", &[config::Target::new("runner").model("as-the-runner-knows-it")], None)]),
        backend.to_owned(),
        both,
        policy(500_000).replace("name: budget", "name: own"),
    ];
    conf.write("policy.yaml", &config::documents(&documents))?;
    let gateway_folder = folder(&meshed.elsewhere.home, GATEWAY);
    meshed.authority.issue(&gateway_folder, &identity(GATEWAY), Holds::Now, &meshed.authority)?;
    let _control_plane = meshed.serve().await?;
    let runner = meshed.istiod.sidecar(tap.port()).await?;
    conf.write("endpoints.yaml", &endpoints(runner.port()))?;
    meshed.elsewhere.bootstrap("1h")?;
    let _envoy = meshed.elsewhere.envoy(1)?;
    let url = format!("http://127.0.0.1:{port}");
    let client = Client::new(&url, Some(KEY));
    answers(&client, 200, "the Gateway leads to the runner").await?;

    // What a client says of it is taken away.
    let forged = "0a037765621a04736d6f6c";
    let headers = [("x-tollgate-handover", forged)];
    client.post_with(CHAT, &headers, client::chat("smol", 8).to_string()).await?.expect(200)?;
    let seen = tap.settled().await?;
    anyhow::ensure!(seen.iter().all(|seen| !seen.everything().contains("x-tollgate")), "{seen:?}");
    anyhow::ensure!(seen.iter().all(|seen| !seen.everything().contains(KEY)), "{seen:?}");

    let admin = meshed.elsewhere.admin();
    let rows = admin.usage_of("consumer=keyed", 2).await?;
    anyhow::ensure!(rows.iter().all(|row| row.route == "chat"), "the Gateway tells of it: {rows:?}");
    charged_once(&admin, 2).await?;
    // Whoever asks the runner itself has the same budget of the model, as the pool names it.
    let direct = meshed.caller("stranger", &runner).await?;
    Client::new(&direct.url(), Some(KEY)).chat("as-the-runner-knows-it").await?.expect(200)?;
    charged_once(&admin, 3).await?;

    // Nobody else hands anything over, and the Gateway's own identity is no Consumer.
    for account in ["stranger", "web"] {
        let caller = meshed.caller(account, &runner).await?;
        let body = client::chat("smol", 8).to_string();
        let answer = Client::new(&caller.url(), None).post_with(CHAT, &headers, body).await?;
        answer.expect(if account == "web" { 200 } else { 401 })?;
    }
    let rows = admin.usage_of("consumer=web", 1).await?;
    anyhow::ensure!(rows.iter().all(|row| row.route == "service/runner"), "{rows:?}");
    let as_gateway = meshed.caller(GATEWAY, &runner).await?;
    Client::new(&as_gateway.url(), None).chat("smol").await?.expect(401).map(drop)
}

/// Both budgets have so many requests of the Consumer `keyed`, each of them once and as one budget.
async fn charged_once(admin: &Admin, requests: u64) -> anyhow::Result<()> {
    let rows = admin.usage_of("consumer=keyed", requests).await?;
    let used: u64 = rows.iter().map(|row| row.input_tokens + row.output_tokens).sum();
    let of_both = json!({"Consumer": "keyed", "Model": "smol"});
    let once = [vec![(of_both, used)], vec![(json!({"Consumer": "keyed"}), used)]];
    poll::until("both budgets are settled", || async {
        let budgets = admin.settled_budgets().await?;
        let of = |policy: &str| -> Vec<_> {
            let own = budgets.iter().filter(|row| row.policy == policy);
            own.map(|row| (row.scope.clone(), row.spent)).collect()
        };
        anyhow::ensure!([of("budget"), of("own")] == once, "{used}: {budgets:?}");
        Ok(())
    })
    .await
}
