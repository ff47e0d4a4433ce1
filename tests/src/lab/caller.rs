//! Pods of a mesh that ask others. Istio's webhook gives them their sidecars.

use serde_json::json;

use super::curl::{Answer, CURL};
use super::{Lab, PATIENCE, WAIT};
use crate::poll;

/// A Pod of the mesh that asks others.
pub struct Caller<'a> {
    lab: &'a Lab,
    namespace: String,
    name: String,
}

/// A question to a model.
pub fn question(model: &str) -> String {
    json!({"model": model, "max_tokens": 8, "messages": [{"role": "user", "content": "What is a lighthouse?"}]})
        .to_string()
}

// === impl Caller ===

impl<'a> Caller<'a> {
    /// Waits until this Pod may ask. Its account has its name.
    pub async fn ready(lab: &'a Lab, namespace: &str, name: &str) -> anyhow::Result<Self> {
        let pod = format!("pod/{name}");
        lab.kubectl(&["-n", namespace, "wait", "--for=condition=Ready", WAIT, &pod]).await?.success()?;
        Ok(Self { lab, namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// Asks by curl.
    pub async fn ask(&self, arguments: &[&str]) -> anyhow::Result<Answer> {
        let exec = ["-n", &self.namespace, "exec", &self.name, "-c", "caller", "--"];
        Answer::read(self.lab.kubectl(&[&exec[..], &CURL, arguments].concat()).await?)
    }

    /// Asks a model there.
    pub async fn chat(&self, host: &str) -> anyhow::Result<Answer> {
        self.chat_with(host, &[]).await
    }

    /// The same, with more arguments of curl.
    pub async fn chat_with(&self, host: &str, more: &[&str]) -> anyhow::Result<Answer> {
        let (url, body) = (format!("http://{host}/v1/chat/completions"), question("smol"));
        let request = [url.as_str(), "-H", "content-type: application/json", "-d", body.as_str()];
        self.ask(&[&request[..], more].concat()).await
    }

    /// Asks until it is answered with this status.
    pub async fn answered(&self, host: &str, status: u16, what: &str) -> anyhow::Result<Answer> {
        self.answered_with(host, &[], status, what).await
    }

    /// The same, with more arguments of curl.
    pub async fn answered_with(&self, host: &str, more: &[&str], status: u16, what: &str) -> anyhow::Result<Answer> {
        poll::within(PATIENCE, what, || async { self.chat_with(host, more).await?.expect(status) }).await
    }

    /// Asks until the answer is by the filter: it names this limit. A connection from before the first policy has no filter.
    pub async fn limited(&self, host: &str, tokens: u64) -> anyhow::Result<()> {
        let expected = format!("x-ratelimit-limit-tokens: {tokens}\r\n");
        poll::within(PATIENCE, "the policy is in force", || async {
            let answer = self.chat(host).await?.expect(200)?;
            anyhow::ensure!(answer.head.contains(&expected), "{answer:?}");
            Ok(())
        })
        .await
    }

    /// As certificates of the mesh name it.
    pub fn identity(&self) -> String {
        format!("spiffe://cluster.local/ns/{}/sa/{}", self.namespace, self.name)
    }
}
