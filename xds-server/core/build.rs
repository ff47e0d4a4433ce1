//! Takes the descriptors of the Envoy messages that this package makes out of envoy-types' sources, for
//! printing by reflection. The crate ships them beside its code without exporting them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

/// Files whose messages stand in resources, directly or inside an Any. What they import comes along.
const ROOTS: [&str; 19] = [
    "envoy/config/cluster/v3/cluster.proto",
    "envoy/config/core/v3/extension.proto",
    "envoy/config/endpoint/v3/endpoint.proto",
    "envoy/config/listener/v3/listener.proto",
    "envoy/config/route/v3/route.proto",
    "envoy/extensions/filters/http/credential_injector/v3/credential_injector.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/http/upstream_codec/v3/upstream_codec.proto",
    "envoy/extensions/filters/http/wasm/v3/wasm.proto",
    "envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "envoy/extensions/http/early_header_mutation/header_mutation/v3/header_mutation.proto",
    "envoy/extensions/http/injected_credentials/generic/v3/generic.proto",
    "envoy/extensions/matching/common_inputs/network/v3/network_inputs.proto",
    "envoy/extensions/router/cluster_specifiers/matcher/v3/matcher.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
    "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
    "google/protobuf/wrappers.proto",
    "google/protobuf/any.proto",
];

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    let all = fs::read(envoy_types()?.join("src/generated/types.bin"))?;
    let all = FileDescriptorSet::decode(all.as_slice()).map_err(io::Error::other)?;
    let files: BTreeMap<&str, &FileDescriptorProto> = all.file.iter().map(|file| (file.name(), file)).collect();
    let mut taken = BTreeSet::new();
    let mut set = FileDescriptorSet::default();
    for root in ROOTS {
        take(root, &files, &mut taken, &mut set)?;
    }
    let out = PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?);
    fs::write(out.join("envoy.bin"), set.encode_to_vec())
}

/// Imports first, as readers of descriptor sets expect.
fn take<'a>(
    name: &'a str,
    files: &BTreeMap<&'a str, &'a FileDescriptorProto>,
    taken: &mut BTreeSet<&'a str>,
    set: &mut FileDescriptorSet,
) -> io::Result<()> {
    if !taken.insert(name) {
        return Ok(());
    }
    let file = files.get(name).ok_or_else(|| io::Error::other(format!("envoy-types has no {name}")))?;
    for import in &file.dependency {
        take(import, files, taken, set)?;
    }
    set.file.push(FileDescriptorProto { source_code_info: None, ..(*file).clone() });
    Ok(())
}

/// Folder of the crate, as cargo has it.
fn envoy_types() -> io::Result<PathBuf> {
    let cargo = env::var("CARGO").map_err(io::Error::other)?;
    let output = Command::new(cargo).args(["metadata", "--format-version", "1", "--offline", "--locked"]).output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    metadata
        .get("packages")
        .and_then(serde_json::Value::as_array)
        .into_iter()
        .flatten()
        .find(|package| package.get("name").and_then(serde_json::Value::as_str) == Some("envoy-types"))
        .and_then(|package| package.get("manifest_path")?.as_str())
        .and_then(|manifest| Path::new(manifest).parent())
        .map(Path::to_path_buf)
        .ok_or_else(|| io::Error::other("cargo metadata does not know envoy-types"))
}
