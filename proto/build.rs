//! Compiles the .proto files without protoc. The gRPC code is made only with the feature `grpc`.
use std::{env, fs, io, path::PathBuf};

use prost::Message as _;

/// What a filter needs, too.
const FILES: [&str; 3] = ["policy.proto", "ledger.proto", "delta.proto"];
/// What servers tell each other.
const OF_SERVERS: &str = "replica.proto";

fn main() -> io::Result<()> {
    let grpc = env::var_os("CARGO_FEATURE_GRPC").is_some();
    let names = FILES.into_iter().chain(grpc.then_some(OF_SERVERS));
    let files = protox::compile(names, ["."]).map_err(io::Error::other)?;
    let out = PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?);
    fs::write(out.join("descriptors.bin"), files.encode_to_vec())?;
    for file in FILES.into_iter().chain([OF_SERVERS]) {
        println!("cargo:rerun-if-changed={file}");
    }
    let mut prost = prost_build::Config::new();
    // The control plane encodes maps in order, as the hash of a resource is its version. The filter only reads
    // them, and would be 7 KB larger for it.
    if env::var("CARGO_CFG_TARGET_ARCH").as_deref() != Ok("wasm32") {
        prost.btree_map(["."]);
    }
    if grpc { tonic_prost_build::configure().compile_fds_with_config(files, prost) } else { prost.compile_fds(files) }
}
