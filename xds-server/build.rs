//! Builds the filter into the binary when `TOLLGATE_WASM` names it (an absolute path).
use std::{env, fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-env-changed=TOLLGATE_WASM");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?).join("embedded_filter.rs");
    let source = match env::var("TOLLGATE_WASM") {
        Ok(path) if !path.is_empty() => {
            println!("cargo:rerun-if-changed={path}");
            fs::metadata(&path)
                .map_err(|error| io::Error::new(error.kind(), format!("TOLLGATE_WASM={path}: {error}")))?;
            format!("Some(include_bytes!({path:?}))")
        }
        _ => "None".to_owned(),
    };
    fs::write(out, source)
}
