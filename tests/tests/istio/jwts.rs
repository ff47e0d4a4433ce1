//! JWTs in a real mesh: Istio has the runner's sidecar verify them, and Tollgate the Gateway.

use std::sync::Arc;

use serde_json::json;
use tollgate_tests::jwt::Issuer;
use tollgate_tests::lab::books;
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::lab::{Lab, WAIT};

use crate::gateway::GATEWAY;
use crate::members;
use crate::sidecars::host;

e2e! {
    a_jwt_shows_its_consumer_at_a_gateway_and_in_a_sidecar,
}

const IDP: &str = "https://idp.example";

/// One is for the runner's sidecar, and one for the Gateway.
const VERIFIED: &str = "
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: runner, namespace: NAMESPACE}
spec:
  selector: {matchLabels: {app: runner}}
  jwtRules: RULES
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: llm, namespace: NAMESPACE}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: llm}]
  jwtRules: RULES
---
apiVersion: tollgate.dev/v1alpha1
kind: Consumer
metadata: {name: research, namespace: NAMESPACE}
spec: {claims: [{issuer: 'https://idp.example', match: {groups: research}}]}
";

async fn a_jwt_shows_its_consumer_at_a_gateway_and_in_a_sidecar(lab: Arc<Lab>) -> anyhow::Result<()> {
    let (idp, evil) = (Issuer::new(IDP)?, Issuer::new(IDP)?);
    let ns = "jwts";
    members::namespace(&lab, ns).await?;
    members::runner(&lab, ns).await?;
    let stranger = members::caller(&lab, ns, "stranger").await?;
    members::apply(&lab, ns, GATEWAY).await?;
    let rules = json!([{"issuer": IDP, "jwks": idp.keys()?}]).to_string();
    members::apply(&lab, ns, &VERIFIED.replace("RULES", &rules)).await?;
    lab.kubectl(&["-n", ns, "wait", "--for=condition=Programmed", WAIT, "gateway/llm"]).await?.success()?;

    let claims = json!({"sub": "alice", "groups": ["staff", "research"]});
    let header = |issuer: &Issuer| anyhow::Ok(format!("authorization: Bearer {}", issuer.jwt(&claims)?));
    let (good, forged) = (header(&idp)?, header(&evil)?);
    for (place, requests) in [(host(ns), 1), (format!("llm-tollgate.{ns}:8443"), 2)] {
        stranger.answered(&place, 401, "nobody is known without a JWT").await?;
        stranger.answered_with(&place, &["-H", &good], 200, "the JWT shows the Consumer").await?;
        stranger.chat_with(&place, &["-H", &forged]).await?.expect(401)?;
        books::rows(&lab, &format!("{ns}/research"), requests).await?;
    }
    Ok(())
}
