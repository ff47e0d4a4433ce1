package addons

import (
	"bytes"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/tools/cache"
)

// NetworkPolicies are enforced as the node's firewall. All packets of pods pass
// the node's IP layer, after kube-proxy has put the pod's address in place of a
// service's. Whatever a policy admits has a counter of its own, named
// NAMESPACE/POLICY/DIRECTION/RULE/PEER/PORT, so that a test can say which rules
// are used; what no policy admits is dropped, and noted in the set `refused`.
//
// As in most clusters, the node may reach its own pods. The API server is on it,
// too, and what pods send to the node is held to their policies.
const (
	policyTable = "lab_policies"
	// Many pods change at once.
	settle = 20 * time.Millisecond
	// Bits of the packet's mark: some policy of the sender's, or of the receiver's, admits it.
	sent     = "0x100000"
	received = "0x200000"
)

type policies struct {
	pods       corelisters.PodLister
	namespaces corelisters.NamespaceLister
	policies   networkinglisters.NetworkPolicyLister
	due        chan struct{}
	written    string
	counters   map[string]bool // that there are
}

// A direction is what is policed of a packet: that its sender sends it, or that its receiver takes it.
type direction struct {
	name, ours, theirs, mark string
}

var (
	egress  = direction{"egress", "saddr", "daddr", sent}
	ingress = direction{"ingress", "daddr", "saddr", received}
)

// A rule is the same of both directions.
type rule struct {
	peers []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort
}

// A text is an nft script in the making.
type text struct {
	rules    bytes.Buffer
	counters map[string]bool
	isolated map[string][]string // addresses of pods, by direction
}

func newPolicies(factory informers.SharedInformerFactory) *policies {
	p := &policies{
		pods:       factory.Core().V1().Pods().Lister(),
		namespaces: factory.Core().V1().Namespaces().Lister(),
		policies:   factory.Networking().V1().NetworkPolicies().Lister(),
		due:        make(chan struct{}, 1),
	}
	look := func() {
		select {
		case p.due <- struct{}{}:
		default:
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { look() },
		UpdateFunc: func(any, any) { look() },
		DeleteFunc: func(any) { look() },
	}
	for _, informer := range []cache.SharedIndexInformer{
		factory.Core().V1().Pods().Informer(),
		factory.Core().V1().Namespaces().Informer(),
		factory.Networking().V1().NetworkPolicies().Informer(),
	} {
		_, _ = informer.AddEventHandler(handler)
	}
	return p
}

func (p *policies) run() error {
	for range p.due {
		time.Sleep(settle)
		script, counters, err := p.script()
		if err != nil {
			return err
		}
		if script == p.written {
			continue
		}
		nft := exec.Command("nft", "-f", "-")
		nft.Stdin = strings.NewReader(script)
		if out, err := nft.CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w: %s\n%s", err, out, script)
		}
		p.written, p.counters = script, counters
	}
	return nil
}

// script leaves the counters of rules that stay as they are, and puts all rules in place of those that were.
func (p *policies) script() (string, map[string]bool, error) {
	all, err := p.policies.List(labels.Everything())
	if err != nil {
		return "", nil, err
	}
	slices.SortFunc(all, func(a, b *networkingv1.NetworkPolicy) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	t := &text{counters: map[string]bool{}, isolated: map[string][]string{}}
	for _, policy := range all {
		if err := p.add(t, policy); err != nil {
			// It admits nothing then, which a test sees.
			fmt.Printf("NetworkPolicy %s/%s: %v\n", policy.Namespace, policy.Name, err)
		}
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "add table ip %s\n", policyTable)
	fmt.Fprintf(&out, "add set ip %s refused { type ipv4_addr . ipv4_addr . inet_proto . inet_service; flags dynamic; size 4096; }\n", policyTable)
	for _, counter := range slices.Sorted(maps.Keys(t.counters)) {
		fmt.Fprintf(&out, "add counter ip %s %s\n", policyTable, counter)
	}
	for _, hook := range []string{"forward", "input"} {
		fmt.Fprintf(&out, "add chain ip %s %s { type filter hook %s priority 10; }\n", policyTable, hook, hook)
		fmt.Fprintf(&out, "add chain ip %s policed\n", policyTable)
		fmt.Fprintf(&out, "flush chain ip %s %s\n", policyTable, hook)
		// A connection is admitted as a whole, when it begins.
		fmt.Fprintf(&out, "add rule ip %s %s ct state new jump policed\n", policyTable, hook)
	}
	fmt.Fprintf(&out, "flush chain ip %s policed\n", policyTable)
	out.Write(t.rules.Bytes())
	for _, d := range []direction{egress, ingress} {
		addresses := t.isolated[d.name]
		if len(addresses) == 0 {
			continue
		}
		slices.Sort(addresses)
		of := fmt.Sprintf("ip %s { %s } meta mark & %s == 0", d.ours, strings.Join(slices.Compact(addresses), ", "), d.mark)
		for _, protocol := range []string{"tcp", "udp"} {
			fmt.Fprintf(&out, "add rule ip %s policed %s meta l4proto %s add @refused { ip saddr . ip daddr . meta l4proto . th dport }\n", policyTable, of, protocol)
		}
		fmt.Fprintf(&out, "add rule ip %s policed %s drop\n", policyTable, of)
	}
	for counter := range p.counters {
		if !t.counters[counter] {
			fmt.Fprintf(&out, "delete counter ip %s %s\n", policyTable, counter)
		}
	}
	return out.String(), t.counters, nil
}

func (p *policies) add(t *text, policy *networkingv1.NetworkPolicy) error {
	members, err := p.addresses(policy.Namespace, nil, &policy.Spec.PodSelector)
	if err != nil {
		return err
	}
	for _, kind := range policy.Spec.PolicyTypes {
		d, rules := ingress, []rule{}
		switch kind {
		case networkingv1.PolicyTypeIngress:
			for _, r := range policy.Spec.Ingress {
				rules = append(rules, rule{r.From, r.Ports})
			}
		case networkingv1.PolicyTypeEgress:
			d = egress
			for _, r := range policy.Spec.Egress {
				rules = append(rules, rule{r.To, r.Ports})
			}
		}
		t.isolated[d.name] = append(t.isolated[d.name], members...)
		for i, r := range rules {
			if err := p.admit(t, policy, d, i, members, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// admit marks what a rule admits, peer by peer and port by port.
func (p *policies) admit(t *text, policy *networkingv1.NetworkPolicy, d direction, number int, members []string, r rule) error {
	peers := []string{""} // anybody
	if len(r.peers) > 0 {
		peers = nil
	}
	for _, peer := range r.peers {
		match, err := p.peer(policy.Namespace, d, peer)
		if err != nil {
			return err
		}
		peers = append(peers, match)
	}
	ports := []string{"meta l4proto { tcp, udp, sctp }"}
	if len(r.ports) > 0 {
		ports = nil
	}
	for _, port := range r.ports {
		match, err := matchPort(port)
		if err != nil {
			return err
		}
		ports = append(ports, match)
	}
	for j, peer := range peers {
		for k, port := range ports {
			counter := fmt.Sprintf("%s/%s/%s/%d/%d/%d", policy.Namespace, policy.Name, d.name, number, j, k)
			t.counters[counter] = true
			if len(members) == 0 || peer == nobody {
				continue
			}
			fmt.Fprintf(&t.rules, "add rule ip %s policed ip %s { %s } %s %s counter name %s meta mark set meta mark | %s\n",
				policyTable, d.ours, strings.Join(members, ", "), peer, port, counter, d.mark)
		}
	}
	return nil
}

const nobody = "nobody" // nft has no empty list

func (p *policies) peer(namespace string, d direction, peer networkingv1.NetworkPolicyPeer) (string, error) {
	if block := peer.IPBlock; block != nil {
		if strings.Contains(block.CIDR, ":") {
			return nobody, nil // there is no IPv6
		}
		match := fmt.Sprintf("ip %s %s", d.theirs, block.CIDR)
		if len(block.Except) > 0 {
			match += fmt.Sprintf(" ip %s != { %s }", d.theirs, strings.Join(block.Except, ", "))
		}
		return match, nil
	}
	selector := peer.PodSelector
	if selector == nil {
		selector = &metav1.LabelSelector{}
	}
	addresses, err := p.addresses(namespace, peer.NamespaceSelector, selector)
	if err != nil || len(addresses) == 0 {
		return nobody, err
	}
	return fmt.Sprintf("ip %s { %s }", d.theirs, strings.Join(addresses, ", ")), nil
}

// addresses are those of the pods that are selected: in the namespace, unless namespaces are selected as well.
func (p *policies) addresses(namespace string, namespaces, pods *metav1.LabelSelector) ([]string, error) {
	inside, err := metav1.LabelSelectorAsSelector(pods)
	if err != nil {
		return nil, err
	}
	places := []string{namespace}
	if namespaces != nil {
		outside, err := metav1.LabelSelectorAsSelector(namespaces)
		if err != nil {
			return nil, err
		}
		found, err := p.namespaces.List(outside)
		if err != nil {
			return nil, err
		}
		places = nil
		for _, one := range found {
			places = append(places, one.Name)
		}
	}
	var addresses []string
	for _, place := range places {
		found, err := p.pods.Pods(place).List(inside)
		if err != nil {
			return nil, err
		}
		for _, pod := range found {
			over := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
			if pod.Status.PodIP != "" && !pod.Spec.HostNetwork && !over {
				addresses = append(addresses, pod.Status.PodIP)
			}
		}
	}
	slices.Sort(addresses)
	return addresses, nil
}

func matchPort(port networkingv1.NetworkPolicyPort) (string, error) {
	protocol := "tcp"
	if port.Protocol != nil {
		protocol = strings.ToLower(string(*port.Protocol))
	}
	switch {
	case port.Port == nil:
		return "meta l4proto " + protocol, nil
	case port.Port.IntValue() == 0:
		return "", fmt.Errorf("the port %s has a name, and a lab knows numbers alone", port.Port)
	case port.EndPort != nil:
		return fmt.Sprintf("%s dport %d-%d", protocol, port.Port.IntValue(), *port.EndPort), nil
	}
	return fmt.Sprintf("%s dport %d", protocol, port.Port.IntValue()), nil
}
