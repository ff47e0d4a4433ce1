//! The filter as Envoy runs it: plugin configurations by ECDS, and the places that name them.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::wasm::v3::Wasm;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use envoy_types::pb::envoy::extensions::wasm::v3::{FailurePolicy, PluginConfig, VmConfig, plugin_config};
use envoy_types::pb::google::protobuf::BytesValue;
use prost::{Message as _, Name as _};
use tollgate_proto::v1::FilterConfig;

use crate::ir;
use crate::snapshot::{Resource, ResourceType, Snapshot};
use crate::status::Origin;

use super::wire::{ads, any, duration, extension, yes};
use super::{CONTROL_CLUSTER, FilterCode, Surroundings, attempt_config, request_config};

/// Both stages run in the same VM of a worker and share its data.
const VM_ID: &str = "tollgate";

pub fn add(snapshot: &mut Snapshot, gateway: &ir::Gateway, ir: &ir::Ir, surroundings: &Surroundings) {
    if !is_needed(gateway) {
        return;
    }
    let mut origins = vec![gateway.origin.clone()];
    origins.extend(gateway.pools.values().map(|pool| pool.origin.clone()));
    origins.extend(gateway.backends.values().map(|backend| backend.origin.clone()));
    let mut insert = |name: String, root: &str, config: &FilterConfig, origins: Vec<Origin>| {
        let resource = extension(&name, &plugin(&name, root, config, &surroundings.code));
        snapshot.insert(ResourceType::ExtensionConfig, name, Resource::new(&resource, origins));
    };
    insert(request_name(gateway), "request", &request_config(gateway, ir), origins.clone());
    if let Some(config) = attempt_config(gateway) {
        insert(attempt_name(gateway), "attempt", &config, origins);
    }
}

/// A Gateway without a pool is an ordinary proxy and has no filter.
pub fn is_needed(gateway: &ir::Gateway) -> bool {
    !gateway.pools.is_empty()
}

pub fn request_name(gateway: &ir::Gateway) -> String {
    format!("tollgate/{}/request", gateway.scope())
}

pub fn attempt_name(gateway: &ir::Gateway) -> String {
    format!("tollgate/{}/attempt", gateway.scope())
}

/// Names the filter by discovery, so that a change of policy changes no listener and drains nothing.
pub fn discovered(name: String) -> HttpFilter {
    HttpFilter {
        name,
        config_type: Some(http_filter::ConfigType::ConfigDiscovery(core::ExtensionConfigSource {
            config_source: Some(ads()),
            type_urls: vec![Wasm::type_url()],
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn plugin(name: &str, root: &str, config: &FilterConfig, code: &FilterCode) -> Wasm {
    Wasm {
        config: Some(PluginConfig {
            name: name.to_owned(),
            root_id: root.to_owned(),
            configuration: Some(any(&BytesValue { value: config.encode_to_vec() })),
            // A worker whose VM died gets a new one with its next request. No request passes unfiltered.
            failure_policy: FailurePolicy::FailReload.into(),
            // Without this, a request whose headers are held never gets its body.
            allow_on_headers_stop_iteration: yes(),
            vm: Some(plugin_config::Vm::VmConfig(VmConfig {
                vm_id: VM_ID.to_owned(),
                runtime: "envoy.wasm.runtime.v8".to_owned(),
                code: Some(self::code(code)),
                // If the new code is not there yet, Envoy refuses the update, and it is sent again. Otherwise Envoy
                // would accept it, and requests would pass unfiltered.
                nack_on_code_cache_miss: matches!(code, FilterCode::Remote { .. }),
                ..Default::default()
            })),
            ..Default::default()
        }),
    }
}

fn code(code: &FilterCode) -> core::AsyncDataSource {
    let specifier = match code {
        FilterCode::File(path) => core::async_data_source::Specifier::Local(core::DataSource {
            specifier: Some(core::data_source::Specifier::Filename(path.clone())),
            ..Default::default()
        }),
        FilterCode::Remote { sha256, path } => core::async_data_source::Specifier::Remote(core::RemoteDataSource {
            http_uri: Some(core::HttpUri {
                uri: format!("http://{CONTROL_CLUSTER}{path}"),
                timeout: duration(Duration::from_secs(30)),
                http_upstream_type: Some(core::http_uri::HttpUpstreamType::Cluster(CONTROL_CLUSTER.to_owned())),
            }),
            sha256: sha256.clone(),
            ..Default::default()
        }),
    };
    core::AsyncDataSource { specifier: Some(specifier) }
}
