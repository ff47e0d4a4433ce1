//! `tollgate translate -f DIR`: every resource that a folder or a cluster means, secrets redacted. In sidecars, what the
//! filter must know of each workload.

use serde_json::{Map, Value};
use tollgate_core::envoy::{self, FilterCode, FilterSetup, Ports, RouteTables, Surroundings};

use super::mesh::MeshArgs;
use super::placement::Placements;
use super::sources::Sources;
use super::validate::{looked, outcome};
use super::{Format, Outcome, ask, print};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tollgate translate -f ./conf
  tollgate translate -f ./conf --gateway default/llm -o json
  tollgate translate -f ./conf --placement sidecar-inbound
  tollgate translate --source kubernetes --namespace team-a

Of sidecars it prints which limits hold for which workload.")]
pub struct Args {
    #[command(flatten)]
    sources: Sources,
    #[command(flatten)]
    placement: Placements,
    #[command(flatten)]
    mesh: MeshArgs,
    /// Only this Gateway
    #[arg(long, value_name = "NAMESPACE/NAME")]
    gateway: Option<String>,
    /// Route tables with more hostnames than this are sent one scope for each hostname, so that a change of one costs
    /// little however many there are
    #[arg(long, default_value_t = RouteTables::default().scoped_above, value_name = "N")]
    scoped_routes_above: usize,
    #[arg(short, long, value_enum, default_value = "yaml")]
    output: Format,
}

pub fn main(args: &Args) -> anyhow::Result<Outcome> {
    let (translation, findings) = ask::block_on(looked(&args.sources, &args.placement, &args.mesh))?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    let ir = translation.ir;
    // The same surroundings as in `run`, except where the filter's code is.
    let surroundings = Surroundings {
        bind: "127.0.0.1".to_owned(),
        ports: Ports::Shared,
        filter: FilterSetup::of_gateways(FilterCode::File("filter.wasm".to_owned())),
        route_tables: RouteTables { scoped_above: args.scoped_routes_above },
    };
    let mut scopes = Map::new();
    for (key, gateway) in &ir.gateways {
        let name = key.to_string();
        if args.gateway.as_ref().is_none_or(|only| *only == name) {
            let snapshot = envoy::snapshot(gateway, &ir, &surroundings);
            scopes.insert(name, envoy::to_json(&snapshot));
        }
    }
    if let Some(gateway) = args.gateway.as_ref().filter(|_| scopes.is_empty()) {
        let known: Vec<String> = ir.gateways.keys().map(ToString::to_string).collect();
        anyhow::bail!("there is no Gateway `{gateway}` that can be served (there are: {})", known.join(", "));
    }
    // The filter of this version takes no class without a pool, so the IR is printed and not the configuration.
    for workload in ir.workloads.values() {
        scopes.insert(workload.catalog.scope.to_string(), serde_json::to_value(workload)?);
    }
    let scopes = Value::Object(scopes);
    match args.output {
        Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(&scopes)?)),
        Format::Yaml => print(&serde_saphyr::to_string(&scopes)?),
    }
    Ok(outcome(&findings))
}
