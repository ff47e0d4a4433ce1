{{- define "tollgate.name" -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- end -}}

{{- define "tollgate.account" -}}
{{- .Values.serviceAccount.name | default (include "tollgate.name" .) -}}
{{- end -}}

{{- define "tollgate.labels" -}}
app.kubernetes.io/name: tollgate
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: tollgate
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- /* The proxies that serve all Gateways: their Deployment, Service and account. */ -}}
{{- define "tollgate.fleet" -}}
{{- include "tollgate.name" . }}-proxies
{{- end -}}

{{- define "tollgate.selector" -}}
app.kubernetes.io/name: tollgate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* An image by its digest, if there is one, else by its tag. */ -}}
{{- define "tollgate.image" -}}
{{- $image := index . 0 -}}{{- $root := index . 1 -}}
{{- if eq (toString $image.tag) "latest" -}}
{{- fail (printf "the image %s: `latest` is another one every day; name a version, or a digest" $image.repository) -}}
{{- end -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Where Istio's agent keeps the certificate of a proxy, in the proxy's own Pod. */}}
{{- define "tollgate.meshCertificates" -}}
--mesh-certificates=/var/lib/istio/data
{{- end }}

{{- /* The Pod of `helm test`. */ -}}
{{- define "tollgate.testLabels" -}}
app.kubernetes.io/name: tollgate-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* Of a cluster's DNS, and of OpenShift's, whose Pods have the second one. */ -}}
{{- define "tollgate.dns" -}}
- {port: 53, protocol: UDP}
- {port: 53, protocol: TCP}
- {port: 5353, protocol: UDP}
- {port: 5353, protocol: TCP}
{{- end -}}

{{- /* Whether the release has a claim for the ledger. */ -}}
{{- define "tollgate.claims" -}}
{{- $persistence := .Values.ledger.persistence -}}
{{- if and $persistence.enabled (not $persistence.existingClaim) (not $persistence.hostPath) }}true{{ end -}}
{{- end -}}

{{- /* Whether two Pods of the control plane may run at once: no volume keeps the ledger to one of them. So it is with several
replicas, and while the only one is replaced. */ -}}
{{- define "tollgate.overlaps" -}}
{{- if not (and (include "tollgate.claims" .) (ne .Values.ledger.persistence.accessMode "ReadWriteMany")) }}true{{ end -}}
{{- end -}}

{{- /* The Secret with the CA that all replicas share. */ -}}
{{- define "tollgate.authority" -}}
tollgate-authority
{{- end -}}

{{- define "tollgate.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "tollgate.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}
