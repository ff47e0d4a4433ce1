//! The Pod of the chart's own fleet, which serves all Gateways. It is that of one Gateway's proxies, with an expression of
//! Helm wherever the chart decides (in backquotes, because quotes are YAML's). `cargo xtask gen` writes it into the chart.

use serde_json::{Map, Value, json};

use super::pod::{AUTHORITY_VOLUME, CA_FILE, Runs};
use super::{CERTIFICATES_PORT, PodMesh, Settings, XDS_PORT};
use crate::objects::{ProxyParameters, ProxyReplicas, ProxyService};

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
    };
    let selector: Map<String, Value> =
        [("app.kubernetes.io/name", "tollgate-proxy"), ("app.kubernetes.io/instance", "{{ .Release.Name }}")]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
    // The CA's key is in the same Secret. A Pod gets the certificate alone.
    let certificate = json!([{"key": "tls.crt", "path": CA_FILE}]);
    Runs {
        account: "{{ include `tollgate.fleet` . }}",
        selector,
        authority: json!({
            "name": AUTHORITY_VOLUME,
            "secret": {"secretName": "tollgate-authority", "items": certificate},
        }),
    }
    .pod(&settings, &ProxyParameters::default())
}
