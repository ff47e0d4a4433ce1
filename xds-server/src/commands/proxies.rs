//! Options for the proxies of Gateways in a cluster: whether they are provided, of what, and how they are certified.

use clap::ValueEnum;
use kube::Client;
use tollgate_core::envoy::Signals;
use tollgate_core::fleet::{CERTIFICATES_PORT, PodMesh, Policies, Settings, XDS_PORT};
use tollgate_core::linkerd;
use tollgate_core::mesh::Mesh;
use tollgate_core::objects::{ProxyReplicas, ProxyService};
use tollgate_core::placement::Placement;

use super::stages::{Signing, listen};
use crate::serve::pki::{Maker, Origin};

const HEADING: &str = "Proxies in a cluster";
/// How busy the Pods are on average when there are more of them, in percent of the CPU that they request.
const CPU_PERCENT: u32 = 80;

#[derive(Debug, clap::Args)]
pub struct Proxies {
    /// Provide proxies for each Gateway, of this image: a Deployment, a Service, a ServiceAccount, a ConfigMap with the CA and
    /// a PodDisruptionBudget in the Gateway's namespace. It needs the provisioning role
    #[arg(long, value_name = "IMAGE", requires = "source", conflicts_with = "fleet", help_heading = HEADING)]
    proxy_image: Option<String>,
    /// Pods of each Gateway: a number, or LEAST-MOST for a HorizontalPodAutoscaler that keeps them at 80% of their CPU
    #[arg(long, default_value = "2", value_parser = replicas, value_name = "N|LEAST-MOST", help_heading = HEADING)]
    proxy_replicas: ProxyReplicas,
    /// Type of each Gateway's Service
    #[arg(long, value_enum, default_value = "load-balancer", help_heading = HEADING)]
    proxy_service: Service,
    /// Host by which proxies reach this control plane [default: tollgate.NAMESPACE.svc]
    #[arg(long, value_name = "HOST", help_heading = HEADING)]
    proxy_control_plane: Option<String>,
    /// The proxies are in a Linkerd mesh: their Pods ask for Linkerd's proxy, which makes the mutual TLS beside them
    #[arg(long, requires = "proxy_image", conflicts_with = "mesh_certificates", help_heading = HEADING)]
    proxy_linkerd: bool,
    /// How much Linkerd's proxy says of itself there, as its annotation config.linkerd.io/proxy-log-level has it, unless a
    /// Gateway says that itself [default: as Linkerd is told]
    #[arg(long, requires = "proxy_linkerd", value_name = "LEVEL", help_heading = HEADING)]
    proxy_linkerd_log_level: Option<String>,
    /// Linkerd's proxy writes down the requests that come to the proxies, unless a Gateway says otherwise
    #[arg(long, requires = "proxy_linkerd", value_enum, help_heading = HEADING)]
    proxy_linkerd_access_log: Option<LinkerdAccessLog>,
    /// A NetworkPolicy beside each Gateway's proxies: its listeners take everybody, and they reach what its routes lead to, DNS
    /// and this control plane
    #[arg(long, requires = "proxy_image", help_heading = HEADING)]
    proxy_network_policies: bool,
    /// Certify proxies by the tokens of their Pods' service accounts, on this address
    #[arg(long, value_name = "IP:PORT", requires = "source", help_heading = HEADING)]
    certificates: Option<String>,
    /// Secret (type kubernetes.io/tls) with the CA that all replicas of the control plane share, as --authority has it. If there
    /// is none, it is made
    #[arg(long, value_name = "NAME", requires = "source", help_heading = HEADING)]
    authority_secret: Option<String>,
    /// Wait for this Secret instead of making it, because somebody else does, as cert-manager or External Secrets
    #[arg(long, requires = "authority_secret", help_heading = HEADING)]
    authority_from_others: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Service {
    LoadBalancer,
    NodePort,
    ClusterIp,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LinkerdAccessLog {
    Json,
    Apache,
}

// === impl Proxies ===

impl Proxies {
    /// None: proxies are not provided. `namespace` is the control plane's. `mesh` is what their translation is told of, and
    /// `signals` what they tell.
    pub fn settings(&self, namespace: &str, mesh: Option<&Mesh>, signals: &Signals) -> Option<Settings> {
        let control_plane = self.proxy_control_plane.clone();
        Some(Settings {
            image: self.proxy_image.clone()?,
            control_plane: control_plane.unwrap_or_else(|| format!("tollgate.{namespace}.svc")),
            xds_port: XDS_PORT,
            certificates_port: CERTIFICATES_PORT,
            replicas: self.proxy_replicas,
            service: match self.proxy_service {
                Service::LoadBalancer => ProxyService::LoadBalancer,
                Service::NodePort => ProxyService::NodePort,
                Service::ClusterIp => ProxyService::ClusterIP,
            },
            mesh: match mesh {
                Some(mesh) => PodMesh::Istio { certificates: mesh.certificates.clone() },
                None if self.proxy_linkerd => PodMesh::Linkerd(self.linkerd_logs()),
                None => PodMesh::None,
            },
            policies: match self.proxy_network_policies {
                true => Policies::PerGateway {
                    namespace: namespace.to_owned(),
                    collector: signals.tracing.as_ref().map(|tracing| tracing.collector.clone()),
                },
                false => Policies::None,
            },
        })
    }

    fn linkerd_logs(&self) -> linkerd::Logs {
        let access = self.proxy_linkerd_access_log.map(|format| match format {
            LinkerdAccessLog::Json => linkerd::AccessLog::Json,
            LinkerdAccessLog::Apache => linkerd::AccessLog::Apache,
        });
        linkerd::Logs { level: self.proxy_linkerd_log_level.clone(), access }
    }

    /// None: the CA is not in a Secret.
    pub fn authority(&self, client: &Client, namespace: &str) -> Option<Origin> {
        let maker = if self.authority_from_others { Maker::Another } else { Maker::Us };
        Some(Origin::secret(client.clone(), namespace, self.authority_secret.as_deref()?, maker))
    }

    pub async fn signing(&self, placement: &Placement) -> anyhow::Result<Option<Signing>> {
        match &self.certificates {
            Some(address) => {
                let listener = listen(address, "--certificates").await?;
                let fleet = match placement {
                    Placement::OneFleet(name) => Some(name.clone()),
                    Placement::OneHost | Placement::ProxyPerGateway | Placement::Sidecar(_) => None,
                };
                Ok(Some(Signing { listener, fleet }))
            }
            None => Ok(None),
        }
    }
}

fn replicas(text: &str) -> Result<ProxyReplicas, &'static str> {
    const WRONG: &str = "not a number, or two such as 2-10";
    let number = |text: &str| text.parse::<u32>().ok().filter(|number| (1..=1000).contains(number)).ok_or(WRONG);
    match text.split_once('-') {
        None => Ok(ProxyReplicas::Fixed(number(text)?)),
        Some((least, most)) => match (number(least)?, number(most)?) {
            (least, most) if least <= most => Ok(ProxyReplicas::Between { least, most, cpu_percent: CPU_PERCENT }),
            _ => Err("the first number is the smaller one"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_a_number_or_two() {
        assert_eq!(replicas("3"), Ok(ProxyReplicas::Fixed(3)));
        assert_eq!(replicas("2-10"), Ok(ProxyReplicas::Between { least: 2, most: 10, cpu_percent: CPU_PERCENT }));
        for bad in ["", "0", "x", "3-2", "0-2", "2-", "1001"] {
            assert!(replicas(bad).is_err(), "{bad}");
        }
    }
}
