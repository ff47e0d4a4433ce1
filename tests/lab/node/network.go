package node

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The node routes: a pod is one end of a veth pair and has a host route on the
// node. There is no bridge, so every packet between pods passes the node's IP
// layer, where kube-proxy's rules rewrite service addresses in both directions.

const nodeLink = "lab0" // holds the node's address and routes service addresses into the rules

// SetupNetwork prepares the namespace the caller is in to be a node.
func SetupNetwork(nodeIP, network string) error {
	prefix, err := netip.ParsePrefix(network)
	if err != nil {
		return err
	}
	for name, value := range map[string]string{"ip_forward": "1", "conf/all/rp_filter": "0", "conf/default/rp_filter": "0"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0); err != nil {
			return err
		}
	}
	return ip("", "link set lo up",
		"link add "+nodeLink+" type bridge", // without ports, in place of a dummy device, which some kernels lack
		fmt.Sprintf("addr add %s/%d dev %s", nodeIP, prefix.Bits(), nodeLink),
		"link set "+nodeLink+" up")
}

// addPodNetwork creates the named network namespace of a pod with its address.
func addPodNetwork(name, nodeIP string, podIP netip.Addr) error {
	if err := command("ip", "netns", "add", name); err != nil {
		return err
	}
	link := vethName(name)
	if err := ip("", fmt.Sprintf("link add %s type veth peer name eth0 netns %s", link, name),
		"link set "+link+" up",
		fmt.Sprintf("route add %s/32 dev %s", podIP, link)); err != nil {
		return err
	}
	return ip(name, "link set lo up",
		fmt.Sprintf("addr add %s/32 dev eth0", podIP),
		"link set eth0 up",
		fmt.Sprintf("route add %s dev eth0", nodeIP),
		"route add default via "+nodeIP)
}

func netnsPath(name string) string { return "/run/netns/" + name }

// removePodNetwork is quiet about what is already gone. The link is removed
// first because a namespace lives on while any process or socket holds it.
func removePodNetwork(name string) {
	_ = ip("", "link del "+vethName(name))
	_ = command("ip", "netns", "del", name)
}

// setSysctl sets one of the network's, which are all that a network namespace has of its own.
func setSysctl(netns, name, value string) error {
	if !strings.HasPrefix(name, "net.") {
		return fmt.Errorf("sysctl %s is not of the pod's network", name)
	}
	path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
	return command("ip", "netns", "exec", netns, "sh", "-c", `printf %s "$1" > "$2"`, "sh", value, path)
}

// vethName fits the kernel's 15 characters; name ends in a pod's UID part.
func vethName(name string) string { return "lab" + name[len(name)-12:] }

// ip runs the lines as one batch, in the named namespace if there is one.
func ip(namespace string, lines ...string) error {
	args := []string{"-batch", "-"}
	if namespace != "" {
		args = append([]string{"-n", namespace}, args...)
	}
	cmd := exec.Command("ip", args...)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %v: %w: %s", lines, err, out)
	}
	return nil
}

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w: %s", name, args, err, out)
	}
	return nil
}

// A pool hands out a range's addresses in order and starts over at its end, so
// that an address is not soon another pod's.
type pool struct {
	mu     sync.Mutex
	prefix netip.Prefix
	next   netip.Addr
	used   map[netip.Addr]bool
}

func newPool(prefix netip.Prefix) *pool {
	return &pool{prefix: prefix, next: firstOf(prefix), used: map[netip.Addr]bool{}}
}

// firstOf skips the first 256 addresses, which hold the node's.
func firstOf(prefix netip.Prefix) netip.Addr {
	bytes := prefix.Masked().Addr().As4()
	bytes[2]++
	return netip.AddrFrom4(bytes)
}

func (p *pool) take() netip.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.used[p.next] {
		p.advance()
	}
	taken := p.next
	p.used[taken] = true
	p.advance()
	return taken
}

func (p *pool) advance() {
	if p.next = p.next.Next(); !p.prefix.Contains(p.next) {
		p.next = firstOf(p.prefix)
	}
}

func (p *pool) give(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.used, a)
}

// DialIn connects to an address of another network namespace. A socket belongs
// to the namespace its thread was in; that thread is not unlocked, so the
// runtime discards it.
func DialIn(namespace *os.File, address string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			results <- result{nil, err}
			return
		}
		conn, err := net.DialTimeout("tcp", address, 5*time.Second)
		results <- result{conn, err}
	}()
	r := <-results
	return r.conn, r.err
}
