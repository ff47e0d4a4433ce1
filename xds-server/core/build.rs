//! Makes the descriptors of the Envoy messages that this package makes, for printing by reflection,
//! out of the files in `protos/`.
//!
//! envoy-types has the same descriptors among its sources but exports them nowhere, and a build script is
//! not told where its dependencies lie. To ask `cargo metadata` from here works only where all crates of
//! the lock file happen to be in the cache, those for other platforms included: not on a new machine, not
//! in a distribution's sandbox. So the declarations are committed, as text and without comments, and
//! tests/envoy_protos.rs compares them with envoy-types.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use prost::Message as _;

const FOLDER: &str = "protos";

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed={FOLDER}");
    println!("cargo:rerun-if-changed=build.rs");
    let mut files = Vec::new();
    collect(Path::new(FOLDER), &mut files)?;
    let set = protox::compile(files, [FOLDER]).map_err(io::Error::other)?;
    let out = PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?);
    fs::write(out.join("envoy.bin"), set.encode_to_vec())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    // The order of a folder's entries is any; what is built is always the same.
    files.sort();
    Ok(())
}
