//! Builds the filter into the binary, in each form that an environment variable names (an absolute path).
use std::{env, fs, io, path::PathBuf};

/// The file that the binary includes, and the variable that names what is in it.
const FORMS: [(&str, &str); 2] = [("embedded_filter.rs", "TOLLGATE_WASM"), ("embedded_module.rs", "TOLLGATE_NATIVE")];

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?);
    for (file, variable) in FORMS {
        println!("cargo:rerun-if-env-changed={variable}");
        let source = match env::var(variable) {
            Ok(path) if !path.is_empty() => {
                println!("cargo:rerun-if-changed={path}");
                fs::metadata(&path)
                    .map_err(|error| io::Error::new(error.kind(), format!("{variable}={path}: {error}")))?;
                format!("Some(include_bytes!({path:?}))")
            }
            _ => "None".to_owned(),
        };
        fs::write(out.join(file), source)?;
    }
    Ok(())
}
