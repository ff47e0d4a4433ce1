//! `tollgate mesh check`: looks at a cluster once, and says in words what keeps its mesh from working with Gateways.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tollgate_core::fleet;
use tollgate_core::ir;
use tollgate_core::istio::{Found, FoundGateway, FoundService, Remark, Version, check};
use tollgate_core::mesh::Mesh;
use tollgate_core::objects::{GATEWAY_GROUP, Key};
use tollgate_core::placement::{Direction, Placement, Setting, Sidecars};
use tollgate_core::scope::Scope;
use tollgate_core::status::{Severity, display_name};

use super::look::{self, Modes};
use super::{domain, place};
use crate::commands::terminal::inert;
use crate::commands::{Outcome, ask, print};
use crate::pipeline;
use crate::source::Source;
use crate::source::kubernetes::Access;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
It looks for: Istio itself and what injects its agent; Pods of Gateways without the agent, or with a second proxy;
endpoints that Gateways lead to and that are outside of the mesh; PeerAuthentications that take plain text or no TLS;
AuthorizationPolicies that let no Gateway in; Sidecars that hide a Gateway from its callers; Services that a TokenPolicy
names without our EnvoyFilter, and Pods without a sidecar to put it in; namespaces in ambient mode; versions that do not go
together. What holds for single workloads alone is not looked at. It only reads.

Exit code 0: nothing is broken, though there may be warnings; 1: something is; 2: the cluster cannot be read.")]
pub struct Args {
    /// kubeconfig of the cluster [default: KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "PATH")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    kube_context: Option<String>,
    /// The Service of the proxies that serve all Gateways, where there is one fleet of them
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = place)]
    fleet: Option<Key>,
    /// The mesh's trust domain
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local", value_parser = domain)]
    trust_domain: String,
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

/// No request takes longer.
const REQUEST: Duration = Duration::from_secs(15);
/// What the webhooks of Istio's injectors end in, of whatever revision.
const INJECTOR: &str = "sidecar-injector.istio.io";
const KINDS: [(&str, &str); 3] = [
    ("security.istio.io", "PeerAuthentication"),
    ("security.istio.io", "AuthorizationPolicy"),
    ("networking.istio.io", "Sidecar"),
];

pub fn main(args: &Args) -> anyhow::Result<Outcome> {
    let found = ask::block_on(found(args))?;
    let remarks = check(&found);
    print(&match args.output {
        Output::Json => format!("{}\n", serde_json::to_string_pretty(&json!({"remarks": remarks}))?),
        Output::Text => text(&found, &remarks),
    });
    let is_broken = remarks.iter().any(|remark| remark.severity == Severity::Error);
    Ok(if is_broken { Outcome::Findings } else { Outcome::Good })
}

fn text(found: &Found, remarks: &[Remark]) -> String {
    let lines: String = remarks.iter().map(|remark| inert(&remark.to_string()) + "\n").collect();
    let count = |severity| remarks.iter().filter(|remark| remark.severity == severity).count();
    format!(
        "{lines}Gateways: {}; Services and InferencePools that they lead to: {}; Services with policies: {}; errors: {}; \
         warnings: {}\n",
        found.gateways.len(),
        found.gateways.iter().flat_map(|gateway| &gateway.services).collect::<BTreeSet<_>>().len(),
        found.workloads.len(),
        count(Severity::Error),
        count(Severity::Warning)
    )
}

async fn found(args: &Args) -> anyhow::Result<Found> {
    let access =
        Access { kubeconfig: args.kubeconfig.clone(), context: args.kube_context.clone(), ..Access::default() };
    let client = access.reach(Some(REQUEST)).await?.client;
    let mesh = Mesh {
        trust_domain: args.trust_domain.clone(),
        aliases: Vec::new(),
        cluster_domain: "cluster.local".to_owned(),
        certificates: String::new(),
    };
    let placement = args.fleet.clone().map_or(Placement::ProxyPerGateway, Placement::OneFleet);
    // Whether or not it was installed with sidecars, a policy may ask for them.
    let setting = Setting { mesh: Some(Arc::new(mesh)), sidecars: Sidecars::Both, ..placement.into() };
    let (translation, _) = pipeline::once(&Source::Kubernetes(access), setting).await?;
    let objects = objects(&client).await?;
    let modes = look::modes(&client).await?;
    let mut gateways = Vec::new();
    for (key, gateway) in &translation.ir.gateways {
        gateways.push(of_gateway(&client, args, &modes, key, gateway).await?);
    }
    let workloads = translation.ir.workloads.values().filter(|workload| !workload.ports.is_empty());
    let workloads = workloads.filter_map(|workload| match &workload.catalog.scope {
        Scope::Workload { service, direction: Direction::Inbound } => Some(service.clone()),
        Scope::Workload { direction: Direction::Outbound, .. } | Scope::Gateway(_) => None,
    });
    Ok(Found {
        has_istio: objects.is_some(),
        injectors: injectors(&client).await?,
        trust_domain: args.trust_domain.clone(),
        gateways,
        ambient: modes.ambient(),
        istiods: look::istiods(&client).await?,
        control_planes: look::own_control_planes(&client).await?,
        version: Version::of_tag(env!("CARGO_PKG_VERSION")),
        workloads: workloads.collect(),
        filters: if objects.is_some() { look::filters(&client, &modes).await? } else { Vec::new() },
        objects: objects.unwrap_or_default(),
    })
}

/// None: the API server does not know the kinds.
async fn objects(client: &Client) -> anyhow::Result<Option<Vec<Value>>> {
    let mut all = Vec::new();
    for (group, kind) in KINDS {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        match api.list(&ListParams::default()).await {
            Ok(list) => {
                for object in list {
                    let mut object = serde_json::to_value(object)?;
                    // The items of a list do not say it.
                    if let Some(fields) = object.as_object_mut() {
                        fields.insert("kind".to_owned(), json!(kind));
                    }
                    all.push(object);
                }
            }
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Some(all))
}

async fn injectors(client: &Client) -> anyhow::Result<Vec<String>> {
    let all: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let is_istios = |configuration: &MutatingWebhookConfiguration| {
        configuration.webhooks.iter().flatten().any(|webhook| webhook.name.ends_with(INJECTOR))
    };
    let all = all.list(&ListParams::default()).await?;
    Ok(all
        .iter()
        .filter(|configuration| is_istios(configuration))
        .map(|configuration| configuration.name_any())
        .collect())
}

async fn of_gateway(
    client: &Client,
    args: &Args,
    modes: &Modes,
    key: &Key,
    gateway: &ir::Gateway,
) -> anyhow::Result<FoundGateway> {
    let (account, labels) = match &args.fleet {
        Some(fleet) => (fleet.clone(), "app.kubernetes.io/name=tollgate-proxy".to_owned()),
        None => {
            let class = class(client, key).await?;
            let account = Key::new(Arc::clone(&key.namespace), fleet::name(&key.name, &class));
            (account, format!("{}={}", fleet::GATEWAY_NAME, fleet::label_value(&key.name)))
        }
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), &account.namespace);
    let pods = pods.list(&ListParams::default().labels(&labels)).await?;
    let has_members = gateway.catalog.has_members;
    let pods = pods.iter().map(|pod| look::pod(pod, modes)).collect();
    Ok(FoundGateway { key: key.clone(), account, has_members, pods, services: services(gateway) })
}

/// The GatewayClass of a Gateway, which the account of its proxies is named after.
async fn class(client: &Client, key: &Key) -> anyhow::Result<String> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GATEWAY_GROUP, "v1", "Gateway"));
    let gateways: Api<DynamicObject> = Api::namespaced_with(client.clone(), &key.namespace, &resource);
    let gateway = gateways.get(&key.name).await?;
    let class = gateway.data.pointer("/spec/gatewayClassName").and_then(Value::as_str);
    Ok(class.unwrap_or_default().to_owned())
}

/// Each once, whichever ports of it the Gateway leads to.
fn services(gateway: &ir::Gateway) -> Vec<FoundService> {
    let mut found: BTreeMap<String, FoundService> = BTreeMap::new();
    for service in gateway.services.values() {
        let (kind, namespace) = (&service.origin.kind, &service.origin.namespace);
        let name = format!("{kind} {}", display_name(namespace, &service.origin.name));
        let members = service.endpoints.iter().filter(|endpoint| endpoint.is_in_mesh).count();
        let entry = found.entry(name.clone()).or_insert_with(|| FoundService {
            name,
            namespace: namespace.to_string(),
            endpoints: 0,
            members: 0,
        });
        if service.endpoints.len() > entry.endpoints {
            (entry.endpoints, entry.members) = (service.endpoints.len(), members);
        }
    }
    found.into_values().collect()
}
