package node

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// probe starts the container's probes and returns where a failed startup or
// liveness probe is reported. Without a probe a container is started, and
// ready, at once.
func (c *container) probe(ctx context.Context) <-chan string {
	unhealthy := make(chan string, 3)
	go func() {
		if c.spec.StartupProbe != nil && !c.passStartup(ctx, unhealthy) {
			return
		}
		yes := true
		c.pod.change(func() {
			c.status.Started = &yes
			c.status.Ready = c.spec.ReadinessProbe == nil
		})
		select {
		case <-c.started:
		default:
			close(c.started)
		}
		if probe := c.spec.LivenessProbe; probe != nil {
			go c.repeat(ctx, probe, false, func(healthy bool, problem error) {
				if !healthy {
					unhealthy <- fmt.Sprintf("Liveness probe failed: %v", problem)
				}
			})
		}
		if probe := c.spec.ReadinessProbe; probe != nil {
			go c.repeat(ctx, probe, true, func(ready bool, _ error) {
				c.pod.change(func() { c.status.Ready = ready })
			})
		}
	}()
	return unhealthy
}

func (c *container) passStartup(ctx context.Context, unhealthy chan<- string) bool {
	started, cancel := context.WithCancel(ctx)
	defer cancel()
	passed := make(chan bool, 1)
	go c.repeat(started, c.spec.StartupProbe, false, func(ok bool, problem error) {
		if !ok {
			unhealthy <- fmt.Sprintf("Startup probe failed: %v", problem)
		}
		select {
		case passed <- ok:
		default:
		}
	})
	select {
	case ok := <-passed:
		return ok
	case <-ctx.Done():
		return false
	}
}

// repeat probes until ctx is done and reports the verdict, first and whenever it
// changes, once its threshold is reached. An eager probe asks every second until
// it succeeds, because a test is waiting for that.
func (c *container) repeat(ctx context.Context, probe *corev1.Probe, eager bool, report func(bool, error)) {
	if !sleep(ctx, time.Duration(probe.InitialDelaySeconds)*time.Second) {
		return
	}
	period := time.Duration(max(probe.PeriodSeconds, 1)) * time.Second
	successes, failures := int32(0), int32(0)
	var verdict *bool
	for {
		err := c.check(ctx, probe)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			successes, failures = successes+1, 0
		} else {
			successes, failures = 0, failures+1
		}
		healthy := successes >= max(probe.SuccessThreshold, 1)
		decided := healthy || failures >= max(probe.FailureThreshold, 1)
		if decided && (verdict == nil || *verdict != healthy) {
			verdict = &healthy
			report(healthy, err)
		}
		wait := period
		if eager && (verdict == nil || !*verdict) {
			wait = min(wait, time.Second)
		}
		if !sleep(ctx, wait) {
			return
		}
	}
}

func (c *container) check(ctx context.Context, probe *corev1.Probe) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(max(probe.TimeoutSeconds, 1))*time.Second)
	defer cancel()
	switch {
	case probe.HTTPGet != nil:
		return c.httpGet(ctx, probe.HTTPGet)
	case probe.TCPSocket != nil:
		return c.dial(ctx, probe.TCPSocket)
	case probe.GRPC != nil:
		return c.grpcHealth(ctx, probe.GRPC)
	case probe.Exec != nil:
		return c.run(ctx, probe.Exec.Command)
	}
	return nil
}

// runHook runs a lifecycle hook.
func (c *container) runHook(ctx context.Context, hook *corev1.LifecycleHandler) error {
	switch {
	case hook.Exec != nil:
		return c.run(ctx, hook.Exec.Command)
	case hook.HTTPGet != nil:
		return c.httpGet(ctx, hook.HTTPGet)
	case hook.Sleep != nil:
		sleep(ctx, time.Duration(hook.Sleep.Seconds)*time.Second)
	}
	return nil
}

var probeClient = &http.Client{
	Transport: &http.Transport{
		DisableKeepAlives: true, // each probe is about a new connection
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
	},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (c *container) httpGet(ctx context.Context, get *corev1.HTTPGetAction) error {
	address, err := c.address(get.Host, get.Port)
	if err != nil {
		return err
	}
	scheme := strings.ToLower(string(get.Scheme))
	if scheme == "" {
		scheme = "http"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+address+"/"+strings.TrimPrefix(get.Path, "/"), nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "kube-probe/lab")
	for _, header := range get.HTTPHeaders {
		request.Header.Add(header.Name, header.Value)
		if strings.EqualFold(header.Name, "host") {
			request.Host = header.Value
		}
	}
	response, err := probeClient.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode >= 400 {
		return fmt.Errorf("HTTP probe failed with statuscode: %d", response.StatusCode)
	}
	return nil
}

func (c *container) dial(ctx context.Context, socket *corev1.TCPSocketAction) error {
	address, err := c.address(socket.Host, socket.Port)
	if err != nil {
		return err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

func (c *container) grpcHealth(ctx context.Context, action *corev1.GRPCAction) error {
	conn, err := grpc.NewClient(net.JoinHostPort(c.pod.ip.String(), strconv.Itoa(int(action.Port))),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	response, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: *first(action.Service, new(string))})
	if err != nil {
		return err
	}
	if response.Status != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("gRPC probe: %s", response.Status)
	}
	return nil
}

// run runs a command in the container and fails as it does.
func (c *container) run(ctx context.Context, args []string) error {
	cmd, err := c.command(ctx, args)
	if err != nil {
		return err
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// command prepares a command in the running container's namespaces and with its
// identity.
func (c *container) command(ctx context.Context, args []string) (*exec.Cmd, error) {
	c.pod.mu.Lock()
	p := c.process
	c.pod.mu.Unlock()
	if p == nil {
		return nil, errNotRunning
	}
	groups := "--clear-groups"
	if len(p.launch.Groups) > 0 {
		groups = "--groups=" + strings.Trim(strings.ReplaceAll(fmt.Sprint(p.launch.Groups), " ", ","), "[]")
	}
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{
		"-t", strconv.Itoa(p.cmd.Process.Pid), "-m", "-n", "-p", "-i", "-u", "-r", "-w", "--",
		"setpriv", fmt.Sprintf("--reuid=%d", p.launch.UID), fmt.Sprintf("--regid=%d", p.launch.GID), groups, "--"}, args...)...)
	cmd.Env = p.launch.Env
	return cmd, nil
}

func (c *container) address(host string, port intstr.IntOrString) (string, error) {
	if host == "" {
		host = c.pod.ip.String()
	}
	number := port.IntValue()
	if port.Type == intstr.String {
		for _, p := range c.spec.Ports {
			if p.Name == port.StrVal {
				number = int(p.ContainerPort)
			}
		}
	}
	if number == 0 {
		return "", fmt.Errorf("no port %q", port.String())
	}
	return net.JoinHostPort(host, strconv.Itoa(number)), nil
}
