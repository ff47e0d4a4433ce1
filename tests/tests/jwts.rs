//! A runner whose sidecar verifies JWTs as Istio's RequestAuthentication has it do: callers are known by their claims, and
//! budgets are for them.

use std::sync::Arc;

use serde_json::{Value, json};
use tollgate_tests::client::{self, Client};
use tollgate_tests::jwt::Issuer;
use tollgate_tests::poll;

use crate::sidecars::{CHAT, FOREIGN, KEY, Meshed, policy};
use crate::suite::{Shared, e2e};

e2e! {
    callers_are_known_by_claims_that_envoy_has_verified,
    a_budget_is_for_each_value_of_a_claim_that_envoy_has_verified,
}

const IDP: &str = "https://idp.example";

/// Who is known by claims. `keyed` has a key, too.
const CONSUMERS: &str = "\
apiVersion: tollgate.dev/v1alpha1
kind: Consumer
metadata: {name: research}
spec: {claims: [{issuer: \"https://idp.example\", match: {groups: research, level: \"3\"}}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: Consumer
metadata: {name: alice}
spec: {claims: [{issuer: \"https://idp.example\", match: {sub: alice, groups: research, level: \"3\"}}]}
";

/// Posts with these headers, without a key of ours.
async fn ask(client: &Client, headers: &[(&str, &str)]) -> anyhow::Result<client::Answer> {
    client.post_with(CHAT, headers, client::chat("smol", 8).to_string()).await
}

fn bearer(jwt: &str) -> String {
    format!("Bearer {jwt}")
}

fn researcher(name: &str) -> Value {
    json!({"sub": name, "groups": ["staff", "research"], "level": 3})
}

async fn callers_are_known_by_claims_that_envoy_has_verified(shared: Arc<Shared>) -> anyhow::Result<()> {
    let (idp, evil) = (Issuer::new(IDP)?, Issuer::new(IDP)?);
    let meshed = Meshed::new(&shared, "callers_are_known_by_claims_that_envoy_has_verified", "runner").await?;
    meshed.elsewhere.conf.write("claims.yaml", CONSUMERS)?;
    let _control_plane = meshed.serve().await?;
    let admin = meshed.elsewhere.admin();

    // By default Istio's sidecars take a JWT away that they have verified. They may be told to leave it.
    for forward in [false, true] {
        let before = [admin.usage("consumer=research").await?, admin.usage("consumer=alice").await?];
        let before = before.map(|rows| rows.iter().map(|row| row.requests).sum::<u64>());
        let verifies = idp.request_authentication(forward)?;
        let runner = meshed.istiod.sidecar_after(meshed.tap.port(), &[verifies]).await?;
        let caller = meshed.caller(&shared, "stranger", &runner).await?;
        let client = Client::new(&caller.url(), None);
        // A RequestAuthentication reads Authorization and takes no key there, so keys are in a header of their own.
        let keyed = || async { ask(&client, &[("x-api-key", KEY)]).await?.expect(200) };
        poll::until("the keys are there", keyed).await?;
        Client::new(&caller.url(), Some(KEY)).chat("smol").await?.expect(401)?;

        meshed.tap.forget();
        let (bob, alice) = (bearer(&idp.jwt(&researcher("bob"))?), bearer(&idp.jwt(&researcher("alice"))?));
        ask(&client, &[("authorization", &bob)]).await?.expect(200)?;
        ask(&client, &[("authorization", &alice)]).await?.expect(200)?;
        admin.usage_of("consumer=research", before[0] + 1).await?;
        admin.usage_of("consumer=alice", before[1] + 1).await?;
        let seen = meshed.tap.settled().await?;
        anyhow::ensure!(seen.iter().all(|seen| !seen.everything().contains("eyJ")), "a JWT has gone on: {seen:?}");

        // Without one, with claims of nobody, or with one that is not verified.
        ask(&client, &[]).await?.expect(401)?;
        for claims in [
            json!({"sub": "carol", "groups": ["staff"], "level": 3}),
            json!({"sub": "carol", "groups": ["research"], "level": 30}),
            json!({"sub": "carol", "level": 3}),
        ] {
            let jwt = bearer(&idp.jwt(&claims)?);
            let answer = ask(&client, &[("authorization", &jwt)]).await?.expect(401)?;
            anyhow::ensure!(answer.text().contains("the claims of your JWT"), "{claims}: {}", answer.text());
        }
        let forged = evil.jwt(&researcher("alice"))?;
        let answer = ask(&client, &[("authorization", &bearer(&forged))]).await?.expect(401)?;
        anyhow::ensure!(!answer.text().contains("invalid_api_key"), "Envoy itself refuses it: {}", answer.text());
        for header in ["x-api-key", "x-jwt-payload", "x-tollgate-consumer", "x-envoy-payload"] {
            ask(&client, &[(header, &forged)]).await?.expect(401)?;
        }

        // A key of the same Consumer is none here, so each key is that of another.
        let answer = ask(&client, &[("authorization", &bob), ("x-api-key", KEY)]).await?.expect(401)?;
        anyhow::ensure!(answer.text().contains("another Consumer"), "{}", answer.text());
        ask(&client, &[("authorization", &bob), ("x-api-key", FOREIGN)]).await?.expect(401)?;
        // So is the identity of one.
        let web = meshed.caller(&shared, "web", &runner).await?;
        let by_web = Client::new(&web.url(), None);
        let answer = ask(&by_web, &[("authorization", &bob)]).await?.expect(401)?;
        anyhow::ensure!(answer.text().contains("another Consumer"), "{}", answer.text());
        let carol = bearer(&idp.jwt(&json!({"sub": "carol"}))?);
        ask(&by_web, &[("authorization", &carol)]).await?.expect(200)?;
        ask(&client, &[("authorization", &carol), ("x-api-key", KEY)]).await?.expect(200)?;
    }

    // A Consumer that asks for other claims acts where it runs.
    let runner = meshed.istiod.sidecar_after(meshed.tap.port(), &[idp.request_authentication(false)?]).await?;
    let caller = meshed.caller(&shared, "stranger", &runner).await?;
    let client = Client::new(&caller.url(), None);
    let robot = bearer(&idp.jwt(&json!({"sub": "robot", "admin": true}))?);
    poll::until("the keys are there", || async { ask(&client, &[("authorization", &robot)]).await?.expect(401) })
        .await?;
    let admins = CONSUMERS.replace("{groups: research, level: \"3\"}", "{admin: \"true\"}");
    meshed.elsewhere.conf.write("claims.yaml", &admins)?;
    meshed.istiod.send().await?;
    let known = || async { ask(&client, &[("authorization", &robot)]).await?.expect(200) };
    poll::until("the claims are looked at", known).await.map(drop)
}

async fn a_budget_is_for_each_value_of_a_claim_that_envoy_has_verified(shared: Arc<Shared>) -> anyhow::Result<()> {
    let idp = Issuer::new(IDP)?;
    let test = "a_budget_is_for_each_value_of_a_claim_that_envoy_has_verified";
    let meshed = Meshed::new(&shared, test, "runner").await?;
    let staff = "\
apiVersion: tollgate.dev/v1alpha1
kind: Consumer
metadata: {name: staff}
spec: {claims: [{issuer: \"https://idp.example\"}]}
";
    meshed.elsewhere.conf.write("claims.yaml", staff)?;
    // One answer is more than a budget has, and its debt is carried.
    let by_claim = policy(60).replace("scope: [Consumer]", "scope: [Consumer, Claim/team]");
    meshed.elsewhere.conf.write("policy.yaml", &by_claim)?;
    let _control_plane = meshed.serve().await?;
    let runner = meshed.istiod.sidecar_after(meshed.tap.port(), &[idp.request_authentication(false)?]).await?;
    let caller = meshed.caller(&shared, "stranger", &runner).await?;
    let client = Client::new(&caller.url(), None);
    let jwts = ["red", "blue"].map(|team| idp.jwt(&json!({"sub": "a", "team": team})).map(|jwt| bearer(&jwt)));
    let [red, blue] = jwts;
    let (red, blue) = (red?, blue?);
    poll::until("the keys are there", || async { ask(&client, &[("authorization", &red)]).await?.expect(200) }).await?;
    let over = || async { ask(&client, &[("authorization", &red)]).await?.expect(429) };
    poll::until("the budget of red is used up", over).await?;
    ask(&client, &[("authorization", &blue)]).await?.expect(200)?;
    ask(&client, &[("authorization", &red)]).await?.expect(429)?;

    let budgets = meshed.elsewhere.admin().settled_budgets().await?;
    for team in ["red", "blue"] {
        let scope = json!({"Consumer": "staff", "Claim/team": team});
        anyhow::ensure!(budgets.iter().any(|row| row.scope == scope && row.spent > 0), "{team}: {budgets:?}");
    }
    Ok(())
}
