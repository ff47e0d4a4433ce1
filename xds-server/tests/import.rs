//! `tollgate import`, as a user calls it.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected has failed")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const CONFIG: &str = "\
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, api_key: planted-credential}
general_settings: {master_key: os.environ/OF_THE_PROXY}
";

fn tollgate(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.current_dir(folder).args(arguments).env("OF_THE_PROXY", "planted-master-key").env("OPENAI_KEY", "k");
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn what_is_imported_is_valid_and_no_key_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.yaml"), CONFIG).unwrap();
    let printed = tollgate(folder.path(), &["import", "litellm", "config.yaml"]);
    assert_eq!(printed.status.code(), Some(0), "{}", text(&printed.stderr));
    let told = "config.yaml:3: warning: model_list[0].litellm_params.api_key: ";
    assert!(text(&printed.stderr).contains(told) && text(&printed.stderr).contains("OPENAI_KEY"));
    for output in [&printed.stdout, &printed.stderr] {
        assert!(!text(output).contains("planted"), "{}", text(output));
    }

    let written = tollgate(folder.path(), &["import", "litellm", "config.yaml", "-o", "conf", "--port", "4001"]);
    assert_eq!((written.status.code(), text(&written.stdout)), (Some(0), String::new()));
    assert!(fs::read_to_string(folder.path().join("conf/gateway.yaml")).unwrap().contains("port: 4001"));
    let validated = tollgate(folder.path(), &["validate", "-f", "conf"]);
    assert_eq!(validated.status.code(), Some(0), "{}", text(&validated.stdout));

    // The same as one file.
    fs::create_dir(folder.path().join("one")).unwrap();
    fs::write(folder.path().join("one/conf.yaml"), &printed.stdout).unwrap();
    let validated = tollgate(folder.path(), &["validate", "-f", "one"]);
    assert_eq!(validated.status.code(), Some(0), "{}", text(&validated.stdout));
}

#[test]
fn no_file_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.yaml"), CONFIG).unwrap();
    fs::create_dir(folder.path().join("conf")).unwrap();
    fs::write(folder.path().join("conf/models.yaml"), "mine").unwrap();
    let refused = tollgate(folder.path(), &["import", "litellm", "config.yaml", "-o", "conf"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("models.yaml is there already"), "{}", text(&refused.stderr));
    assert_eq!(fs::read_to_string(folder.path().join("conf/models.yaml")).unwrap(), "mine");
    assert_eq!(fs::read_dir(folder.path().join("conf")).unwrap().count(), 1);
}

#[test]
fn what_is_left_out_exits_with_one_and_names_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let config = format!("{CONFIG}litellm_settings:\n  cache: true\n");
    fs::write(folder.path().join("config.yaml"), config).unwrap();
    let lost = tollgate(folder.path(), &["import", "litellm", "config.yaml"]);
    assert_eq!(lost.status.code(), Some(1));
    assert!(text(&lost.stderr).contains("config.yaml:6: error: litellm_settings.cache: "), "{}", text(&lost.stderr));
    assert!(text(&lost.stdout).contains("kind: ModelPool"), "the rest is written");
    let json = tollgate(folder.path(), &["import", "litellm", "config.yaml", "--report", "json"]);
    let findings: Vec<serde_json::Value> = serde_json::from_slice(&json.stderr).unwrap();
    assert!(
        findings.iter().any(|finding| finding["field"] == "litellm_settings.cache" && finding["spot"]["line"] == 6)
    );

    let nowhere = tollgate(folder.path(), &["import", "litellm", "nowhere.yaml"]);
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(text(&nowhere.stderr).contains("nowhere.yaml"));
}
