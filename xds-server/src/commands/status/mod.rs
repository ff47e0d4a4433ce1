//! `tollgate status`: the status of each object of a running control plane, as `kubectl get` would show it.

mod object;
mod tables;

use clap::ValueEnum;
use serde_json::{Value, json};
use tollgate_core::status::StatusKind;

use self::object::Object;
use super::ask::AdminApi;
use super::terminal::inert_json;
use super::{Outcome, ask, print};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Kinds: gatewayclass, gateway, listenerset, httproute, grpcroute, tlsroute, backendtlspolicy, modelpool, modelbackend,
consumer, tokenpolicy

Examples:
  tollgate status                            everything, a table for each kind
  tollgate status httproutes                 the HTTPRoutes of all namespaces
  tollgate status httproute/chat -o yaml     all conditions of one, with their messages
  tollgate status gateway --namespace edge   the Gateways of one namespace
  until tollgate status >/dev/null; do sleep 1; done

How to read it:
  ACCEPTED     the object is valid in itself and acted on
  RESOLVED     everything that it refers to is there and may be used
  PROGRAMMED   an Envoy has taken the present configuration of the Gateway
What is not well is listed below the tables with reason and message, and then the keys that end soon.

Exit code 0: all is well; 1: something that was asked for is not; 2: the control plane does not answer, or has no such
object.")]
pub struct Args {
    /// Only objects of this kind, or the one of this name
    #[arg(value_name = "KIND[/NAME]")]
    what: Option<What>,
    /// Only objects of this namespace
    #[arg(short, long, value_name = "NS")]
    namespace: Option<String>,
    #[command(flatten)]
    api: AdminApi,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
    Yaml,
}

/// `KIND` or `KIND/NAME`
#[derive(Debug, Clone, PartialEq, Eq)]
struct What {
    kind: StatusKind,
    name: Option<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("there is no kind `{0}` with a status (see the kinds in --help)")]
struct UnknownKind(String);

pub fn main(args: &Args) -> anyhow::Result<Outcome> {
    let answer: Value = ask::block_on(args.api.get("api/status", &[]))?;
    let mut chosen: Vec<(Value, Object)> = Vec::new();
    for value in answer.get("objects").and_then(Value::as_array).into_iter().flatten() {
        let object: Object = serde_json::from_value(value.clone())?;
        if args.includes(&object) {
            chosen.push((value.clone(), object));
        }
    }
    if let Some(What { kind, name: Some(name) }) = args.what.as_ref().filter(|_| chosen.is_empty()) {
        anyhow::bail!(
            "there is no {} `{name}` (tollgate status {} lists them)",
            kind.name(),
            kind.name().to_lowercase()
        );
    }
    let (values, objects): (Vec<Value>, Vec<Object>) = chosen.into_iter().unzip();
    // What is wrong with files as such belongs to no object.
    let of_files = if args.is_for_all() { object::errors_of_files(&answer) } else { Vec::new() };
    match args.output {
        Output::Json => print(&(inert_json(&serde_json::to_string_pretty(&json!({"objects": values}))?) + "\n")),
        Output::Yaml => print(&serde_saphyr::to_string(&json!({"objects": values}))?),
        Output::Table => {
            let namespaces = if args.namespace.is_some() { tables::Namespaces::One } else { tables::Namespaces::All };
            print(&tables::tables(&objects, namespaces));
            print(&tables::not_well(&objects, &of_files));
            print(&tables::keys(&objects));
        }
    }
    let is_well = of_files.is_empty() && objects.iter().all(|object| object.not_well().next().is_none());
    Ok(if is_well { Outcome::Good } else { Outcome::Findings })
}

// === impl Args ===

impl Args {
    fn includes(&self, object: &Object) -> bool {
        let is_meant =
            |what: &What| what.kind.name() == object.kind && what.name.as_ref().is_none_or(|name| *name == object.name);
        let is_here = |namespace: &String| object.namespace.is_empty() || *namespace == object.namespace;
        self.what.as_ref().is_none_or(is_meant) && self.namespace.as_ref().is_none_or(is_here)
    }

    fn is_for_all(&self) -> bool {
        self.what.is_none() && self.namespace.is_none()
    }
}

// === impl What ===

impl std::str::FromStr for What {
    type Err = UnknownKind;

    /// Kinds are written in any case, and may be plural.
    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let (kind, name) = text.split_once('/').map_or((text, None), |(kind, name)| (kind, Some(name)));
        let is_it = |known: &StatusKind| {
            let one = known.name().to_lowercase();
            let many = match (one.strip_suffix("cy"), one.ends_with('s')) {
                (Some(stem), _) => format!("{stem}cies"),
                (None, true) => format!("{one}es"),
                (None, false) => format!("{one}s"),
            };
            let given = kind.to_lowercase();
            given == one || given == many
        };
        let found = StatusKind::ALL.into_iter().find(is_it);
        let kind = found.ok_or_else(|| UnknownKind(kind.to_owned()))?;
        Ok(Self { kind, name: name.filter(|name| !name.is_empty()).map(str::to_owned) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_taken_as_people_write_them() {
        let what = |text: &str| text.parse::<What>().map(|what| (what.kind, what.name));
        assert_eq!(what("HTTPRoute").unwrap(), (StatusKind::HttpRoute, None));
        assert_eq!(what("httproutes/chat").unwrap(), (StatusKind::HttpRoute, Some("chat".to_owned())));
        assert_eq!(what("tokenpolicies").unwrap(), (StatusKind::TokenPolicy, None));
        assert_eq!(what("gateways/llm").unwrap(), (StatusKind::Gateway, Some("llm".to_owned())));
        assert_eq!(what("gatewayclasses/").unwrap(), (StatusKind::GatewayClass, None));
        assert!(what("pods").is_err() && what("").is_err());
    }
}
