//! A gateway for tests: what the control plane would have told the filter, and the keys in shared data.

use prost::Message as _;
use tollgate_proto::v1 as wire;

use crate::{
    config::{Config, parse},
    host::FakeShared,
    key::{Proof, Table, record},
    worker::prepare_records,
};

/// The names of routes: to the pool, plain, closed by a policy, and of a class that there is not.
pub const CHAT: &str = "c0/httproute/default/chat/rule/0/match/0";
pub const PLAIN: &str = "httproute/default/plain/rule/0/match/0";
pub const CLOSED: &str = "c1/httproute/default/closed/rule/0/match/0";
pub const UNKNOWN: &str = "c2/httproute/default/chat/rule/0/match/0";

/// Who is believed by the sidecars of [`workload`].
pub const GATEWAY: &str = "spiffe://cluster.local/ns/default/sa/llm-tollgate";

/// One model on backend a with b behind it, held to 1000 tokens per consumer, and a class that a policy closes.
pub fn stage() -> wire::RequestStage {
    let target =
        |backend: u32| wire::Target { backend, model: format!("smol-{backend}"), weight: 1, priority: backend };
    wire::RequestStage {
        control_cluster: "tollgate_control".into(),
        classes: vec![
            wire::Class { id: "c0".into(), pool: Some(0), limits: vec![0], ..Default::default() },
            wire::Class { id: "c1".into(), pool: Some(0), closed_by: "default/p".into(), ..Default::default() },
        ],
        pools: vec![wire::Pool {
            name: "chat".into(),
            access: wire::Access::Required.into(),
            models: vec![wire::Model {
                name: "smol".into(),
                targets: vec![target(0), target(1)],
                retries: 1,
                ..Default::default()
            }],
            consumer_namespaces: vec!["default".into()],
            ..Default::default()
        }],
        backends: vec![backend("a"), backend("b")],
        limits: vec![wire::Limit {
            id: "default/p/daily".into(),
            scope: vec![wire::ScopePart { part: Some(wire::scope_part::Part::Consumer(true)) }],
            count: Some(wire::CountWeights { input: 1.0, output: 1.0, ..Default::default() }),
            on_early_end: wire::EarlyEnd::Estimate.into(),
            ..Default::default()
        }],
        max_body_bytes: 10_000,
        has_members: true,
        workload: None,
        claim_sets: Vec::new(),
        tells_fields: false,
        in_callers: false,
    }
}

/// The sidecars of callers, where the same pool takes everybody.
pub fn caller() -> wire::RequestStage {
    let mut stage = stage();
    let pool = wire::Pool { access: wire::Access::Anonymous.into(), ..stage.pools.remove(0) };
    wire::RequestStage {
        control_cluster: String::new(),
        classes: vec![wire::Class { id: "c".into(), pool: Some(0), ..Default::default() }],
        pools: vec![pool],
        backends: stage.backends.into_iter().map(|backend| wire::Backend { per_attempt: false, ..backend }).collect(),
        limits: Vec::new(),
        has_members: false,
        in_callers: true,
        ..stage
    }
}

/// The sidecars of a runner, where every request is held to the same limits.
pub fn workload() -> wire::RequestStage {
    wire::RequestStage {
        classes: vec![wire::Class { id: "w".into(), limits: vec![0], ..Default::default() }],
        pools: Vec::new(),
        backends: Vec::new(),
        has_members: false,
        workload: Some(wire::Workload {
            scope: "workload/default/runner/inbound".into(),
            route: "service/runner".into(),
            consumer_namespaces: vec!["default".into()],
            gateways: vec![GATEWAY.into()],
            models: Vec::new(),
        }),
        ..stage()
    }
}

pub fn backend(name: &str) -> wire::Backend {
    wire::Backend {
        name: name.into(),
        cluster: format!("backend/default/{name}"),
        path_prefix: "/v1".into(),
        authority: format!("{name}.example"),
        per_attempt: true,
        hands_over: false,
    }
}

pub fn config(stage: wire::RequestStage) -> Config {
    let config = wire::FilterConfig { stage: Some(wire::filter_config::Stage::Request(stage)) };
    parse(&config.encode_to_vec()).unwrap()
}

/// The keys are `good` of the consumer `app`, `other` that may only use gpt-*, and `foreign` of another namespace. The
/// first and the last are known by an identity too.
pub fn shared() -> FakeShared {
    let shared = FakeShared::default();
    prepare_records(&shared, 7);
    let key = |consumer: &str, namespace: &str, models: &[&str]| wire::ApiKey {
        consumer: consumer.into(),
        namespace: namespace.into(),
        models: models.iter().map(|model| (*model).to_owned()).collect(),
        all_models: models.is_empty(),
        ..Default::default()
    };
    let of_key = |key: &str| Proof::of_key(key.as_bytes());
    let of_identity = |path: &str| Proof::Identity(format!("spiffe://cluster.local/ns/{path}").into());
    for (proof, key) in [
        (of_key("good"), key("app", "default", &[])),
        (of_key("other"), key("other", "default", &["gpt-*"])),
        (of_key("foreign"), key("tenant-b/mallory", "tenant-b", &[])),
        (of_identity("app/sa/web"), key("app", "default", &[])),
        (of_identity("tenant-b/sa/mallory"), key("tenant-b/mallory", "tenant-b", &[])),
    ] {
        let record = record(1, &key.encode_to_vec());
        crate::host::Shared::set(&shared, &proof.record(), &record, None).unwrap();
    }
    Table::Ready(1).write(&shared);
    shared
}
