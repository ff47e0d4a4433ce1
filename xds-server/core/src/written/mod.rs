//! What is written into the `status` of an object in a cluster: the joined status of `status/`, put into what is there.
//!
//! It is pure: the status that the cluster has and the one that we know go in, and the next one comes out, or nothing if
//! the cluster says the same already. Others write into the same field. So only what is ours is compared and replaced:
//! the conditions of our types, and of a route or a policy the entries that name our controller. The time of a
//! condition is that of its last change of verdict, so another reason or message leaves it.

mod features;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::objects::{CONTROLLER_NAME, GATEWAY_GROUP};
use crate::status::{Brief, ConditionType, ObjectStatus, Phase, Spent, StatusKind};

/// The Gateway API allows as many entries of parents, for all controllers together (RouteStatus.parents).
const ENTRIES: usize = 32;
/// How many ListenerSets are attached to a Gateway.
const ATTACHED: &str = "attachedListenerSets";
/// metav1.Condition.message has this limit.
const MESSAGE: usize = 32_768;
/// Of our own kinds.
const OBSERVED: &str = "observedGeneration";
const LAST_USED: &str = "lastUsed";
const SPENT_TODAY: &str = "spentToday";
const USED_BY: &str = "usedBy";
const BACKENDS: &str = "backends";

/// What is ours in a status, without times. Two that say the same have the same one. It lives no longer than the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Print {
    hash: u64,
    last_used: Option<i64>,
    spent_today: Option<Spent>,
}

/// What people must see although they do not look at a status.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    pub reason: String,
    pub message: String,
}

/// What the status of an object is to say.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    kind: StatusKind,
    status: Map<String, Value>,
    observed: Option<i64>,
}

// === impl Print ===

impl Print {
    /// Of the `status` of an object as a cluster has it. An object without one has the print of an empty one.
    pub fn of(kind: StatusKind, status: Option<&Value>) -> Self {
        Self::of_fields(kind, status.and_then(Value::as_object))
    }

    fn of_fields(kind: StatusKind, status: Option<&Map<String, Value>>) -> Self {
        let mut hasher = DefaultHasher::new();
        ours(kind, status).to_string().hash(&mut hasher);
        let last_used = status.and_then(last_used).and_then(|text| text.parse::<Timestamp>().ok());
        let spent_today = status.and_then(spent_today);
        Self { hash: hasher.finish(), last_used: last_used.map(Timestamp::as_second), spent_today }
    }

    /// When a Consumer was used last, as the status has it, in Unix seconds.
    pub fn last_used(self) -> Option<i64> {
        self.last_used
    }

    /// What a Consumer had spent on which day, as the status has it.
    pub fn spent_today(self) -> Option<Spent> {
        self.spent_today
    }
}

// === impl Alarm ===

impl Alarm {
    /// Each key is told of by itself.
    fn of_key(sentence: &str) -> Self {
        Self { reason: Phase::reason_of(sentence).to_string(), message: sentence.to_owned() }
    }
}

// === impl Wanted ===

impl Wanted {
    pub fn new(object: &ObjectStatus) -> Self {
        let kind = object.kind;
        let status = match serde_json::to_value(&object.status) {
            Ok(Value::Object(status)) => status,
            _ => Map::new(),
        };
        let mut wanted = Self { kind, status, observed: object.status.generation };
        match kind {
            StatusKind::GatewayClass => {
                let has_own_proxies = matches!(object.brief, Brief::GatewayClass { has_own_proxies: true, .. });
                wanted.put("supportedFeatures", features::all(has_own_proxies));
            }
            StatusKind::Gateway => {
                wanted.put(ATTACHED, json!(object.status.attached_listener_sets));
                wanted.keep_reachable_addresses();
            }
            StatusKind::ListenerSet => {}
            StatusKind::HttpRoute | StatusKind::GrpcRoute | StatusKind::TlsRoute => {}
            StatusKind::BackendTlsPolicy | StatusKind::InferencePool => {}
            StatusKind::Consumer => {
                let keys = if let Brief::Consumer { keys, .. } = &object.brief { *keys } else { 0 };
                wanted.put("keys", json!(keys));
                wanted.put(LAST_USED, json!(object.status.last_used));
                wanted.put(SPENT_TODAY, json!(object.status.spent_today));
                wanted.put(USED_BY, json!(object.status.used_by));
            }
            StatusKind::ModelPool => {
                wanted.put(BACKENDS, json!(object.status.backends));
                wanted.put(USED_BY, json!(object.status.used_by));
            }
            StatusKind::ModelBackend => wanted.put(USED_BY, json!(object.status.used_by)),
            StatusKind::TokenPolicy => {}
        }
        // What is not said any more is taken back.
        let fields = fields(kind);
        if fields.contains(&OBSERVED) {
            wanted.put(OBSERVED, json!(wanted.observed));
        }
        wanted.status.retain(|field, _| fields.contains(&field.as_str()));
        fields.iter().for_each(|field| {
            wanted.status.entry(*field).or_insert_with(|| json!([]));
        });
        wanted.status.values_mut().for_each(shorten);
        wanted
    }

    /// Of a route or pool that is not ours to answer for: that it has no parent of ours. Of another kind nothing says whether it
    /// was ours, so its status is left alone.
    pub fn nothing(kind: StatusKind) -> Option<Self> {
        let status = [("parents".to_owned(), json!([]))].into_iter().collect();
        kind.has_parents().then_some(Self { kind, status, observed: None })
    }

    pub fn print(&self) -> Print {
        Print::of_fields(self.kind, Some(&self.status))
    }

    /// Whether the object has a generation that this was made before or of. Another object of the same name may be new.
    pub fn is_about(&self, generation: Option<i64>) -> bool {
        match (self.observed, generation) {
            (Some(observed), Some(generation)) => observed <= generation,
            _ => true,
        }
    }

    /// The status with this in place of what was ours in it. None: it says so already. `now` is in the format of RFC 3339.
    pub fn into_status(mut self, current: Option<&Value>, now: &str) -> Option<Value> {
        let nothing = Map::new();
        let current = current.and_then(Value::as_object).unwrap_or(&nothing);
        // Another leader may know of a later use. The format sorts like the times.
        if let Some(before) = last_used(current)
            && self.kind == StatusKind::Consumer
            && last_used(&self.status).is_none_or(|known| known < before)
        {
            self.put(LAST_USED, json!(before));
        }
        if ours(self.kind, Some(current)) == ours(self.kind, Some(&self.status)) {
            return None;
        }
        let mut next = current.clone();
        let list = entries(self.kind);
        for (field, value) in &self.status {
            let old = current.get(field);
            let value = match (field.as_str(), value) {
                ("conditions", Value::Array(new)) => conditions(list_of(old), new, now),
                ("listeners", Value::Array(new)) => listeners(list_of(old), new, now),
                (name, Value::Array(new)) if Some(name) == list => of_controllers(list_of(old), new, now),
                _ => value.clone(),
            };
            next.insert(field.clone(), value);
        }
        Some(Value::Object(next))
    }

    /// What people must see of it and `current` does not say: a policy that is refused and closes its targets, what an
    /// Envoy refuses, a certificate that cannot be used, each key that ends soon or has ended.
    pub fn alarms(&self, current: Option<&Value>) -> BTreeSet<Alarm> {
        let mut now = self.alarms_in(&self.status);
        let before = current.and_then(Value::as_object).map(|current| self.alarms_in(current)).unwrap_or_default();
        now.retain(|alarm| !before.contains(alarm));
        now
    }

    fn alarms_in(&self, status: &Map<String, Value>) -> BTreeSet<Alarm> {
        let get = |field: &str| list_of(status.get(field));
        let own = entries(self.kind).map(get).unwrap_or_default().iter().filter(|entry| is_own_entry(entry));
        let parts = own.chain(get("listeners"));
        let conditions = parts.flat_map(|part| list_of(part.get("conditions"))).chain(get("conditions"));
        let alarms = |condition: &Value| -> Vec<Alarm> {
            let text = |field: &str| condition.get(field).and_then(Value::as_str).unwrap_or_default();
            let (about, verdict, reason, message) = (text("type"), text("status"), text("reason"), text("message"));
            if about == ConditionType::KeysExpiring.name() {
                return message.split("; ").map(Alarm::of_key).collect();
            }
            let is_alarm = match (self.kind, about, reason) {
                (StatusKind::TokenPolicy | StatusKind::BackendTlsPolicy, "Accepted", _)
                | (_, "Accepted", "Refused")
                | (_, "ResolvedRefs", "InvalidCertificateRef") => verdict == "False",
                (StatusKind::Gateway, "Programmed", "Invalid") => verdict == "False" && !message.is_empty(),
                _ => false,
            };
            let alarm = is_alarm.then(|| Alarm { reason: reason.to_owned(), message: message.to_owned() });
            alarm.into_iter().collect()
        };
        conditions.flat_map(alarms).collect()
    }

    fn put(&mut self, field: &str, value: Value) {
        self.status.insert(field.to_owned(), value);
    }

    /// An address that means "all of this machine" leads nobody anywhere.
    fn keep_reachable_addresses(&mut self) {
        let Some(Value::Array(addresses)) = self.status.get_mut("addresses") else { return };
        let is_anywhere = |address: &Value| {
            let text = address.get("value").and_then(Value::as_str);
            text.and_then(|text| text.parse::<IpAddr>().ok()).is_some_and(|ip| ip.is_unspecified())
        };
        addresses.retain(|address| !is_anywhere(address));
    }
}

/// The fields of a status that are ours.
fn fields(kind: StatusKind) -> &'static [&'static str] {
    match kind {
        StatusKind::GatewayClass => &["conditions", "supportedFeatures"],
        StatusKind::Gateway => &["addresses", ATTACHED, "conditions", "listeners"],
        StatusKind::ListenerSet => &["conditions", "listeners"],
        StatusKind::HttpRoute | StatusKind::GrpcRoute | StatusKind::TlsRoute | StatusKind::InferencePool => {
            &["parents"]
        }
        StatusKind::ModelPool => &[OBSERVED, "conditions", BACKENDS, USED_BY],
        StatusKind::ModelBackend => &[OBSERVED, "conditions", USED_BY],
        StatusKind::Consumer => &[OBSERVED, "conditions", "keys", LAST_USED, SPENT_TODAY, USED_BY],
        StatusKind::BackendTlsPolicy => &["ancestors"],
        StatusKind::TokenPolicy => &[OBSERVED, "conditions", "ancestors"],
    }
}

/// Cuts messages that the API server would not take.
fn shorten(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(message)) = fields.get_mut("message") {
                message.truncate(message.floor_char_boundary(MESSAGE));
            }
            fields.values_mut().for_each(shorten);
        }
        Value::Array(items) => items.iter_mut().for_each(shorten),
        _ => {}
    }
}

/// The list that several controllers write into, each its own entries.
fn entries(kind: StatusKind) -> Option<&'static str> {
    match kind {
        kind if kind.has_parents() => Some("parents"),
        StatusKind::BackendTlsPolicy | StatusKind::TokenPolicy => Some("ancestors"),
        _ => None,
    }
}

/// What is ours, in one form whoever wrote it.
fn ours(kind: StatusKind, status: Option<&Map<String, Value>>) -> Value {
    let get = |field: &str| list_of(status.and_then(|status| status.get(field)));
    if kind.has_parents() {
        return json!(own_entries(get("parents")));
    }
    let conditions = own_conditions(get("conditions"));
    match kind {
        StatusKind::GatewayClass => {
            let features = get("supportedFeatures").iter().map(|feature| feature.get("name"));
            json!([conditions, features.collect::<Vec<_>>()])
        }
        StatusKind::ListenerSet => json!([conditions, own_listeners(get("listeners"))]),
        StatusKind::Gateway => {
            let addresses = get("addresses").iter().map(|address| [address.get("type"), address.get("value")]);
            // An API server that does not know the field leaves it out.
            let sets = status.and_then(|status| status.get(ATTACHED)).and_then(Value::as_u64).unwrap_or_default();
            json!([conditions, addresses.collect::<Vec<_>>(), own_listeners(get("listeners")), sets])
        }
        StatusKind::BackendTlsPolicy => json!(own_entries(get("ancestors"))),
        StatusKind::TokenPolicy => json!([observed(status), conditions, own_entries(get("ancestors"))]),
        StatusKind::Consumer => {
            let keys = status.and_then(|status| status.get("keys"));
            let spent = status.and_then(spent_today);
            json!([observed(status), conditions, keys, status.and_then(last_used), spent, used_by(status)])
        }
        StatusKind::ModelPool => {
            let backends = status.and_then(|status| status.get(BACKENDS));
            let backends = ["total", "ready"].map(|count| backends.and_then(|backends| backends.get(count)));
            json!([observed(status), conditions, backends, used_by(status)])
        }
        _ => json!([observed(status), conditions, used_by(status)]),
    }
}

fn own_listeners(listeners: &[Value]) -> Vec<Value> {
    let listeners = listeners.iter().map(|listener| {
        let kinds = list_of(listener.get("supportedKinds"));
        let kinds: Vec<_> = kinds.iter().map(|kind| [kind.get("group"), kind.get("kind")]).collect();
        let conditions = own_conditions(list_of(listener.get("conditions")));
        json!([listener.get("name"), listener.get("attachedRoutes"), kinds, conditions])
    });
    listeners.collect()
}

fn last_used(status: &Map<String, Value>) -> Option<&str> {
    status.get(LAST_USED).and_then(Value::as_str)
}

fn spent_today(status: &Map<String, Value>) -> Option<Spent> {
    let spent = status.get(SPENT_TODAY)?;
    let date = spent.get("date")?.as_str()?.parse().ok()?;
    Some(Spent { date, tokens: spent.get("tokens")?.as_u64()? })
}

fn observed(status: Option<&Map<String, Value>>) -> Option<&Value> {
    status.and_then(|status| status.get(OBSERVED))
}

fn used_by(status: Option<&Map<String, Value>>) -> Value {
    let Some(used_by) = status.and_then(|status| status.get(USED_BY)).filter(|used_by| used_by.is_object()) else {
        return Value::Null;
    };
    let named = list_of(used_by.get("objects")).iter();
    let named = named.map(|object| json!(["group", "kind", "namespace", "name"].map(|field| object.get(field))));
    json!([used_by.get("total"), named.collect::<Vec<_>>()])
}

fn own_entries(entries: &[Value]) -> Vec<Value> {
    let own = entries.iter().filter(|entry| is_own_entry(entry));
    own.map(|entry| json!([reference(entry), own_conditions(list_of(entry.get("conditions")))])).collect()
}

fn own_conditions(conditions: &[Value]) -> Vec<Value> {
    let mut own: Vec<&Value> = conditions.iter().filter(|condition| is_own_condition(condition)).collect();
    own.sort_by_key(|condition| about(condition));
    let fields = |condition: &Value| {
        json!(["type", "status", "reason", "message", "observedGeneration"].map(|field| condition.get(field)))
    };
    own.into_iter().map(fields).collect()
}

fn list_of(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn about(condition: &Value) -> Option<&str> {
    condition.get("type").and_then(Value::as_str)
}

fn is_own_condition(condition: &Value) -> bool {
    let all = ConditionType::ALL.map(ConditionType::name);
    about(condition).is_some_and(|about| all.contains(&about))
}

fn is_own_entry(entry: &Value) -> bool {
    entry.get("controllerName").and_then(Value::as_str) == Some(CONTROLLER_NAME)
}

/// What an entry is about. The API server fills in the defaults of a reference, and we may have left them out.
fn reference(entry: &Value) -> [Value; 6] {
    let reference = entry.get("parentRef").or_else(|| entry.get("ancestorRef"));
    let get = |field: &str| reference.and_then(|reference| reference.get(field)).cloned();
    [
        get("group").unwrap_or_else(|| json!(GATEWAY_GROUP)),
        get("kind").unwrap_or_else(|| json!(StatusKind::Gateway.name())),
        get("namespace").unwrap_or_default(),
        get("name").unwrap_or_default(),
        get("sectionName").unwrap_or_default(),
        get("port").unwrap_or_default(),
    ]
}

/// Conditions of other types stay, and stand first.
fn conditions(old: &[Value], new: &[Value], now: &str) -> Value {
    let others = old.iter().filter(|condition| !is_own_condition(condition)).cloned();
    let new = new.iter().map(|condition| {
        let before = old.iter().find(|old| about(old) == about(condition));
        let before = before.filter(|before| before.get("status") == condition.get("status"));
        let since = before.and_then(|before| before.get("lastTransitionTime")?.as_str());
        with(condition, "lastTransitionTime", json!(since.unwrap_or(now)))
    });
    others.chain(new).collect()
}

fn listeners(old: &[Value], new: &[Value], now: &str) -> Value {
    let new = new.iter().map(|listener| {
        let before = old.iter().find(|before| before.get("name") == listener.get("name"));
        with_conditions(before, listener, now)
    });
    new.collect()
}

/// Entries of other controllers stay where they are.
fn of_controllers(old: &[Value], new: &[Value], now: &str) -> Value {
    let mut new = new.iter().map(|entry| {
        let mut own = old.iter().filter(|before| is_own_entry(before));
        let before = own.find(|before| reference(before) == reference(entry));
        with_conditions(before, entry, now)
    });
    let foreign = old.iter().filter(|entry| !is_own_entry(entry)).count();
    let mut left = ENTRIES.saturating_sub(foreign);
    let mut next = Vec::new();
    for entry in old {
        if !is_own_entry(entry) {
            next.push(entry.clone());
        } else if left > 0
            && let Some(entry) = new.next()
        {
            left -= 1;
            next.push(entry);
        }
    }
    next.extend(new.take(left));
    Value::Array(next)
}

fn with_conditions(before: Option<&Value>, entry: &Value, now: &str) -> Value {
    let old = before.and_then(|before| before.get("conditions"));
    let conditions = conditions(list_of(old), list_of(entry.get("conditions")), now);
    with(entry, "conditions", conditions)
}

fn with(value: &Value, field: &str, content: Value) -> Value {
    let mut fields = value.as_object().cloned().unwrap_or_default();
    fields.insert(field.to_owned(), content);
    Value::Object(fields)
}
