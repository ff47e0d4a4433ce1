//! What the lab's network has noted of NetworkPolicies, which it enforces (tests/lab/addons/policies.go): how often each
//! rule admitted a connection, and what none admitted.

use std::collections::BTreeMap;

use anyhow::Context;
use serde_json::Value;

use super::Lab;

const TABLE: &str = "lab_policies";

/// A connection that was refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refused {
    pub from: String,
    pub to: String,
    pub protocol: String,
    pub port: u64,
}

// === impl Lab ===

impl Lab {
    /// Connections by `NAMESPACE/POLICY/DIRECTION/RULE/PEER/PORT`, the last three counted from 0.
    pub async fn admitted(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let found = self.nft(&["list", "counters", "table", "ip", TABLE]).await?;
        let counter = |entry: &Value| {
            let counter = entry.get("counter")?;
            Some((counter.get("name")?.as_str()?.to_owned(), counter.get("packets")?.as_u64()?))
        };
        Ok(found.iter().filter_map(counter).collect())
    }

    /// Forgets what was refused, and returns it.
    pub async fn refused(&self) -> anyhow::Result<Vec<Refused>> {
        let found = self.nft(&["list", "set", "ip", TABLE, "refused"]).await?;
        self.exec(&["nft", "flush", "set", "ip", TABLE, "refused"]).await?.success()?;
        let elements = found.iter().filter_map(|entry| entry.pointer("/set/elem")?.as_array()).flatten();
        let refused = elements.filter_map(|element| {
            let [from, to, protocol, port] = element.get("concat")?.as_array()?.as_slice() else { return None };
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            Some(Refused { from: text(from), to: text(to), protocol: text(protocol), port: port.as_u64()? })
        });
        Ok(refused.collect())
    }

    async fn nft(&self, arguments: &[&str]) -> anyhow::Result<Vec<Value>> {
        let output = self.exec(&[&["nft", "-j"], arguments].concat()).await?.success()?;
        let found: Value = serde_json::from_str(&output.out)?;
        Ok(found.get("nftables").and_then(Value::as_array).context("nft lists nothing")?.clone())
    }
}
