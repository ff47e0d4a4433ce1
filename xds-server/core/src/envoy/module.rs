//! The filter as a dynamic module of Envoy (`docs/adr/0006-native-edge.md`). Its configuration is the same, and so are its
//! names.

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::extensions::dynamic_modules::v3::DynamicModuleConfig;
use envoy_types::pb::envoy::extensions::filters::http::dynamic_modules::v3::DynamicModuleFilter;
use envoy_types::pb::envoy::extensions::filters::network::dynamic_modules::v3::DynamicModuleNetworkFilter;
use envoy_types::pb::envoy::r#type::v3::SemanticVersion;
use envoy_types::pb::google::protobuf::{Any, BytesValue};
use prost::{Message as _, Name as _};
use tollgate_proto::v1::{FilterConfig, filter_config::Stage};

use crate::ir::Ir;
use crate::objects::{Meta, Objects};
use crate::status::{Finding, Reason, Severity};

use super::wasm::code;
use super::wire::any;
use super::{FilterCode, FilterSetup, Runtime};

/// The version of Envoy, major and minor, for whose ABI the module is made. Envoy compares nothing when it loads one, and the
/// same function may take other arguments in another version.
pub const ENVOY: (u32, u32) = (1, 40);

/// The counters of both forms have the same names in the stats of Envoy.
const METRICS: &str = "wasmcustom";

/// The module that runs a Gateway's filter. None: it runs as WebAssembly.
///
/// A Gateway whose Consumers are known by JWTs does so always. Envoy notes claims as nested metadata, and its ABI for modules
/// gives a module no value that is nested.
pub fn of<'a>(setup: &'a FilterSetup, request: &FilterConfig) -> Option<&'a FilterCode> {
    let asks_for_claims = matches!(&request.stage, Some(Stage::Request(stage)) if !stage.claim_sets.is_empty());
    match &setup.runtime {
        Runtime::Native(code) if !asks_for_claims => Some(code),
        Runtime::Native(_) | Runtime::Wasm => None,
    }
}

/// What the owners of Gateways are told that have the other form.
pub fn findings(objects: &Objects, ir: &Ir, setup: &FilterSetup) -> Vec<Finding> {
    if matches!(setup.runtime, Runtime::Wasm) {
        return Vec::new();
    }
    let with_claims = ir.gateways.iter().filter(|(_, gateway)| !gateway.catalog.claim_sets.is_empty());
    let metas = with_claims.filter_map(|(key, _)| Some(&objects.gateways.get(&key.namespace, &key.name)?.meta));
    let told = |meta: &Meta| {
        let message = "the filter runs as WebAssembly here, and not as a module: Consumers are known by claims of JWTs";
        let hint = "a module gets no claims of Envoy; without them it runs as --filter says";
        meta.finding(Severity::Warning, Reason::NotActedOn, "", message, hint)
    };
    metas.map(told).collect()
}

pub fn http(name: &str, code: &FilterCode, config: &FilterConfig, setup: &FilterSetup) -> DynamicModuleFilter {
    DynamicModuleFilter {
        dynamic_module_config: Some(module(code, setup)),
        filter_name: name.to_owned(),
        filter_config: Some(bytes(config)),
        ..Default::default()
    }
}

pub fn network(
    name: &str,
    code: &FilterCode,
    config: &FilterConfig,
    setup: &FilterSetup,
) -> DynamicModuleNetworkFilter {
    DynamicModuleNetworkFilter {
        dynamic_module_config: Some(module(code, setup)),
        filter_name: name.to_owned(),
        filter_config: Some(bytes(config)),
        ..Default::default()
    }
}

fn bytes(config: &FilterConfig) -> Any {
    any(&BytesValue { value: config.encode_to_vec() })
}

fn module(code: &FilterCode, setup: &FilterSetup) -> DynamicModuleConfig {
    DynamicModuleConfig {
        module: Some(self::code(code, setup)),
        // Its threads and its records outlive every configuration.
        do_not_close: true,
        metrics_namespace: METRICS.to_owned(),
        // As for WebAssembly: until the code is there, what Envoy has goes on.
        nack_on_cache_miss: !matches!(code, FilterCode::File(_)),
        ..Default::default()
    }
}

/// The version of a proxy's Envoy, if no module may be loaded there. A filter that asks for itself says no version.
pub fn other_envoy(node: &Node) -> Option<String> {
    let Some(UserAgentVersionType::UserAgentBuildVersion(build)) = &node.user_agent_version_type else { return None };
    let SemanticVersion { major_number, minor_number, patch } = build.version?;
    ((major_number, minor_number) != ENVOY).then(|| format!("{major_number}.{minor_number}.{patch}"))
}

pub fn is_one(type_url: &str) -> bool {
    [DynamicModuleFilter::type_url(), DynamicModuleNetworkFilter::type_url()].iter().any(|known| known == type_url)
}

/// A filter of this form in which its name in Envoy's log and its configuration are changed.
pub fn changed(value: &[u8], change: impl FnOnce(&mut String, &mut Option<Any>) -> Option<()>) -> Option<Vec<u8>> {
    // The two messages are the same.
    let mut filter = DynamicModuleFilter::decode(value).ok()?;
    change(&mut filter.filter_name, &mut filter.filter_config)?;
    Some(filter.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::BuildVersion;

    use super::*;

    #[test]
    fn a_module_is_for_one_minor_version_of_envoy() {
        let of = |major_number, minor_number, patch| {
            let version = Some(SemanticVersion { major_number, minor_number, patch });
            let build = BuildVersion { version, ..Default::default() };
            Node {
                user_agent_version_type: Some(UserAgentVersionType::UserAgentBuildVersion(build)),
                ..Default::default()
            }
        };
        assert_eq!(other_envoy(&of(1, 40, 0)), None);
        assert_eq!(other_envoy(&of(1, 40, 3)), None);
        assert_eq!(other_envoy(&of(1, 39, 2)).as_deref(), Some("1.39.2"));
        assert_eq!(other_envoy(&of(1, 41, 0)).as_deref(), Some("1.41.0"));
        assert_eq!(other_envoy(&of(2, 40, 0)).as_deref(), Some("2.40.0"));
        assert_eq!(other_envoy(&Node::default()), None, "a filter says none");
    }
}
