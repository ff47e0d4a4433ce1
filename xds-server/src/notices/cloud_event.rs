//! A crossing as JSON for other programs: a CloudEvent 1.0 in structured mode.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tollgate_core::ledger::Crossing;

pub const MEDIA_TYPE: &str = "application/cloudevents+json; charset=utf-8";
pub const TYPE: &str = "dev.tollgate.budget.threshold";

/// Whoever gets it twice can tell: `source` and `id` are the same whenever this crossing is sent. `time` and `spent` are those
/// of the sending.
pub fn of(crossing: &Crossing, now: Timestamp) -> Value {
    let Crossing { key, policy, limit, threshold, scope, spent, tokens, window_end } = crossing;
    let scope: Map<String, Value> =
        scope.iter().zip(&key.scope).map(|(part, value)| (part.to_string(), value.as_str().into())).collect();
    json!({
        "specversion": "1.0",
        "type": TYPE,
        "source": format!("/apis/tollgate.dev/namespaces/{}/tokenpolicies/{}", policy.namespace, policy.name),
        "subject": limit,
        "id": id(crossing),
        "time": time(now.as_second()),
        "datacontenttype": "application/json",
        "data": {
            "namespace": &*policy.namespace,
            "policy": &*policy.name,
            "limit": limit,
            "scope": scope,
            "threshold": threshold,
            "spent": spent,
            "tokens": tokens,
            "windowStart": time(key.window_start),
            "windowEnd": (*window_end != 0).then(|| time(*window_end)),
        },
    })
}

/// The same for the same threshold of the same bucket, and for no other.
fn id(crossing: &Crossing) -> String {
    let Crossing { key, threshold, .. } = crossing;
    let name = json!([key.limit, key.scope, key.window_start, threshold]).to_string();
    let mut id = hex::encode(Sha256::digest(name));
    id.truncate(32);
    id
}

fn time(second: i64) -> Option<String> {
    Timestamp::from_second(second).ok().map(|time| time.to_string())
}
