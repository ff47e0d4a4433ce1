package main

import (
	"fmt"
	"os"
	"path/filepath"

	"lab/node"
)

// The lab's addresses. All of them exist only in its network namespaces.
const (
	network      = "10.98.0.0/16"
	nodeIP       = "10.98.0.1"
	podRange     = "10.98.0.0/17"
	serviceRange = "10.98.128.0/18"
	apiServiceIP = "10.98.128.1" // the API server takes the range's first
	balancers    = "10.98.192.0/18"
	nodeName     = "lab-node"
)

// A component is a child process of the lab: a subcommand of this program and its arguments.
type component struct {
	name string
	args []string
}

func storage(dir string) []component {
	return []component{{"etcd", []string{"--dir", filepath.Join(dir, "etcd")}}}
}

// auditPolicy keeps what the policy for users keeps (manifests/audit-policy.yaml,
// whose rules stand before one's own), and what Tollgate's own service account
// asks for, so that a test can compare it with the rights that account has.
func auditPolicy(ofUsers string) (string, error) {
	policy := "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n"
	if ofUsers != "" {
		text, err := os.ReadFile(ofUsers)
		if err != nil {
			return "", err
		}
		policy = string(text)
	}
	return policy + ownAuditRules, nil
}

const ownAuditRules = `- {level: Metadata, users: ["system:serviceaccount:tollgate-system:tollgate"]}
- {level: None}
`

const apiServerName = "kube-apiserver"

func apiServer(pki *authority, audit string, port int) component {
	return component{apiServerName, []string{
		"--etcd-servers=http://" + etcdAddress,
		fmt.Sprintf("--secure-port=%d", port),
		"--bind-address=0.0.0.0", // of the lab's namespace: loopback for the relay, nodeIP for pods
		"--advertise-address=" + nodeIP,
		"--service-cluster-ip-range=" + serviceRange,
		"--tls-cert-file=" + pki.path("kube-apiserver.crt"),
		"--tls-private-key-file=" + pki.path("kube-apiserver.key"),
		"--client-ca-file=" + pki.path("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + pki.path("service-account.key"),
		"--service-account-signing-key-file=" + pki.path("service-account.key"),
		"--kubelet-client-certificate=" + pki.path("kubelet-client.crt"),
		"--kubelet-client-key=" + pki.path("kubelet-client.key"),
		"--kubelet-certificate-authority=" + pki.path("ca.crt"),
		"--kubelet-preferred-address-types=InternalIP",
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction", // besides the defaults: ServiceAccount, PodSecurity, ...
		"--allow-privileged=true",
		"--audit-policy-file=" + audit,
		"--audit-log-path=" + filepath.Join(filepath.Dir(audit), "audit.log"),
		"--audit-log-maxsize=4096", // MB: tests read it from its beginning
	}}
}

// clients are the components that need a ready API server.
func clients(pki *authority, dir, images string) []component {
	kubeconfig := func(name string) string { return "--kubeconfig=" + pki.path(name+".kubeconfig") }
	return []component{
		{"kube-controller-manager", []string{
			kubeconfig("kube-controller-manager"),
			"--bind-address=127.0.0.1",
			"--leader-elect=false",
			"--use-service-account-credentials=true",
			"--service-account-private-key-file=" + pki.path("service-account.key"),
			"--root-ca-file=" + pki.path("ca.crt"),
			"--cluster-signing-cert-file=" + pki.path("ca.crt"),
			"--cluster-signing-key-file=" + pki.path("ca.key"),
			"--kube-api-qps=200", "--kube-api-burst=400",
		}},
		{"kube-scheduler", []string{
			kubeconfig("kube-scheduler"),
			"--bind-address=127.0.0.1",
			"--leader-elect=false",
		}},
		{"kube-proxy", []string{
			kubeconfig("kube-proxy"),
			"--proxy-mode=nftables",
			"--hostname-override=" + nodeName,
			"--cluster-cidr=" + podRange,
			"--metrics-bind-address=127.0.0.1:10249",
			"--healthz-bind-address=127.0.0.1:10256",
			// These limits belong to the machine, not to a namespace.
			"--conntrack-max-per-core=0",
			"--conntrack-tcp-timeout-established=0",
			"--conntrack-tcp-timeout-close-wait=0",
		}},
		{"addons", []string{
			kubeconfig("addons"),
			"--dns=" + nodeIP + ":53",
			"--balancers=" + balancers,
		}},
		{"node", []string{
			kubeconfig("node"),
			"--name=" + nodeName,
			"--ip=" + nodeIP,
			"--pods=" + podRange,
			"--api=" + apiServiceIP,
			"--dir=" + dir,
			"--images=" + images,
			"--tls-cert=" + pki.path("kubelet.crt"),
			"--tls-key=" + pki.path("kubelet.key"),
			"--client-ca=" + pki.path("ca.crt"),
		}},
	}
}

// identities issues every certificate and kubeconfig of the lab.
func identities(pki *authority) error {
	steps := []error{
		pki.serving("kube-apiserver", ips(nodeIP, apiServiceIP, "127.0.0.1"),
			"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"),
		pki.serving("kubelet", ips(nodeIP), nodeName),
		pki.client("kubelet-client", node.APIServerUser, "lab:kubelet-admin"),
		pki.client("admin", "kubernetes-admin", "system:masters"),
		pki.client("addons", "lab:addons", "system:masters"),
		pki.client("kube-controller-manager", "system:kube-controller-manager"),
		pki.client("kube-scheduler", "system:kube-scheduler"),
		pki.client("kube-proxy", "system:kube-proxy"),
		pki.client("node", "system:node:"+nodeName, "system:nodes"),
	}
	for _, err := range steps {
		if err != nil {
			return err
		}
	}
	return nil
}
