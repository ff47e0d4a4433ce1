//! Objects that people change while requests are answered.

use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::sleep;
use tollgate_tests::lab::PATIENCE;
use tollgate_tests::poll;
use tollgate_tests::soak::{Consumer, Model};

use super::{GATEWAY, PLACE, Run, objects};
use crate::replicas::{proxies, told};
use crate::shop;

/// The old key counts for so many seconds after clients have the new one.
const STILL: i64 = 5;
/// In so long many requests show a credential.
const OLD: Duration = Duration::from_secs(2);

impl Run {
    /// Clients change over within the overlap. Nobody notices, and then the old key is worth nothing.
    pub(super) async fn key_is_rotated(&mut self) -> anyhow::Result<()> {
        let consumer = Consumer::Stays;
        let rotate = ["key", "rotate", "--consumer", consumer.name(), "--namespace", PLACE, "--apply"];
        let rotated = self.lab.tollgate(&[&rotate[..], &["--overlap", "1h"]].concat())?.success()?;
        let key = rotated.out.trim().to_owned();
        for _ in 0..4 {
            poll::within(PATIENCE, "the new key is let in", || objects::lists_models(&self.lab, &self.url, &key))
                .await?;
        }
        let old = self.load.show(consumer, key).context("it had no key")?;
        // Only now, because an overlap of seconds might be over before all clients have changed.
        let soon = Timestamp::from_second(Timestamp::now().as_second() + STILL)?.to_string();
        let ends = json!([{"op": "replace", "path": "/spec/keys/0/notAfter", "value": soon}]);
        self.patch("consumer", consumer.name(), &ends).await?;
        poll::within(PATIENCE, "the old key is refused", || async {
            let authorization = format!("authorization: Bearer {old}");
            shop::ask(&self.lab, &[&format!("{}/v1/models", self.url), "-H", &authorization]).await?.expect(401)
        })
        .await
        .map(drop)
    }

    pub(super) async fn credential_is_rotated(&mut self) -> anyhow::Result<()> {
        let number = self.backend.credentials().len();
        let credential = format!("soak-credential-{number}");
        let patch = json!({"stringData": {"apiKey": credential}}).to_string();
        self.lab.kubectl(&["-n", PLACE, "patch", "secret", "provider", "-p", &patch]).await?.success()?;
        let shown = |backends: &std::collections::BTreeMap<String, u64>, credential: &str| {
            backends.get(&format!("Bearer {credential}")).copied().unwrap_or(0)
        };
        poll::within(PATIENCE, "the new credential is shown", || async {
            anyhow::ensure!(shown(&self.backend.credentials(), &credential) > 0, "it is not");
            Ok(())
        })
        .await?;
        // The proxies hear of it one after the other.
        poll::within(PATIENCE, "the old credential is not shown any more", || async {
            let before = self.backend.credentials();
            sleep(OLD).await;
            let after = self.backend.credentials();
            let old: Vec<_> = before.keys().filter(|known| !known.ends_with(&credential)).collect();
            anyhow::ensure!(!old.is_empty() && shown(&after, &credential) > shown(&before, &credential), "{after:?}");
            let still: Vec<_> = old.into_iter().filter(|known| after.get(*known) != before.get(*known)).collect();
            anyhow::ensure!(still.is_empty(), "shown after it was replaced: {still:?}");
            Ok(())
        })
        .await
    }

    /// Another rule, which each proxy acts on.
    pub(super) async fn route_is_changed(&mut self) -> anyhow::Result<()> {
        self.each_proxy_hears().await
    }

    /// Adds a rule, waits until each proxy acts on it, and takes it away again.
    pub(super) async fn each_proxy_hears(&mut self) -> anyhow::Result<()> {
        self.heard += 1;
        let path = format!("/changed-{}", self.heard);
        let rule = json!({
            "matches": [{"path": {"type": "Exact", "value": path}}],
            "filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": "changed.example"}}],
        });
        let (add, remove) = (
            json!({"op": "add", "path": "/spec/rules/1", "value": rule}),
            json!({"op": "remove", "path": "/spec/rules/1"}),
        );
        for (change, status) in [(add, 302), (remove, 404)] {
            self.patch("httproute", "chat", &json!([change])).await?;
            for (_, address) in proxies(&self.lab, PLACE, GATEWAY).await? {
                let url = format!("http://{address}{path}");
                let answer = async || shop::get(&self.lab, &url).await?.expect(status);
                poll::within(PATIENCE, "the proxy acts on the change", answer).await?;
            }
        }
        Ok(())
    }

    /// Another model, which is listed.
    pub(super) async fn pool_is_changed(&mut self) -> anyhow::Result<()> {
        let model = json!({"name": "another", "targets": [{"backendRef": {"name": "spare"}}]});
        let place = format!("/spec/models/{}", Model::ALL.len());
        self.patch("modelpool", "chat", &json!([{"op": "add", "path": place, "value": model}])).await?;
        self.another_is_listed(true).await?;
        self.patch("modelpool", "chat", &json!([{"op": "remove", "path": place}])).await?;
        self.another_is_listed(false).await
    }

    async fn another_is_listed(&self, wanted: bool) -> anyhow::Result<()> {
        let authorization = format!("authorization: Bearer {}", Consumer::Leaves.key());
        poll::within(PATIENCE, "the models are listed", || async {
            let url = format!("{}/v1/models", self.url);
            let answer = shop::ask(&self.lab, &[&url, "-H", &authorization]).await?.expect(200)?;
            anyhow::ensure!(answer.body.contains("\"another\"") == wanted, "{answer:?}");
            Ok(())
        })
        .await
    }

    /// Another limit, which the ledger knows. What was spent stays.
    pub(super) async fn policy_is_changed(&mut self) -> anyhow::Result<()> {
        let tokens = objects::PLENTY + 1 + self.times.values().sum::<u64>();
        let change = json!([{"op": "replace", "path": "/spec/limits/0/tokens", "value": tokens}]);
        self.patch("tokenpolicy", "chat", &change).await?;
        let leader = self.leader_when_there().await?;
        poll::within(PATIENCE, "the ledger knows the new limit", || async {
            let rows = told(&leader, "budgets").await?;
            let known = rows.iter().any(|row| row.get("tokens").and_then(Value::as_u64) == Some(tokens));
            anyhow::ensure!(known, "{rows:?}");
            Ok(())
        })
        .await
    }

    async fn patch(&self, kind: &str, name: &str, change: &Value) -> anyhow::Result<()> {
        let change = change.to_string();
        let patch = ["-n", PLACE, "patch", kind, name, "--type", "json", "-p", change.as_str()];
        self.lab.kubectl(&patch).await?.success().map(drop)
    }
}
