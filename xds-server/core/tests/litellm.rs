//! Golden cases of `tollgate import litellm`: `tests/litellm/<name>.yaml` is a config.yaml of LiteLLM's, perhaps an export of
//! its keys, and then what is left out and the objects. Every case's objects are read and translated without an error.
//! `cargo xtask bless` writes down what comes out now.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test: what is wrong ends it")]

#[path = "golden/diff.rs"]
mod diff;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};
use tollgate_core::litellm::{Import, Imported, Text};
use tollgate_core::objects::{Access, Objects, SecretSource};
use tollgate_core::placement::Placement;
use tollgate_core::status::{Finding, Severity};
use tollgate_core::translate::translate;

const SECTIONS: [&str; 3] = ["--- # keys\n", "--- # findings\n", "--- # objects\n"];

/// A machine on which every variable of a Secret is set.
struct Machine;

impl SecretSource for Machine {
    fn file(&self, _: &str) -> Result<String, String> {
        Err("no files".to_owned())
    }

    fn env(&self, name: &str) -> Result<String, String> {
        Ok(format!("value-of-{name}"))
    }
}

/// What the variables are when a configuration is imported.
fn environment(name: &str) -> Option<String> {
    match name {
        "SET_BASE" => Some("https://set.example.com/v1".to_owned()),
        "OPENAI_ORG" => Some("org-of-a-company".to_owned()),
        "TOGETHERAI_API_KEY" => Some("not asked for".to_owned()),
        _ => None,
    }
}

fn import(config: &str, keys: Option<&str>) -> Imported {
    Import {
        config: Text { name: "config.yaml", text: config },
        keys: keys.map(|text| Text { name: "keys.json", text }),
        port: 4000,
        environment: &environment,
    }
    .run()
}

/// As they are printed.
fn documents(imported: &Imported) -> String {
    imported.files.iter().map(|file| file.text.as_str()).collect::<Vec<_>>().join("---\n")
}

/// What the product says of the objects.
fn loaded(documents: &str) -> (Objects, Vec<Finding>) {
    let mut objects = Objects::default();
    let mut findings = objects.add_yaml("imported.yaml", documents, &Machine);
    findings.extend(translate(&objects, Placement::OneHost).findings);
    (objects, findings)
}

fn errors(findings: &[Finding]) -> Vec<String> {
    findings.iter().filter(|finding| finding.severity == Severity::Error).map(ToString::to_string).collect()
}

/// The input of a case: the configuration, and the keys.
fn input(text: &str) -> (&str, Option<&str>) {
    let end = SECTIONS[1..].iter().filter_map(|section| text.find(section)).min().unwrap_or(text.len());
    match text[..end].split_once(SECTIONS[0]) {
        Some((config, keys)) => (config, Some(keys)),
        None => (&text[..end], None),
    }
}

fn run(text: &str) -> String {
    let (config, keys) = input(text);
    let imported = import(config, keys);
    let mut output = config.to_owned();
    if let Some(keys) = keys {
        let _ = write!(output, "{}{keys}", SECTIONS[0]);
    }
    output.push_str(SECTIONS[1]);
    for finding in &imported.findings {
        let _ = writeln!(output, "# {finding}");
    }
    let documents = documents(&imported);
    let _ = write!(output, "{}{documents}", SECTIONS[2]);
    assert_eq!(errors(&loaded(&documents).1), [] as [String; 0], "{output}");
    let made = &output[config.len() + keys.map_or(0, |keys| keys.len() + SECTIONS[0].len())..];
    assert!(!made.contains("planted"), "a key of the input is in\n{made}");
    output
}

#[test]
fn each_case_becomes_what_it_shows() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/litellm");
    let bless = std::env::var_os("TOLLGATE_BLESS").is_some();
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "{files:?}");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let actual = run(&text);
        if bless {
            fs::write(&file, &actual).unwrap();
        }
        let name = file.display();
        assert!(bless || actual == text, "{name} (cargo xtask bless)\n{}", diff::lines(&text, &actual));
    }
}

/// Nobody is let in that LiteLLM would not let in.
#[test]
fn a_pool_is_never_open() {
    let imported = import("model_list: [{model_name: a, litellm_params: {model: openai/a}}]", None);
    let (objects, _) = loaded(&documents(&imported));
    let pools: Vec<_> = objects.model_pools.iter().map(|pool| pool.spec.access).collect();
    assert_eq!(pools, [Access::Required]);
    assert_eq!(objects.consumers.iter().count(), 0);
    assert!(errors(&imported.findings).iter().any(|error| error.contains("lets everybody in")));
}

#[test]
fn what_is_no_configuration_is_said_and_nothing_is_written() {
    for (config, expected) in [
        ("", "config.yaml:1: error: the file is empty"),
        ("a: 1\n---\nb: 2\n", "config.yaml:1: error: the file has several documents"),
        ("- 1\n", "config.yaml:1: error: not a map"),
        ("model_list: []\n", "config.yaml:1: error"),
        ("model_list: [\n", "config.yaml:"),
        ("general_settings: {master_key: abc}\n", "there is no model_list"),
    ] {
        let imported = import(config, None);
        assert_eq!(imported.files, [], "{config}");
        let errors = errors(&imported.findings);
        assert!(errors.iter().any(|error| error.contains(expected)), "{config}: {errors:?}");
    }
}

/// Fields that mean something to the import, and some that do not.
const FIELDS: [&str; 36] = [
    "model_list",
    "model_name",
    "litellm_params",
    "model",
    "api_base",
    "api_key",
    "api_version",
    "rpm",
    "weight",
    "order",
    "timeout",
    "stream_timeout",
    "max_retries",
    "model_info",
    "access_groups",
    "router_settings",
    "fallbacks",
    "model_group_alias",
    "routing_strategy",
    "num_retries",
    "litellm_settings",
    "default_fallbacks",
    "request_timeout",
    "general_settings",
    "master_key",
    "environment_variables",
    "credential_list",
    "credential_name",
    "max_fallbacks",
    "credential_values",
    "litellm_credential_name",
    "keys",
    "token",
    "models",
    "cache",
    "\u{7}odd",
];
const VALUES: [&str; 16] = [
    "a",
    "b",
    "openai/a",
    "openai/*",
    "*",
    "anthropic/claude",
    "azure/x",
    "os.environ/X",
    "http://h:1/v1",
    "http://[::1]",
    "https://u:p@h",
    "sk-planted-0123456789abcdef",
    "",
    "\u{0}",
    "groq/*x*",
    "hosted_vllm/m",
];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        proptest::sample::select(VALUES.as_slice()).prop_map(|text| json!(text)),
        any::<f64>().prop_map(|number| json!(number)),
        any::<i64>().prop_map(|number| json!(number)),
        Just(json!(true)),
        Just(Value::Null),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            proptest::collection::vec((proptest::sample::select(FIELDS.as_slice()), inner), 0..7).prop_map(|fields| {
                Value::Object(fields.into_iter().map(|(field, value)| (field.to_owned(), value)).collect())
            }),
        ]
    })
}

/// A configuration in shape, with odd values.
fn config() -> impl Strategy<Value = Value> {
    let names = || proptest::sample::select(vec!["a", "b", "x/*", "*", "openai/*", "Ä ö/ü", "gpt-4o", "a.b_c"]);
    let model = (names(), value()).prop_map(|(name, odd)| (name, odd));
    let models = vec!["openai/m", "hosted_vllm/*", "anthropic/claude-x", "groq/*", "azure/d", "fireworks_ai/k", "*"];
    let entry = (model, proptest::sample::select(models), 0_u64..3, proptest::option::of(0.0_f64..9.0));
    let entry = entry.prop_map(|((name, odd), model, order, weight)| {
        json!({"model_name": name, "litellm_params": {"model": model, "api_base": "http://h:8000/v1", "order": order,
            "weight": weight, "timeout": odd.clone()}, "model_info": {"access_groups": [odd]}})
    });
    let fallback = (names(), proptest::collection::vec(names(), 0..4)).prop_map(|(of, to)| json!({of: to}));
    (
        proptest::collection::vec(entry, 0..12),
        proptest::collection::vec(fallback, 0..4),
        proptest::collection::btree_map(names(), names(), 0..3),
        proptest::option::of(0_u64..40),
        value(),
    )
        .prop_map(|(entries, fallbacks, aliases, retries, odd)| {
            json!({"model_list": entries, "router_settings": {"fallbacks": fallbacks, "model_group_alias": aliases,
                "num_retries": retries, "max_fallbacks": retries}, "litellm_settings": odd})
        })
}

proptest! {
    #[test]
    fn no_text_is_too_odd(text in any::<String>(), keys in any::<String>()) {
        import(&text, Some(&keys));
    }

    #[test]
    fn no_tree_is_too_odd_and_what_comes_out_is_taken(config in value(), keys in value()) {
        let imported = import(&config.to_string(), Some(&keys.to_string()));
        let documents = documents(&imported);
        prop_assert_eq!(errors(&loaded(&documents).1), [] as [String; 0]);
        for finding in &imported.findings {
            prop_assert!(!finding.to_string().contains("planted"), "{}", finding);
        }
        prop_assert!(!documents.contains("planted"));
    }

    #[test]
    fn whatever_is_written_is_taken_by_the_product(config in config()) {
        let documents = documents(&import(&config.to_string(), None));
        prop_assert_eq!(errors(&loaded(&documents).1), [] as [String; 0], "{}", documents);
    }

    /// The same text gives the same objects.
    #[test]
    fn an_import_is_stable(config in config()) {
        let config = config.to_string();
        prop_assert_eq!(documents(&import(&config, None)), documents(&import(&config, None)));
    }
}
