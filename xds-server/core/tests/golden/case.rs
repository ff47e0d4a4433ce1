//! One case: its input, and what is made of it in the sections that the case shows.
//!
//! ```yaml
//! # What the case is about.
//! # Shows: findings, statuses, ir, envoy
//! # In a mesh                (the proxies are in one, which has another trust domain besides)
//! # Scoped above: 0          (only where the form of route tables is what the case is about)
//! # Filter: native           (the Gateways run the filter as a module of Envoy)
//! # Signals: all             (an access log, and spans to a collector)
//! apiVersion: ...
//! --- # findings
//! --- # statuses
//! --- # ir
//! --- # envoy
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize as _;
use serde_json::{Value, json};
use tollgate_core::envoy::{
    self, ControlCluster, FilterCode, FilterSetup, IstioCluster, Ports, RequestFields, RouteTables, Runtime, Sampling,
    Shown, Signals, Surroundings, Tracing,
};
use tollgate_core::ir::Ir;
use tollgate_core::istio;
use tollgate_core::mesh::Mesh;
use tollgate_core::objects::{Key, Objects, SecretSource};
use tollgate_core::placement::{Direction, Placement, Setting, Sidecars};
use tollgate_core::snapshot::{ResourceType, Snapshot};
use tollgate_core::status::{Finding, ObjectStatus};
use tollgate_core::terms::{Collector, Security};
use tollgate_core::translate::translate;
use tollgate_filter::route_name::RouteName;

use crate::common::Common;

pub struct Case<'a> {
    input: &'a str,
    shows: Vec<&'a str>,
    route_tables: RouteTables,
    runtime: Runtime,
    signals: Signals,
    setting: Setting,
}

const SECTIONS: [&str; 5] = ["findings", "statuses", "ir", "envoy", "istio"];
/// Of a Gateway, where a case says nothing else.
const OF_GATEWAYS: usize = 4;

impl<'a> Case<'a> {
    pub fn parse(text: &'a str) -> Self {
        let end = SECTIONS.iter().filter_map(|section| text.find(&format!("--- # {section}\n"))).min();
        let input = &text[..end.unwrap_or(text.len())];
        let shows = input.lines().find_map(|line| line.strip_prefix("# Shows: "));
        let shows = shows
            .map_or_else(|| SECTIONS.iter().copied().take(OF_GATEWAYS).collect(), |shows| shows.split(", ").collect());
        let scoped_above = input.lines().find_map(|line| line.strip_prefix("# Scoped above: "));
        let route_tables = scoped_above
            .map_or_else(RouteTables::default, |limit| RouteTables { scoped_above: limit.parse().unwrap() });
        let placement = match input.lines().find_map(|line| line.strip_prefix("# Placement: ")) {
            None | Some("OneHost") => Placement::OneHost,
            Some("ProxyPerGateway") => Placement::ProxyPerGateway,
            Some("OneFleet") => Placement::OneFleet(Key::new("tollgate-system", "proxies")),
            Some("Sidecar(Inbound)") => Placement::Sidecar(Direction::Inbound),
            Some("Sidecar(Outbound)") => Placement::Sidecar(Direction::Outbound),
            Some(other) => panic!("there is no placement {other}"),
        };
        let mesh = input.lines().any(|line| line == "# In a mesh").then(|| Arc::new(mesh()));
        let beside = input.lines().any(|line| line == "# Sidecars: Both");
        let sidecars = if beside { Sidecars::Both } else { Sidecars::None };
        let runs_natively = input.lines().any(|line| line == "# Filter: native");
        let module = || Runtime::Native(FilterCode::File("filter.so".to_owned()));
        let runtime = if runs_natively { module() } else { Runtime::Wasm };
        let tells = input.lines().any(|line| line == "# Signals: all");
        let signals = if tells { all_signals() } else { Signals::default() };
        Self { input, shows, route_tables, runtime, signals, setting: Setting { placement, mesh, sidecars } }
    }

    /// The whole file as it should be.
    pub fn run(&self, name: &str, common: &Common) -> String {
        let mut objects = Objects::default();
        // Findings of a file are shown by line alone: where the case lies is no part of what it shows.
        let mut findings = objects.add_yaml("case", self.input, &Machine);
        let mut translation = translate(&objects, self.setting.clone());
        let statuses = translation.statuses(&objects, &findings);
        findings.append(&mut translation.findings);
        let surroundings = surroundings(self.route_tables, self.runtime.clone(), self.signals.clone());
        findings.extend(envoy::findings(&objects, &translation.ir, &surroundings.filter));
        let mut output = self.input.trim_end().to_owned() + "\n";
        let snapshots: BTreeMap<String, Snapshot> = translation
            .ir
            .gateways
            .values()
            .map(|gateway| {
                (gateway.catalog.scope.to_string(), envoy::snapshot(gateway, &translation.ir, &surroundings))
            })
            .collect();
        for gateway in translation.ir.gateways.values() {
            let again = envoy::snapshot(gateway, &translation.ir, &surroundings);
            assert!(
                snapshots.get(&gateway.catalog.scope.to_string()) == Some(&again),
                "{name}: the same input has two versions"
            );
        }
        for (gateway, snapshot) in &snapshots {
            check(&format!("{name}: {gateway}"), snapshot);
        }
        for section in &self.shows {
            let value = match *section {
                "findings" => lines(&findings),
                "statuses" => yaml(&common.fold(&self::statuses(&statuses))),
                "ir" => yaml(&ir(&translation.ir)),
                "envoy" => yaml(&json!(
                    snapshots
                        .iter()
                        .map(|(name, snapshot)| (name, common.fold(&envoy::to_json(snapshot))))
                        .collect::<BTreeMap<_, _>>()
                )),
                "istio" => yaml(&kept(name, &translation.ir)),
                other => panic!("{name}: there is no section {other}"),
            };
            write!(output, "--- # {section}\n{value}").unwrap();
        }
        output
    }
}

/// The objects of all workloads and frontends, by name. The filter takes what they hold.
fn kept(name: &str, ir: &Ir) -> Value {
    let cluster = IstioCluster::new("tollgate.tollgate-system.svc.cluster.local", 18002).unwrap();
    let uri = "http://tollgate.tollgate-system.svc.cluster.local:18003/code/abc.wasm".to_owned();
    let code = FilterCode::ByAgent { sha256: "abc".to_owned(), uri, teller: "tollgate".to_owned() };
    let gateways = ["spiffe://cluster.local/ns/default/sa/llm-tollgate".to_owned()].into();
    let control_cluster = ControlCluster::Istio(cluster);
    let setup =
        FilterSetup { code, runtime: Runtime::Wasm, control_cluster, gateways, fields: RequestFields::default() };
    let mut filters = serde_json::Map::new();
    for workload in ir.workloads.values() {
        let stage = filter_of(name, &envoy::of_workload(workload, ir, &setup));
        let tollgate_filter::config::Place::Workload(place) = stage.unwrap().place else {
            panic!("{name}: it is no workload's");
        };
        assert_eq!(place.scope, workload.catalog.scope.to_string());
        let filter = istio::envoy_filter(workload, ir, &setup, Shown::AsMessage).unwrap();
        let filter = filter.map(|kept| kept.document);
        filters.insert(workload.catalog.scope.to_string(), filter.unwrap_or_default());
    }
    for frontend in ir.frontends.values() {
        let stage = filter_of(name, &envoy::of_frontend(frontend, &setup)).unwrap();
        assert!(!stage.needs_control_plane(), "{name}: it is no caller's");
        for kept in istio::frontend(frontend, &setup, Shown::AsMessage).unwrap() {
            filters.insert(kept.name.to_string(), kept.document);
        }
    }
    Value::Object(filters)
}

/// What the filter itself reads of its configuration. None: it sees no requests.
fn filter_of(name: &str, message: &[u8]) -> Option<tollgate_filter::config::RequestStage> {
    use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
    use envoy_types::pb::envoy::extensions::filters::http::dynamic_modules::v3::DynamicModuleFilter;
    use envoy_types::pb::envoy::extensions::filters::http::wasm::v3::Wasm;
    use envoy_types::pb::google::protobuf::BytesValue;
    use prost::Message as _;
    let extension = TypedExtensionConfig::decode(message).unwrap();
    let filter = extension.typed_config.unwrap();
    let configuration = if filter.type_url.contains("dynamic_modules") {
        DynamicModuleFilter::decode(filter.value.as_slice()).unwrap().filter_config.unwrap()
    } else {
        Wasm::decode(filter.value.as_slice()).unwrap().config.unwrap().configuration.unwrap()
    };
    let bytes = BytesValue::decode(configuration.value.as_slice()).unwrap().value;
    let config = tollgate_filter::config::parse(&bytes);
    let config = config.unwrap_or_else(|error| panic!("{name}: the filter refuses {}: {error}", extension.name));
    match config.stage {
        tollgate_filter::config::Stage::Request(stage) => Some(stage),
        _ => None,
    }
}

/// What holds for every snapshot, whatever the case shows.
fn check(name: &str, snapshot: &Snapshot) {
    let mut classes = BTreeSet::new();
    for (_, value) in snapshot.of(ResourceType::ExtensionConfig) {
        if let Some(stage) = filter_of(name, &value.content.bytes()) {
            classes = stage.classes.all().iter().map(|(id, _)| id.clone()).collect();
        }
    }
    check_routes(name, snapshot, &classes);
    check_scopes(name, snapshot);
    let printed = envoy::to_json(snapshot).to_string();
    assert!(!printed.contains("PLANTED"), "{name}: a secret is printed");
    assert!(!printed.contains("\"error\":"), "{name}: a resource cannot be printed: {printed}");
    for kind in [
        ResourceType::Listener,
        ResourceType::Route,
        ResourceType::ScopedRoute,
        ResourceType::Cluster,
        ResourceType::ExtensionConfig,
    ] {
        for (resource, value) in snapshot.of(kind) {
            let bytes = value.content.bytes();
            let content = String::from_utf8_lossy(&bytes);
            assert!(!content.contains("PLANTED"), "{name}: a secret is in {kind:?} {resource}");
        }
    }
    for (resource, value) in ResourceType::ALL.into_iter().flat_map(|kind| snapshot.of(kind)) {
        assert!(!value.origins.is_empty(), "{name}: {resource} has no origin");
    }
}

/// A request may have no route when its filters start, if routes are looked for among scopes. Then no route turns one on.
fn check_scopes(name: &str, snapshot: &Snapshot) {
    use envoy_types::pb::envoy::config::listener::v3::{Listener, filter::ConfigType};
    use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
        HttpConnectionManager, http_connection_manager::RouteSpecifier,
    };
    use prost::{Message as _, Name as _};
    for (resource, value) in snapshot.of(ResourceType::Listener) {
        let listener = Listener::decode(&*value.content.bytes()).unwrap();
        let chains = listener.filter_chains.into_iter().chain(listener.default_filter_chain);
        for filter in chains.flat_map(|chain| chain.filters) {
            let Some(ConfigType::TypedConfig(config)) = filter.config_type else { continue };
            if config.type_url != HttpConnectionManager::type_url() {
                continue;
            }
            let manager = HttpConnectionManager::decode(config.value.as_slice()).unwrap();
            if matches!(manager.route_specifier, Some(RouteSpecifier::ScopedRoutes(_))) {
                let off = manager.http_filters.iter().find(|filter| filter.disabled);
                assert!(off.is_none(), "{name}: in {resource} this is off: {off:?}");
            }
        }
    }
}

/// The filter reads the name of every route and has the classes in them, and no others. It is on where a route has one.
fn check_routes(name: &str, snapshot: &Snapshot, classes: &BTreeSet<String>) {
    use envoy_types::pb::envoy::config::route::v3::{FilterConfig, RouteConfiguration, route::Action};
    use prost::Message as _;
    let mut used = BTreeSet::new();
    let is_there = snapshot.of(ResourceType::ExtensionConfig).any(|(filter, _)| filter.ends_with("/request"));
    for (resource, value) in snapshot.of(ResourceType::Route) {
        for host in RouteConfiguration::decode(&*value.content.bytes()).unwrap().virtual_hosts {
            let mut has_pool = false;
            for route in host.routes {
                match RouteName::parse(&route.name) {
                    Some(RouteName::Plain) => {}
                    Some(RouteName::OfClass { class, .. }) => {
                        has_pool = true;
                        used.insert(class.to_owned());
                    }
                    // Envoy answers by itself.
                    None if matches!(route.action, Some(Action::DirectResponse(_))) && route.name.is_empty() => {}
                    None => panic!("{name}: the filter cannot read {:?} in {resource}", route.name),
                }
            }
            let off: Vec<_> = host.typed_per_filter_config.into_iter().collect();
            match off.as_slice() {
                [] => assert!(has_pool || !is_there, "{name}: the filter is on in {} of {resource}", host.name),
                [(filter, config)] => {
                    assert!(
                        snapshot.get(ResourceType::ExtensionConfig, filter).is_some(),
                        "{name}: there is no {filter}"
                    );
                    assert!(FilterConfig::decode(config.value.as_slice()).unwrap().disabled, "{name}: {filter}");
                    assert!(!has_pool, "{name}: the filter is off in {} of {resource}", host.name);
                }
                more => panic!("{name}: {} settings in {} of {resource}", more.len(), host.name),
            }
        }
    }
    assert_eq!(&used, classes, "{name}: the classes of the filter are those of the routes");
}

fn lines(findings: &[Finding]) -> String {
    findings.iter().fold(String::new(), |mut text, finding| {
        let line = json!(finding.to_string()).to_string();
        writeln!(text, "- {line}").unwrap();
        text
    })
}

/// The `status` of each object, before any proxy is heard.
fn statuses(statuses: &[ObjectStatus]) -> Value {
    let of = |object: &ObjectStatus| {
        let place = if object.namespace.is_empty() { String::new() } else { format!("{}/", object.namespace) };
        let name = format!("{} {place}{}", object.kind.name(), object.name);
        (name, serde_json::to_value(&object.status).unwrap())
    };
    let value = Value::Object(statuses.iter().map(of).collect());
    assert!(!value.to_string().contains("PLANTED"), "a secret is in a status");
    value
}

/// The IR, with origins in one word each.
fn ir(ir: &Ir) -> Value {
    let mut value = serde_json::to_value(ir).unwrap();
    shorten(&mut value);
    let text = value.to_string();
    assert!(!text.contains("PLANTED"), "a secret is in the serialized IR");
    value
}

fn shorten(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(origin) = map.get_mut("origin") {
                let part = |name: &str| origin.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
                let mut text = format!("{} {}/{}", part("kind"), part("namespace"), part("name"));
                if let Some(section) = origin.get("section").and_then(Value::as_str) {
                    write!(text, " ({section})").unwrap();
                }
                *origin = Value::String(text);
            }
            map.values_mut().for_each(shorten);
        }
        Value::Array(items) => items.iter_mut().for_each(shorten),
        _ => {}
    }
}

fn yaml(value: &Value) -> String {
    let mut text = String::new();
    value.serialize(&mut serde_saphyr::Serializer::new(&mut text)).unwrap();
    if text.ends_with('\n') { text } else { text + "\n" }
}

fn all_signals() -> Signals {
    let host = "otel.observability.svc.cluster.local".to_owned();
    let collector = Collector { host, port: 4317, security: Security::SystemAuthorities };
    let tracing = Tracing { collector, sampling: Sampling::of_percent(5.0).unwrap() };
    Signals { access_log: Some("/dev/stdout".to_owned()), tracing: Some(tracing) }
}

fn surroundings(route_tables: RouteTables, runtime: Runtime, signals: Signals) -> Surroundings {
    let filter = FilterSetup::of_gateways(FilterCode::File("filter.wasm".to_owned())).with_runtime(runtime);
    Surroundings {
        route_tables,
        bind: "127.0.0.1".to_owned(),
        ports: Ports::Shared,
        filter: filter.telling(signals.fields(RequestFields::Kept)),
        signals,
    }
}

/// A machine with one file and one variable.
struct Machine;

impl SecretSource for Machine {
    fn file(&self, path: &str) -> Result<String, String> {
        if path == "./key.txt" { Ok("PLANTED-from-file\n".to_owned()) } else { Err("no such file".to_owned()) }
    }

    fn env(&self, name: &str) -> Result<String, String> {
        if name == "OPENAI_API_KEY" { Ok("PLANTED-from-env".to_owned()) } else { Err("it is not set".to_owned()) }
    }
}

fn mesh() -> Mesh {
    Mesh {
        trust_domain: "cluster.local".to_owned(),
        aliases: vec!["old.example".to_owned()],
        cluster_domain: "cluster.local".to_owned(),
        certificates: "/var/lib/istio/data".to_owned(),
    }
}
