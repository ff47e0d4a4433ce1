//! The Pod of the chart's own fleet, which serves all Gateways. It is that of one Gateway's proxies, with an expression of
//! Helm wherever the chart decides (in backquotes, because quotes are YAML's). `cargo xtask gen` writes it into the chart.

use serde_json::{Map, Value, json};

use super::pod::{AUTHORITY_VOLUME, CA_FILE, Runs};
use super::{CERTIFICATES_PORT, PodMesh, Policies, Settings, XDS_PORT};
use crate::objects::{ProxyParameters, ProxyReplicas, ProxyService};

/// All that are to be trusted, where the Secret says so.
const BUNDLE_FILE: &str = "bundle.pem";

pub fn pod() -> Value {
    let settings = Settings {
        image: "{{ include `tollgate.image` (list .Values.proxies.image .) }}".to_owned(),
        control_plane: "{{ include `tollgate.name` . }}.{{ .Release.Namespace }}.svc".to_owned(),
        xds_port: XDS_PORT,
        certificates_port: CERTIFICATES_PORT,
        // Neither is of a Pod.
        replicas: ProxyReplicas::Fixed(1),
        service: ProxyService::ClusterIP,
        // The chart adds it.
        mesh: PodMesh::None,
        policies: Policies::None,
    };
    let selector: Map<String, Value> =
        [("app.kubernetes.io/name", "tollgate-proxy"), ("app.kubernetes.io/instance", "{{ .Release.Name }}")]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
    // The CA's key is in the same Secret. A Pod gets the certificates alone. Not every Secret has a bundle of all that are
    // to be trusted, and then it is the CA itself.
    let secret = |key: &str, path: &str, optional: bool| json!({"secret": {"name": "tollgate-authority", "items": [{"key": key, "path": path}], "optional": optional}});
    Runs {
        account: "{{ include `tollgate.fleet` . }}",
        selector,
        authority: json!({
            "name": AUTHORITY_VOLUME,
            "projected": {"sources": [secret("tls.crt", CA_FILE, false), secret("ca.crt", BUNDLE_FILE, true)]},
        }),
        authority_files: &[BUNDLE_FILE, CA_FILE],
    }
    .pod(&settings, &ProxyParameters::default())
}
