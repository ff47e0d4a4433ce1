//! JWTs that Envoy verifies as a RequestAuthentication says, at a Gateway of ours and in a runner's sidecar, which istiod tells:
//! callers are known by their claims, and budgets are for them.

use std::sync::Arc;

use serde_json::{Value, json};
use tollgate_tests::client::{self, Client};
use tollgate_tests::jwt::Issuer;
use tollgate_tests::meshed::{FOREIGN, KEY, policy};
use tollgate_tests::poll;
use tollgate_tests::process::ClosedPort;
use tollgate_tests::tap::Behaviour;

use crate::fixtures::{APP_KEY, Basic, Drains};
use crate::sidecars::{CHAT, meshed};
use crate::suite::{Shared, e2e};

e2e! {
    callers_are_known_by_claims_that_envoy_has_verified,
    a_budget_is_for_each_value_of_a_claim_that_envoy_has_verified,
    a_gateway_knows_callers_by_jwts,
    a_gateway_looks_at_other_claims_and_its_listener_stays,
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
    let (meshed, tap) = meshed(&shared, "callers_are_known_by_claims_that_envoy_has_verified", "runner").await?;
    meshed.elsewhere.conf.write("claims.yaml", CONSUMERS)?;
    let _control_plane = meshed.serve().await?;
    let admin = meshed.elsewhere.admin();

    // By default Istio's sidecars take a JWT away that they have verified. They may be told to leave it.
    for forward in [false, true] {
        let before = [admin.usage("consumer=research").await?, admin.usage("consumer=alice").await?];
        let before = before.map(|rows| rows.iter().map(|row| row.requests).sum::<u64>());
        let verifies = idp.request_authentication(forward)?;
        let runner = meshed.istiod.sidecar_after(tap.port(), &[verifies]).await?;
        let caller = meshed.caller("stranger", &runner).await?;
        let client = Client::new(&caller.url(), None);
        // A RequestAuthentication reads Authorization and takes no key there, so keys are in a header of their own.
        let keyed = || async { ask(&client, &[("x-api-key", KEY)]).await?.expect(200) };
        poll::until("the keys are there", keyed).await?;
        Client::new(&caller.url(), Some(KEY)).chat("smol").await?.expect(401)?;

        tap.forget();
        let (bob, alice) = (bearer(&idp.jwt(&researcher("bob"))?), bearer(&idp.jwt(&researcher("alice"))?));
        ask(&client, &[("authorization", &bob)]).await?.expect(200)?;
        ask(&client, &[("authorization", &alice)]).await?.expect(200)?;
        admin.usage_of("consumer=research", before[0] + 1).await?;
        admin.usage_of("consumer=alice", before[1] + 1).await?;
        let seen = tap.settled().await?;
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
        let web = meshed.caller("web", &runner).await?;
        let by_web = Client::new(&web.url(), None);
        let answer = ask(&by_web, &[("authorization", &bob)]).await?.expect(401)?;
        anyhow::ensure!(answer.text().contains("another Consumer"), "{}", answer.text());
        let carol = bearer(&idp.jwt(&json!({"sub": "carol"}))?);
        ask(&by_web, &[("authorization", &carol)]).await?.expect(200)?;
        ask(&client, &[("authorization", &carol), ("x-api-key", KEY)]).await?.expect(200)?;
    }

    // A Consumer that asks for other claims acts where it runs.
    let runner = meshed.istiod.sidecar_after(tap.port(), &[idp.request_authentication(false)?]).await?;
    let caller = meshed.caller("stranger", &runner).await?;
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
    let (meshed, tap) = meshed(&shared, test, "runner").await?;
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
    let runner = meshed.istiod.sidecar_after(tap.port(), &[idp.request_authentication(false)?]).await?;
    let caller = meshed.caller("stranger", &runner).await?;
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

/// Whose keys are fetched.
const FETCHED: &str = "https://fetched.example";

/// What has a Gateway verify the JWTs of these two. Those of the first are for an audience.
fn verified(idp: &Issuer, keys: u16) -> anyhow::Result<String> {
    let rules = json!([
        {"issuer": IDP, "jwks": idp.keys()?, "audiences": ["llm"]},
        {"issuer": FETCHED, "jwksUri": format!("http://127.0.0.1:{keys}/keys")},
    ]);
    Ok(format!(
        "\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: sso}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: llm}}]
  jwtRules: {rules}
"
    ))
}

/// A route to an application, which has its own business with JWTs.
fn application(port: u16) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: application}}
spec:
  parentRefs: [{{name: llm}}]
  rules: [{{matches: [{{path: {{value: /application}}}}], backendRefs: [{{name: application, port: 80}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: application}}
spec: {{ports: [{{name: http, port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: application-1, labels: {{kubernetes.io/service-name: application}}}}
addressType: IPv4
endpoints: [{{addresses: [127.0.0.1]}}]
ports: [{{name: http, port: {port}}}]
"
    )
}

async fn a_gateway_knows_callers_by_jwts(shared: Arc<Shared>) -> anyhow::Result<()> {
    let (idp, fetched, evil) = (Issuer::new(IDP)?, Issuer::new(FETCHED)?, Issuer::new(IDP)?);
    let keys = shared.tap().await?;
    keys.behave(Behaviour::Answer { content_type: "application/json", body: fetched.keys()?.into_bytes() });
    let other = "\
---
apiVersion: tollgate.dev/v1alpha1
kind: Consumer
metadata: {name: partner}
spec: {claims: [{issuer: \"https://fetched.example\"}]}
";
    let basic = Basic::start_with(&shared, "a_gateway_knows_callers_by_jwts", |setup, tap| {
        setup
            .file("sso.yaml", &verified(&idp, keys.port())?)?
            .file("claims.yaml", &format!("{CONSUMERS}{other}"))?
            .file("application.yaml", &application(tap.port()))
    })
    .await?;
    let (client, admin) = (basic.gateway.without_key(), basic.gateway.admin());
    let ours = |issuer: &Issuer, more: Value| -> anyhow::Result<String> {
        let mut claims = researcher("bob");
        let all = claims.as_object_mut().ok_or_else(|| anyhow::anyhow!("an object"))?;
        all.insert("aud".to_owned(), json!(["llm", "other"]));
        all.extend(more.as_object().cloned().unwrap_or_default());
        Ok(bearer(&issuer.jwt(&claims)?))
    };

    let bob = ours(&idp, json!({}))?;
    ask(&client, &[("authorization", &bob)]).await?.expect(200)?;
    admin.usage_of("consumer=research", 1).await?;
    let of_partner = ours(&fetched, json!({}))?;
    let known = || async { ask(&client, &[("authorization", &of_partner)]).await?.expect(200) };
    poll::until("the keys are fetched", known).await?;
    admin.usage_of("consumer=partner", 1).await?;
    // Where a JWT may be, a key may be as well.
    basic.client().chat("smol").await?.expect(200)?;
    let seen = basic.tap.settled().await?;
    anyhow::ensure!(!seen.is_empty() && seen.iter().all(|seen| !seen.everything().contains("eyJ")), "{seen:?}");

    // Nobody is known by what is not verified.
    let unknown = Issuer::new("https://unknown.example")?;
    for (why, jwt) in [
        ("another key", ours(&evil, json!({}))?),
        ("another issuer", ours(&unknown, json!({}))?),
        ("another audience", ours(&idp, json!({"aud": "other"}))?),
        ("no audience", ours(&idp, json!({"aud": null}))?),
        ("it has ended", ours(&idp, json!({"exp": 1_000_000_000}))?),
        ("it has not begun", ours(&idp, json!({"nbf": 4_000_000_000_u32}))?),
        ("another issuer's key", ours(&fetched, json!({"iss": IDP}))?),
        ("no signature", bob.rsplit_once('.').map(|(signed, _)| format!("{signed}.")).unwrap_or_default()),
    ] {
        let answer = ask(&client, &[("authorization", &jwt)]).await?;
        anyhow::ensure!(answer.status == 401, "{why}: {answer:?}");
        anyhow::ensure!(answer.text().contains("invalid_api_key"), "{why}: an SDK knows it: {}", answer.text());
    }
    let jwt = bob.trim_start_matches("Bearer ");
    for header in ["x-api-key", "x-jwt-payload", "x-tollgate-consumer"] {
        ask(&client, &[(header, jwt)]).await?.expect(401)?;
    }
    let path = format!("{CHAT}?access_token={jwt}");
    client.post(&path, client::chat("smol", 8).to_string()).await?.expect(401)?;
    // With the key of another Consumer it is nobody's.
    let answer = ask(&client, &[("authorization", &bob), ("x-api-key", APP_KEY)]).await?.expect(401)?;
    anyhow::ensure!(answer.text().contains("another Consumer"), "{}", answer.text());

    // What is for no model passes with what it brings.
    basic.tap.forget();
    for jwt in [&bob, &ours(&evil, json!({}))?] {
        client.get_with("/application", &[("authorization", jwt)]).await?;
        let seen = basic.tap.settled().await?;
        anyhow::ensure!(seen.last().is_some_and(|seen| seen.everything().contains(jwt.as_str())), "{seen:?}");
    }
    Ok(())
}

async fn a_gateway_looks_at_other_claims_and_its_listener_stays(shared: Arc<Shared>) -> anyhow::Result<()> {
    let idp = Issuer::new(IDP)?;
    let test = "a_gateway_looks_at_other_claims_and_its_listener_stays";
    // Nobody answers where the keys of the other issuer are.
    let nowhere = ClosedPort::new()?;
    let basic = Basic::start_with(&shared, test, |setup, _| {
        setup.file("sso.yaml", &verified(&idp, nowhere.port())?)?.file("claims.yaml", CONSUMERS)
    })
    .await?;
    let client = basic.gateway.without_key();
    let robot = bearer(&idp.jwt(&json!({"sub": "robot", "admin": true, "aud": "llm"}))?);
    let answer = ask(&client, &[("authorization", &robot)]).await?.expect(401)?;
    anyhow::ensure!(answer.text().contains("the claims of your JWT"), "{}", answer.text());

    let envoy = basic.gateway.envoy()?;
    let before = Drains::of(&envoy)?;
    let admins = CONSUMERS.replace("{groups: research, level: \"3\"}", "{admin: \"true\"}");
    basic.gateway.folder().write("claims.yaml", &admins)?;
    let known = || async { ask(&client, &[("authorization", &robot)]).await?.expect(200) };
    poll::until("the claims are looked at", known).await?;
    anyhow::ensure!(Drains::of(&envoy)? == before, "the listener is another");

    // Without the rule nobody is known by a JWT, and keys count as before.
    basic.gateway.folder().remove("sso.yaml")?;
    poll::until("nothing is verified", || async { ask(&client, &[("authorization", &robot)]).await?.expect(401) })
        .await?;
    let told = |status: &Value| status.to_string().contains("no Gateway verifies JWTs of this issuer");
    basic.gateway.status_when("the status says that nothing is verified", told).await?;
    basic.client().chat("smol").await?.expect(200).map(drop)
}
