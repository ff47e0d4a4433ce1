//! `tollgate translate -f DIR`: every resource that a folder or a cluster means, secrets redacted. Of sidecars, the
//! EnvoyFilters by which Istio puts the filter into them.

use std::path::PathBuf;

use serde_json::{Map, Value};
use tollgate_core::envoy::{self, FilterCode as EnvoyCode, FilterSetup, Ports, RouteTables, Shown, Surroundings};
use tollgate_core::ir::Ir;
use tollgate_core::istio::{self, SIDECAR_CODE_PORT, SIDECARS_PORT};

use super::mesh::{At, MeshArgs, SidecarPlace, TELLER, written};
use super::otlp::OtlpArgs;
use super::placement::Placements;
use super::signals::SignalArgs;
use super::sources::Sources;
use super::validate::{looked, outcome};
use super::{Format, Outcome, ask, print};
use crate::filter_code::{FilterCode, Form};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tollgate translate -f ./conf
  tollgate translate -f ./conf --gateway default/llm -o json
  tollgate translate -f ./conf --placement sidecar-inbound | kubectl apply --server-side -f -
  tollgate translate --source kubernetes --namespace team-a

Of sidecars it prints the EnvoyFilters that `tollgate serve --envoy-filters` keeps: one for each Service that a policy names.
They hold no key. The control plane that their filters ask is started with --sidecars and --sidecar-code.")]
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
    #[command(flatten)]
    otlp: OtlpArgs,
    #[command(flatten)]
    signals: SignalArgs,
    #[command(flatten)]
    sidecars: SidecarPlace,
    /// The filter that sidecars are to have, in place of the one built in
    #[arg(long, value_name = "PATH")]
    wasm: Option<PathBuf>,
    #[arg(short, long, value_enum, default_value = "yaml")]
    output: Format,
}

/// Where the control plane is installed unless something else is said.
const NAMESPACE: &str = "tollgate-system";

pub fn main(args: &Args) -> anyhow::Result<Outcome> {
    let (translation, findings) = ask::block_on(looked(&args.sources, &args.placement, &args.mesh))?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    let ir = translation.ir;
    if args.placement.is_sidecar() {
        print(&written(&args.of_sidecars(&ir)?, args.output)?);
        return Ok(outcome(&findings));
    }
    let signals = args.signals.elsewhere(args.otlp.collector()?.as_ref())?;
    // The same surroundings as in `run`, except where the filter's code is.
    let surroundings = Surroundings {
        bind: "127.0.0.1".to_owned(),
        ports: Ports::Shared,
        filter: FilterSetup::of_gateways(EnvoyCode::File("filter.wasm".to_owned()))
            .telling(signals.fields(args.signals.asked_fields())),
        route_tables: RouteTables { scoped_above: args.scoped_routes_above },
        signals,
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
    let scopes = Value::Object(scopes);
    match args.output {
        Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(&scopes)?)),
        Format::Yaml => print(&serde_saphyr::to_string(&scopes)?),
    }
    Ok(outcome(&findings))
}

// === impl Args ===

impl Args {
    fn of_sidecars(&self, ir: &Ir) -> anyhow::Result<Vec<Value>> {
        if ir.workloads.is_empty() && ir.frontends.is_empty() {
            return Ok(Vec::new());
        }
        let code = FilterCode::load(Form::Wasm, self.wasm.as_deref())?;
        let at = At { keys: SIDECARS_PORT, code: SIDECAR_CODE_PORT };
        let setup = self.sidecars.setup(NAMESPACE, &self.mesh.of_sidecars(), at, &code.sha256, TELLER.to_owned())?;
        let setup = setup.telling(self.signals.asked_fields());
        let mut filters = Vec::new();
        for workload in ir.workloads.values() {
            match istio::envoy_filter(workload, ir, &setup, Shown::AsBytes)? {
                Some(kept) => filters.push(kept.document),
                None => eprintln!("{}: none of its ports is known yet, so there is no EnvoyFilter", workload.origin),
            }
        }
        for frontend in ir.frontends.values() {
            filters.extend(istio::frontend(frontend, &setup, Shown::AsBytes)?.into_iter().map(|kept| kept.document));
        }
        Ok(filters)
    }
}
