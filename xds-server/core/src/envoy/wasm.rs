//! The filter as Envoy runs it: plugin configurations by ECDS, and the places that name them. `module.rs` has those of
//! the other form, for the proxies of Gateways that run it so.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::extensions::filters::http::dynamic_modules::v3::DynamicModuleFilter;
use envoy_types::pb::envoy::extensions::filters::http::wasm::v3::Wasm;
use envoy_types::pb::envoy::extensions::filters::network::dynamic_modules::v3::DynamicModuleNetworkFilter;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use envoy_types::pb::envoy::extensions::filters::network::wasm::v3::Wasm as NetworkWasm;
use envoy_types::pb::envoy::extensions::wasm::v3::{
    FailurePolicy, PluginConfig, ReloadConfig, VmConfig, plugin_config,
};
use envoy_types::pb::google::protobuf::{Any, BytesValue};
use prost::{Message as _, Name as _};
use tollgate_proto::v1::FilterConfig;

use crate::ir::{Catalog, Frontend, Ir, Workload};
use crate::placement::Direction;
use crate::scope::Scope;
use crate::snapshot::{Resource, ResourceType, Snapshot};
use crate::status::Origin;

use super::wire::{ads, any, duration, extension, yes};
use super::{
    FilterCode, FilterSetup, attempt_config, connection_config, frontend_config, module, request_config,
    workload_config,
};

/// All stages of the filter of a Gateway run in the same VM of a worker and share its data.
const VM_ID: &str = "tollgate";

/// A VM that died is not replaced before this time has passed, and until then the worker refuses. If they die one after
/// the other, the time grows tenfold. Envoy's default is one second.
const RELOAD_AFTER: Duration = Duration::from_millis(100);

/// Stands between a filter's name and the stamp of a sending.
const STAMP: &str = "#sent=";

/// What a filter stands between.
enum Kind {
    Http,
    Network,
}

pub fn add(snapshot: &mut Snapshot, catalog: &Catalog, ir: &Ir, setup: &FilterSetup) {
    if !is_needed(catalog) {
        return;
    }
    let scope = &catalog.scope;
    let of_scope = vec![scope.origin()];
    let mut origins = of_scope.clone();
    origins.extend(catalog.pools.values().map(|pool| pool.origin.clone()));
    origins.extend(catalog.backends.values().map(|backend| backend.origin.clone()));
    let request = request_config(catalog, ir, setup);
    let module = module::of(setup, &request);
    let plugin =
        |name: &str, root: &str, config: &FilterConfig| Some(plugin((name, root), VM_ID.to_owned(), config, setup));
    let mut insert = |name: String, root: &str, config: &FilterConfig, kind: Kind, origins: Vec<Origin>| {
        let resource = match (module, kind) {
            (None, Kind::Http) => extension(&name, &Wasm { config: plugin(&name, root, config) }),
            (None, Kind::Network) => extension(&name, &NetworkWasm { config: plugin(&name, root, config) }),
            (Some(code), Kind::Http) => extension(&name, &module::http(&name, code, config, setup)),
            (Some(code), Kind::Network) => extension(&name, &module::network(&name, code, config, setup)),
        };
        snapshot.insert(ResourceType::ExtensionConfig, name, Resource::new(&resource, origins));
    };
    insert(connection_name(scope), "connection", &connection_config(), Kind::Network, of_scope);
    insert(request_name(scope), "request", &request, Kind::Http, origins.clone());
    if let Some(config) = attempt_config(catalog) {
        insert(attempt_name(scope), "attempt", &config, Kind::Http, origins);
    }
}

/// The filter in the sidecars of a workload, as a TypedExtensionConfig that Istio sends on.
///
/// It has a VM of its own. A sidecar may have the filter for two Services, and each has its own keys and its own leases.
pub fn of_workload(workload: &Workload, ir: &Ir, setup: &FilterSetup) -> Vec<u8> {
    let scope = &workload.catalog.scope;
    let name = request_name(scope);
    let config = workload_config(workload, ir, setup);
    let plugin = plugin((&name, "request"), format!("{VM_ID}/{scope}"), &config, setup);
    extension(&name, &Wasm { config: Some(plugin) }).encode_to_vec()
}

/// The filter in the sidecars of callers.
pub fn of_frontend(frontend: &Frontend, setup: &FilterSetup) -> Vec<u8> {
    let name = frontend_name(frontend);
    let plugin = plugin((&name, "request"), format!("{VM_ID}/{name}"), &frontend_config(frontend), setup);
    extension(&name, &Wasm { config: Some(plugin) }).encode_to_vec()
}

/// Where the filter has nothing to decide, there is none. A Gateway without a route to a pool is an ordinary proxy.
pub fn is_needed(catalog: &Catalog) -> bool {
    !catalog.classes.is_empty()
}

pub fn connection_name(scope: &Scope) -> String {
    format!("tollgate/{scope}/connection")
}

pub fn request_name(scope: &Scope) -> String {
    format!("tollgate/{scope}/request")
}

pub fn frontend_name(frontend: &Frontend) -> String {
    let service = frontend.service.clone();
    request_name(&Scope::Workload { service, direction: Direction::Outbound })
}

pub fn attempt_name(scope: &Scope) -> String {
    format!("tollgate/{scope}/attempt")
}

/// The same filter configuration with other bytes. Envoy 1.40 notes what it is sent before it looks whether it can use
/// it. If it could not, because the code was not there yet or by any other fault, and is sent the same bytes again, it
/// says ACK and does nothing. So each sending has a stamp, in the name by which Envoy's log calls the filter. In the
/// environment of the VM it would make another VM.
pub fn stamped(resource: &Resource, stamp: u128) -> Resource {
    let with_stamp = with_filter(&resource.content.bytes(), |name, _| {
        *name = format!("{name}{STAMP}{stamp}");
        Some(())
    });
    let content = with_stamp.map_or_else(|| resource.content.clone(), Into::into);
    Resource { content, ..resource.clone() }
}

/// A filter in which its name in Envoy's log and its configuration are changed. None: it cannot be read, or the change
/// cannot be made.
pub fn with_filter(value: &[u8], change: impl FnOnce(&mut String, &mut Option<Any>) -> Option<()>) -> Option<Vec<u8>> {
    let mut resource = core::TypedExtensionConfig::decode(value).ok()?;
    let filter = resource.typed_config.as_mut()?;
    // The two messages are the same: a plugin and nothing else.
    if [Wasm::type_url(), NetworkWasm::type_url()].contains(&filter.type_url) {
        let mut wasm = Wasm::decode(filter.value.as_slice()).ok()?;
        let plugin = wasm.config.as_mut()?;
        change(&mut plugin.name, &mut plugin.configuration)?;
        filter.value = wasm.encode_to_vec();
    } else if module::is_one(&filter.type_url) {
        filter.value = module::changed(&filter.value, change)?;
    }
    Some(resource.encode_to_vec())
}

/// What Envoy says of a filter, with the name that it has in the snapshot.
pub fn without_stamps(message: &str) -> String {
    let mut parts = message.split(STAMP);
    let first = parts.next().unwrap_or_default();
    let rest = parts.map(|part| part.trim_start_matches(|letter: char| letter.is_ascii_digit()));
    std::iter::once(first).chain(rest).collect()
}

/// Names the filter of a Gateway by discovery, so that a change of policy changes no listener and drains nothing. Both forms
/// are named, whichever is chosen: a Gateway changes from one to the other in place. A listener that named one would have to
/// change first, and it is sent after the filter.
pub fn discovered(name: String) -> HttpFilter {
    of_types(name, vec![Wasm::type_url(), DynamicModuleFilter::type_url()])
}

/// The same of a sidecar, which runs WebAssembly always. In the place of a filter whose code it cannot fetch, Istio's agent
/// puts one of another type, which denies everything. Envoy refuses that one, and what it has runs on.
pub fn discovered_in_sidecar(name: String) -> HttpFilter {
    of_types(name, vec![Wasm::type_url()])
}

fn of_types(name: String, types: Vec<String>) -> HttpFilter {
    let config_type = http_filter::ConfigType::ConfigDiscovery(discovery(types));
    HttpFilter { name, config_type: Some(config_type), ..Default::default() }
}

/// Names the filter of connections by discovery, because its code changes together with that of the others. Another
/// filter is in its place until its code is there. Without that, Envoy 1.40 would close the connection and take it off
/// the count of the filter before ours, which had not counted it: below zero, where everybody is refused for ever.
pub fn discovered_for_connections(name: String, until_then: Any) -> listener::Filter {
    let types = [NetworkWasm::type_url(), DynamicModuleNetworkFilter::type_url(), until_then.type_url.clone()];
    let mut discovery = discovery(types.into());
    discovery.default_config = Some(until_then);
    listener::Filter { name, config_type: Some(listener::filter::ConfigType::ConfigDiscovery(discovery)) }
}

fn discovery(type_urls: Vec<String>) -> core::ExtensionConfigSource {
    core::ExtensionConfigSource { config_source: Some(ads()), type_urls, ..Default::default() }
}

fn plugin((name, root): (&str, &str), vm_id: String, config: &FilterConfig, setup: &FilterSetup) -> PluginConfig {
    PluginConfig {
        name: name.to_owned(),
        root_id: root.to_owned(),
        configuration: Some(any(&BytesValue { value: config.encode_to_vec() })),
        // A worker whose VM died gets a new one with its next request or connection. No request passes unfiltered.
        failure_policy: FailurePolicy::FailReload.into(),
        reload_config: Some(ReloadConfig {
            backoff: Some(core::BackoffStrategy { base_interval: duration(RELOAD_AFTER), ..Default::default() }),
        }),
        // Without this, a request whose headers are held never gets its body.
        allow_on_headers_stop_iteration: yes(),
        vm: Some(plugin_config::Vm::VmConfig(VmConfig {
            vm_id,
            runtime: "envoy.wasm.runtime.v8".to_owned(),
            code: Some(code(&setup.code, setup)),
            // If the new code is not there yet, Envoy refuses the update, and it is sent again. Otherwise Envoy would
            // accept it, and requests would pass unfiltered.
            nack_on_code_cache_miss: !matches!(setup.code, FilterCode::File(_)),
            ..Default::default()
        })),
        ..Default::default()
    }
}

/// Where Envoy gets this code.
pub fn code(code: &FilterCode, setup: &FilterSetup) -> core::AsyncDataSource {
    let remote = |uri: String, sha256: &String, cluster: String| {
        core::async_data_source::Specifier::Remote(core::RemoteDataSource {
            http_uri: Some(core::HttpUri {
                uri,
                timeout: duration(Duration::from_secs(30)),
                http_upstream_type: Some(core::http_uri::HttpUpstreamType::Cluster(cluster)),
            }),
            sha256: sha256.clone(),
            ..Default::default()
        })
    };
    let specifier = match code {
        FilterCode::File(path) => core::async_data_source::Specifier::Local(core::DataSource {
            specifier: Some(core::data_source::Specifier::Filename(path.clone())),
            ..Default::default()
        }),
        FilterCode::Remote { sha256, path } => {
            let uri = format!("http://{}{path}", setup.control_cluster.host());
            remote(uri, sha256, setup.control_cluster.name())
        }
        FilterCode::ByAgent { sha256, uri, teller } => remote(uri.clone(), sha256, teller.clone()),
    };
    core::AsyncDataSource { specifier: Some(specifier) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin_of(resource: &Resource) -> PluginConfig {
        let extension = core::TypedExtensionConfig::decode(&*resource.content.bytes()).unwrap();
        assert_eq!(extension.name, "tollgate/default/llm/request", "the name by which Envoy asks stays");
        Wasm::decode(extension.typed_config.unwrap().value.as_slice()).unwrap().config.unwrap()
    }

    #[test]
    fn a_stamp_changes_the_bytes_and_nothing_that_counts() {
        for code in [
            FilterCode::File("filter.wasm".into()),
            FilterCode::Remote { sha256: "ab".into(), path: "/code/ab.wasm".into() },
        ] {
            let name = "tollgate/default/llm/request";
            let setup = FilterSetup::of_gateways(code);
            let plugin = plugin((name, "request"), VM_ID.to_owned(), &FilterConfig::default(), &setup);
            let message = extension(name, &Wasm { config: Some(plugin.clone()) });
            let resource = Resource::new(&message, Vec::new());
            let (one, other) = (stamped(&resource, 1), stamped(&resource, 2));
            assert_ne!(one.content, other.content);
            assert_ne!(one.content, resource.content);
            assert_eq!((&one.version, &other.version), (&resource.version, &resource.version));
            assert_eq!(without_stamps(&plugin_of(&one).name), name);
            assert_eq!(PluginConfig { name: name.to_owned(), ..plugin_of(&other) }, plugin);
        }
    }

    #[test]
    fn what_envoy_says_is_the_same_whenever_it_was_sent() {
        let said = |stamp: u128| format!("Unable to create Wasm plugin a{STAMP}{stamp}, and b{STAMP}{stamp}");
        assert_eq!(without_stamps(&said(17)), "Unable to create Wasm plugin a, and b");
        assert_eq!(without_stamps(&said(u128::MAX)), without_stamps(&said(0)));
        assert_eq!(without_stamps("no code 17"), "no code 17");
        assert_eq!(without_stamps(""), "");
    }
}
