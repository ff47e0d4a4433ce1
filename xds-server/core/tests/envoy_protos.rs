//! `protos/` holds what Envoy's .proto files declare, and nothing else: what envoy-types' own
//! descriptors say, without comments, services and annotations. This test compares the two, so that
//! an update of envoy-types cannot leave the files behind. `cargo xtask bless` (TOLLGATE_BLESS=1)
//! writes the files anew.
//!
//! envoy-types ships its descriptors without exporting them. A test may ask cargo where the crate
//! lies; a build script may not (see build.rs).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test: what is wrong ends it")]

#[path = "envoy_protos/text.rs"]
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use prost::Message as _;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};

/// Files whose messages stand in resources, directly or inside an Any. What they need comes along.
const ROOTS: &[&str] = &[
    "envoy/config/cluster/v3/cluster.proto",
    "envoy/config/core/v3/extension.proto",
    "envoy/config/endpoint/v3/endpoint.proto",
    "envoy/config/listener/v3/listener.proto",
    "envoy/config/trace/v3/opentelemetry.proto",
    "envoy/config/route/v3/route.proto",
    "envoy/extensions/access_loggers/file/v3/file.proto",
    "envoy/extensions/filters/http/cors/v3/cors.proto",
    "envoy/extensions/filters/http/credential_injector/v3/credential_injector.proto",
    "envoy/extensions/filters/http/dynamic_modules/v3/dynamic_modules.proto",
    "envoy/extensions/filters/http/ext_proc/v3/ext_proc.proto",
    "envoy/extensions/filters/http/header_mutation/v3/header_mutation.proto",
    "envoy/extensions/filters/http/jwt_authn/v3/config.proto",
    "envoy/extensions/filters/http/lua/v3/lua.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/http/set_filter_state/v3/set_filter_state.proto",
    "envoy/extensions/filters/http/stateful_session/v3/stateful_session.proto",
    "envoy/extensions/filters/http/upstream_codec/v3/upstream_codec.proto",
    "envoy/extensions/filters/http/wasm/v3/wasm.proto",
    "envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.proto",
    "envoy/extensions/filters/network/connection_limit/v3/connection_limit.proto",
    "envoy/extensions/filters/network/dynamic_modules/v3/dynamic_modules.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto",
    "envoy/extensions/filters/network/wasm/v3/wasm.proto",
    "envoy/extensions/http/early_header_mutation/header_mutation/v3/header_mutation.proto",
    "envoy/extensions/http/injected_credentials/generic/v3/generic.proto",
    "envoy/extensions/http/stateful_session/cookie/v3/cookie.proto",
    "envoy/extensions/http/stateful_session/header/v3/header.proto",
    "envoy/extensions/load_balancing_policies/least_request/v3/least_request.proto",
    "envoy/extensions/load_balancing_policies/override_host/v3/override_host.proto",
    "envoy/extensions/matching/common_inputs/network/v3/network_inputs.proto",
    "envoy/extensions/router/cluster_specifiers/matcher/v3/matcher.proto",
    "envoy/extensions/tracers/opentelemetry/resource_detectors/v3/static_config_resource_detector.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
    "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
];

/// google.protobuf comes with every compiler of .proto files.
const BUILT_IN: &str = "google/protobuf/";

#[test]
fn protos_are_what_envoy_types_has() {
    let wanted = wanted();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("protos");
    if env::var_os("TOLLGATE_BLESS").is_some() {
        write(&folder, &wanted);
    }
    let names: Vec<&String> = wanted.keys().collect();
    let compiled = protox::compile(names, [&folder])
        .unwrap_or_else(|error| panic!("{error}; `cargo xtask bless` writes protos/ anew"));
    let compiled = compiled.file.into_iter().filter(|file| !file.name().starts_with(BUILT_IN));
    let compiled: BTreeMap<_, _> = compiled.map(|file| (file.name().to_owned(), plain(file))).collect();
    for (name, file) in &wanted {
        assert_eq!(compiled.get(name), Some(file), "protos/{name}; `cargo xtask bless` writes it anew");
    }
    let there: BTreeSet<String> = files_below(&folder).map(|path| relative(&path, &folder)).collect();
    assert!(there.iter().eq(wanted.keys()), "protos/ has other files than are needed: {there:?}");
}

/// The roots and all that they need, by name.
fn wanted() -> BTreeMap<String, FileDescriptorProto> {
    let all = fs::read(envoy_types().join("src/generated/types.bin")).unwrap();
    let all = FileDescriptorSet::decode(all.as_slice()).unwrap();
    let homes: BTreeMap<String, String> = all
        .file
        .iter()
        .flat_map(|file| text::declared(file).into_iter().map(|name| (name, file.name().to_owned())))
        .collect();
    let files: BTreeMap<String, FileDescriptorProto> =
        all.file.into_iter().map(|file| (file.name().to_owned(), plain(file))).collect();
    let mut open: Vec<String> = ROOTS.iter().map(|root| (*root).to_owned()).collect();
    let mut wanted = BTreeMap::new();
    while let Some(name) = open.pop() {
        if name.starts_with(BUILT_IN) || wanted.contains_key(&name) {
            continue;
        }
        let mut file = files.get(&name).unwrap_or_else(|| panic!("envoy-types has no {name}")).clone();
        // Annotations are gone, and their imports with them.
        let imports: BTreeSet<&String> =
            text::named(&file).iter().map(|name| &homes[name]).filter(|home| **home != name).collect();
        file.dependency = imports.into_iter().cloned().collect();
        open.extend(file.dependency.iter().cloned());
        wanted.insert(name, file);
    }
    wanted
}

/// Only what decoding and printing need.
fn plain(file: FileDescriptorProto) -> FileDescriptorProto {
    FileDescriptorProto {
        name: file.name,
        package: file.package,
        syntax: file.syntax,
        dependency: file.dependency,
        message_type: file.message_type.into_iter().map(plain_message).collect(),
        enum_type: file.enum_type.into_iter().map(plain_enum).collect(),
        ..FileDescriptorProto::default()
    }
}

fn plain_message(mut message: DescriptorProto) -> DescriptorProto {
    let is_map = message.options.as_ref().and_then(|options| options.map_entry);
    message.options = is_map.map(|is_map| prost_types::MessageOptions {
        map_entry: Some(is_map),
        ..prost_types::MessageOptions::default()
    });
    message.reserved_range.clear();
    message.reserved_name.clear();
    for field in &mut message.field {
        field.options = None;
        // Follows from the name.
        field.json_name = None;
    }
    for oneof in &mut message.oneof_decl {
        oneof.options = None;
    }
    message.nested_type = message.nested_type.into_iter().map(plain_message).collect();
    message.enum_type = message.enum_type.into_iter().map(plain_enum).collect();
    message
}

fn plain_enum(mut item: EnumDescriptorProto) -> EnumDescriptorProto {
    item.options = None;
    item.reserved_range.clear();
    item.reserved_name.clear();
    for value in &mut item.value {
        value.options = None;
    }
    item
}

fn write(folder: &Path, wanted: &BTreeMap<String, FileDescriptorProto>) {
    for path in files_below(folder) {
        if !wanted.contains_key(&relative(&path, folder)) {
            fs::remove_file(path).unwrap();
        }
    }
    for (name, file) in wanted {
        let path = folder.join(name);
        let text = text::of(file);
        // What is the same stays untouched: cargo builds again what a newer file may change.
        if fs::read_to_string(&path).ok().as_deref() != Some(&text) {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }
}

fn files_below(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let mut open = vec![folder.to_path_buf()];
    let mut files = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let list = if entry.path().is_dir() { &mut open } else { &mut files };
            list.push(entry.path());
        }
    }
    files.into_iter()
}

fn relative(path: &Path, folder: &Path) -> String {
    path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned()
}

/// Folder of the crate, as cargo has it. Crates for other platforms are not asked for.
fn envoy_types() -> PathBuf {
    let platform = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &platform])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let package = metadata["packages"].as_array().unwrap().iter().find(|package| package["name"] == "envoy-types");
    Path::new(package.unwrap()["manifest_path"].as_str().unwrap()).parent().unwrap().to_path_buf()
}
