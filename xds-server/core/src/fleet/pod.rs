//! The Pod: what runs in it, as whom, and how it begins and ends.

use serde_json::{Map, Value, json};

use super::{PodMesh, Settings};
use crate::objects::ProxyParameters;
use crate::placement::STATUS_PORT;

/// Whom the Pod's token is for. Nobody else takes it, so it opens nothing but a certificate.
pub const TOKEN_AUDIENCE: &str = "tollgate";
/// The ConfigMap's key, and the file's name in the Pod.
pub const CA_FILE: &str = "ca.pem";

pub(super) const AUTHORITY_VOLUME: &str = "authority";
const CONTAINER: &str = "proxy";
const USER: u32 = 65_532;
const IDENTITY: &str = "/var/run/tollgate/identity";
const AUTHORITY: &str = "/var/run/tollgate/authority";
const STATE: &str = "/var/run/tollgate/state";
const TOKEN_FILE: &str = "token";
/// The token is renewed long before its end, and is read anew for each certificate.
const TOKEN_SECONDS: u32 = 3600;
/// The time to leave the endpoints of Services (5 s), to end requests (45 s), and to report what they used and give leased tokens
/// back (24 s).
const GRACE_SECONDS: u32 = 90;

/// What Pods of one fleet have in common.
pub(super) struct Runs<'a> {
    pub account: &'a str,
    /// The labels by which they are found.
    pub selector: Map<String, Value>,
    /// The volume with the CAs of the control plane. It is named [`AUTHORITY_VOLUME`].
    pub authority: Value,
    /// Files in it. The first one that is there counts.
    pub authority_files: &'static [&'static str],
}

// === impl Runs ===

impl Runs<'_> {
    pub fn pod(&self, settings: &Settings, parameters: &ProxyParameters) -> Value {
        let mut pod = json!({
            "serviceAccountName": self.account,
            // The only token is the one of the volume below.
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
                // So that ports below 1024 need no capability. It concerns the Pod's own network only.
                "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
            },
            "topologySpreadConstraints": [{
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": self.selector},
            }],
            "containers": [self.container(settings, parameters)],
            "volumes": [
                {"name": "identity", "projected": {"sources": [{"serviceAccountToken": {
                    "audience": TOKEN_AUDIENCE,
                    "expirationSeconds": TOKEN_SECONDS,
                    "path": TOKEN_FILE,
                }}]}},
                self.authority,
                // The private key is never on a disk.
                {"name": "state", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
            ],
        });
        if !parameters.node_selector.is_empty() {
            super::put(&mut pod, "nodeSelector", json!(parameters.node_selector));
        }
        pod
    }

    fn container(&self, settings: &Settings, parameters: &ProxyParameters) -> Value {
        let resources = match &parameters.resources {
            Some(asked) => json!({"requests": asked.requests, "limits": asked.limits}),
            None => json!({"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}),
        };
        let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
        let probe = |path: &str| json!({"path": path, "port": "status", "scheme": "HTTP"});
        json!({
            "name": CONTAINER,
            "image": parameters.image.as_ref().unwrap_or(&settings.image),
            "args": self.arguments(settings),
            "env": [field("POD_NAME", "metadata.name"), field("POD_NAMESPACE", "metadata.namespace")],
            "ports": [{"name": "status", "containerPort": STATUS_PORT, "protocol": "TCP"}],
            // A new Pod takes requests once it has all of its configuration and the keys.
            "readinessProbe": {"httpGet": probe("/readyz"), "periodSeconds": 2, "failureThreshold": 2},
            "livenessProbe": {"httpGet": probe("/healthz"), "periodSeconds": 10, "failureThreshold": 6},
            "resources": resources,
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [
                {"name": "identity", "mountPath": IDENTITY, "readOnly": true},
                {"name": AUTHORITY_VOLUME, "mountPath": AUTHORITY, "readOnly": true},
                {"name": "state", "mountPath": STATE},
            ],
        })
    }

    fn arguments(&self, settings: &Settings) -> Vec<String> {
        let mut arguments = vec![
            "proxy".to_owned(),
            format!("--control-plane={}", settings.control_plane),
            format!("--xds-port={}", settings.xds_port),
            format!("--certificates-port={}", settings.certificates_port),
            format!("--token={IDENTITY}/{TOKEN_FILE}"),
        ];
        arguments.extend(self.authority_files.iter().map(|file| format!("--authority={AUTHORITY}/{file}")));
        arguments.extend([format!("--state={STATE}/proxy"), format!("--status=0.0.0.0:{STATUS_PORT}")]);
        match &settings.mesh {
            PodMesh::Istio { certificates } => arguments.push(format!("--mesh-certificates={certificates}")),
            PodMesh::None | PodMesh::Linkerd(_) => {}
        }
        arguments
    }
}
