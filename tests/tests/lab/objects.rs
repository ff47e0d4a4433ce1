//! Objects that several tests start from.

/// Two restricted Pods that answer HTTP and mount much, with Services in front. Its namespace is new.
pub fn web(namespace: &str) -> String {
    WEB.replace("NAMESPACE", namespace)
}

/// A Pod of the image busybox in the namespace `default` that runs this script.
pub fn shell(name: &str, script: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
         containers:\n  - name: main\n    image: busybox\n    args: [-c, \"{script}\"]\n{more}"
    )
}

const WEB: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: NAMESPACE, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: NAMESPACE}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: NAMESPACE}
rules: [{apiGroups: [''], resources: [pods], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: NAMESPACE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: NAMESPACE}]
---
apiVersion: v1
kind: Secret
metadata: {name: settings, namespace: NAMESPACE}
stringData: {word: first}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: NAMESPACE}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: peers, namespace: NAMESPACE}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NAMESPACE}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      serviceAccountName: reader
      terminationGracePeriodSeconds: 2
      securityContext: {runAsNonRoot: true, fsGroup: 2000, seccompProfile: {type: RuntimeDefault}}
      initContainers:
      - name: prepare
        image: busybox
        args: [-c, 'echo prepared on $(NODE) > /shared/note']
        env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
        securityContext: &locked
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          runAsUser: 1000
          capabilities: {drop: [ALL]}
        volumeMounts: [{name: shared, mountPath: /shared}]
      containers:
      - name: web
        image: registry.k8s.io/gateway-api/echo-basic:v1.6.3
        securityContext: *locked
        env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        - {name: HTTP_PORT, value: '8080'}
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /, port: http}}
        livenessProbe: {tcpSocket: {port: http}}
        volumeMounts:
        - {name: shared, mountPath: /shared}
        - {name: settings, mountPath: /etc/settings}
      volumes:
      - {name: shared, emptyDir: {}}
      - {name: settings, secret: {secretName: settings, defaultMode: 0400}}
";
