package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"lab/node"
)

// A lab is one tree of processes in PID, mount and network namespaces of its
// own. When its first process dies, the kernel kills the others and removes
// mounts, links, rules and addresses, so nothing else has to clean up. Several
// labs can run at once, with the same addresses.

// up starts the lab, passes a loopback port of this machine on to it and waits.
func up(args []string) error {
	runtime.LockOSThread() // Pdeathsig below is about the thread that forks
	flags, opts := labFlags("up")
	flags.Parse(args)
	if err := opts.complete(); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", opts.port))
	if err != nil {
		return err
	}
	if running(opts.dir) {
		return fmt.Errorf("a lab already runs in %s", opts.dir)
	}
	for _, old := range []string{"etcd", "logs", "pods", "kubeconfig"} {
		if err := os.RemoveAll(filepath.Join(opts.dir, old)); err != nil {
			return err
		}
	}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()

	lab := node.Self(append([]string{"inside"}, args...)...)
	lab.Stdout, lab.Stderr = os.Stdout, os.Stderr
	lab.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Setpgid:    true, // an interrupt from the terminal comes to us alone
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := lab.Start(); err != nil {
		return err
	}
	pid := strconv.Itoa(lab.Process.Pid)
	if err := os.WriteFile(filepath.Join(opts.dir, "pid"), []byte(pid), 0o644); err != nil {
		return err
	}
	defer os.Remove(filepath.Join(opts.dir, "pid"))
	namespace, err := os.Open("/proc/" + pid + "/ns/net")
	if err != nil {
		return err
	}
	go relay(listener, func() (net.Conn, error) { return node.DialIn(namespace, listener.Addr().String()) })

	ended := make(chan error, 1)
	go func() { ended <- lab.Wait() }()
	select {
	case err := <-ended:
		return errors.Join(errors.New("the lab ended by itself"), err)
	case <-stop.Done():
		lab.Process.Kill() // nothing in a lab has to end in order
		<-ended
		return nil
	}
}

// running tells whether the lab that wrote its process ID here is still alive.
func running(dir string) bool {
	text, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		return false
	}
	pid, err := strconv.Atoi(string(text))
	return err == nil && syscall.Kill(pid, 0) == nil
}

// inside is the lab's first process.
func inside(args []string) error {
	flags, opts := labFlags("inside")
	flags.Parse(args)
	if err := opts.complete(); err != nil {
		return err
	}
	began := time.Now()
	if err := isolate(opts.dir); err != nil {
		return err
	}
	if err := node.SetupNetwork(nodeIP, network); err != nil {
		return err
	}
	server := fmt.Sprintf("https://127.0.0.1:%d", opts.port)
	pki, err := newAuthority(filepath.Join(opts.dir, "pki"), server)
	if err != nil {
		return err
	}
	if err := identities(pki); err != nil {
		return err
	}
	ended := make(chan error)
	start := func(components ...component) error {
		for _, c := range components {
			if err := c.start(opts.dir, ended); err != nil {
				return err
			}
		}
		return nil
	}
	audit := filepath.Join(opts.dir, "audit.yaml")
	policy, err := auditPolicy(opts.audit)
	if err != nil {
		return err
	}
	if err := os.WriteFile(audit, []byte(policy), 0o600); err != nil {
		return err
	}
	if err := start(append(storage(opts.dir), apiServer(pki, audit, opts.port))...); err != nil {
		return err
	}
	ready := make(chan error, 1)
	go func() {
		ready <- awaitAPI(pki.path("admin.kubeconfig"))
	}()
	select {
	case err = <-ended:
	case err = <-ready:
	}
	if err != nil {
		return err
	}
	if err := start(clients(pki, opts.dir, opts.images)...); err != nil {
		return err
	}
	go func() {
		if err := publish(pki, opts.dir); err != nil {
			ended <- err
			return
		}
		fmt.Printf("ready after %.1fs; export KUBECONFIG=%s\n", time.Since(began).Seconds(), filepath.Join(opts.dir, "kubeconfig"))
	}()
	return <-ended
}

// enter runs a command among the lab's processes, where pods, services and
// cluster DNS can be reached.
func enter(args []string) error {
	flags, opts := labFlags("exec")
	flags.Parse(args)
	if err := opts.complete(); err != nil {
		return err
	}
	pid, err := os.ReadFile(filepath.Join(opts.dir, "pid"))
	if err != nil {
		return fmt.Errorf("no lab runs in %s: %w", opts.dir, err)
	}
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return err
	}
	wd, err := os.Getwd()
	if err != nil {
		return err
	}
	environment := append(os.Environ(), "KUBECONFIG="+filepath.Join(opts.dir, "kubeconfig"))
	command := append([]string{"nsenter", "-t", strings.TrimSpace(string(pid)), "-m", "-n", "-p", "--wd=" + wd, "--"}, flags.Args()...)
	return syscall.Exec(nsenter, command, environment)
}

type options struct {
	dir    string
	images string
	audit  string
	port   int
}

func labFlags(name string) (*flag.FlagSet, *options) {
	o := &options{}
	flags := flag.NewFlagSet(name, flag.ExitOnError)
	flags.StringVar(&o.dir, "dir", "", "the lab's state, logs and kubeconfig")
	flags.StringVar(&o.images, "images", "", "what images stand for, see node/images.go")
	flags.StringVar(&o.audit, "audit", "", "the audit policy for users, see layout.go")
	flags.IntVar(&o.port, "port", 16443, "the API server's port, in the lab and on this machine's loopback")
	return flags, o
}

func (o *options) complete() (err error) {
	if o.dir == "" {
		return errors.New("--dir is required")
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	for _, path := range []*string{&o.images, &o.audit} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	return os.MkdirAll(o.dir, 0o755)
}

// isolate makes the new namespaces usable: a /proc of the lab's processes, a
// private place for named network namespaces, and the cluster's resolver.
func isolate(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/run/netns", "tmpfs", 0, ""); err != nil {
		return err
	}
	resolver := filepath.Join(dir, "resolv.conf")
	text := "nameserver " + nodeIP + "\nsearch svc.cluster.local cluster.local\n"
	if err := os.WriteFile(resolver, []byte(text), 0o644); err != nil {
		return err
	}
	if err := unix.Mount(resolver, "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return unix.Sethostname([]byte(nodeName))
}

// start runs the component with its output in logs/NAME.log. No component may
// end before the lab does, but the API server is started anew when somebody has
// killed it.
func (c component) start(dir string, ended chan<- error) error {
	if err := os.MkdirAll(filepath.Join(dir, "logs"), 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(dir, "logs", c.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	process := node.Self(append([]string{c.name}, c.args...)...)
	process.Stdout, process.Stderr = log, log
	if err := process.Start(); err != nil {
		return err
	}
	go func() {
		err := process.Wait()
		status, ok := process.ProcessState.Sys().(syscall.WaitStatus)
		if c.name == apiServerName && ok && status.Signal() == syscall.SIGKILL {
			if err = c.start(dir, ended); err == nil {
				return
			}
		}
		ended <- fmt.Errorf("%s ended (%v), see %s", c.name, err, log.Name())
	}()
	return nil
}

func awaitAPI(kubeconfig string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		_, err = client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(context.Background())
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// publish writes the administrator's kubeconfig once pods can run: the node is
// ready and the default service account exists.
func publish(pki *authority, dir string) error {
	config, err := clientcmd.BuildConfigFromFlags("", pki.path("admin.kubeconfig"))
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	if err := node.AwaitReady(client, nodeName, 5*time.Minute); err != nil {
		return err
	}
	data, err := os.ReadFile(pki.path("admin.kubeconfig"))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "kubeconfig"), data, 0o600)
}

func relay(listener net.Listener, dial func() (net.Conn, error)) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer client.Close()
			server, err := dial()
			if err != nil {
				return
			}
			defer server.Close()
			go func() { io.Copy(server, client); server.Close() }()
			io.Copy(client, server)
		}()
	}
}

func ips(texts ...string) (out []net.IP) {
	for _, t := range texts {
		out = append(out, net.ParseIP(t))
	}
	return out
}
