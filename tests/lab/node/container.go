package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Restarts back off from one second; the kubelet's ten would only make tests
// of a crashing container slower.
const (
	firstBackoff = time.Second
	lastBackoff  = time.Minute
	steadyRun    = 2 * time.Minute // after which the next backoff is the first again
)

// A container is supervised by one goroutine. Its status belongs to the pod's
// and is guarded by the worker's mutex.
type container struct {
	pod     *worker
	spec    *corev1.Container
	init    bool
	status  corev1.ContainerStatus
	started chan struct{} // closed by the first start that passed the startup probe
	process *process      // the running one, guarded as status is
}

func newContainer(w *worker, spec *corev1.Container, init bool) *container {
	reason := "ContainerCreating"
	if len(w.pod.Spec.InitContainers) > 0 {
		reason = "PodInitializing"
	}
	return &container{
		pod: w, spec: spec, init: init, started: make(chan struct{}),
		status: corev1.ContainerStatus{
			Name: spec.Name, Image: spec.Image, Started: new(bool),
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}},
		},
	}
}

// A sidecar is an init container that runs beside the others.
func (c *container) sidecar() bool {
	return c.init && c.spec.RestartPolicy != nil && *c.spec.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func (c *container) awaitStarted(ctx context.Context) bool {
	select {
	case <-c.started:
		return true
	case <-ctx.Done():
		return false
	}
}

// exitCode is the last one; the caller holds the worker's mutex.
func (c *container) exitCode() int32 {
	if c.status.State.Terminated == nil {
		return startError
	}
	return c.status.State.Terminated.ExitCode
}

// supervise runs the container until it ended for good or ctx is done, and
// returns its last exit code.
func (c *container) supervise(ctx context.Context) int32 {
	backoff := firstBackoff
	for {
		l, err := c.launch()
		if err != nil {
			c.wait(err)
			if !sleep(ctx, 2*time.Second) {
				return startError
			}
			continue
		}
		began := time.Now()
		code := c.runOnce(ctx, l)
		if ctx.Err() != nil || !c.restarts(code) {
			return code
		}
		if time.Since(began) > steadyRun {
			backoff = firstBackoff
		}
		c.backOff(backoff)
		if !sleep(ctx, backoff) {
			return code
		}
		backoff = min(2*backoff, lastBackoff)
		c.pod.change(func() { c.status.RestartCount++ })
	}
}

func (c *container) restarts(code int32) bool {
	if c.sidecar() {
		return true
	}
	switch c.pod.pod.Spec.RestartPolicy {
	case corev1.RestartPolicyAlways:
		return !c.init || code != 0
	case corev1.RestartPolicyOnFailure:
		return code != 0
	}
	return false
}

// A waitReason is an error with the name the kubelet gives it.
type waitReason struct {
	reason string
	error
}

func (c *container) wait(err error) {
	reason := "CreateContainerConfigError"
	if known := (waitReason{}); errors.As(err, &known) {
		reason = known.reason
	}
	c.pod.change(func() {
		if w := c.status.State.Waiting; w != nil && w.Message == err.Error() {
			return
		}
		c.status.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: err.Error()}}
		c.pod.agent.events.Event(c.pod.pod, corev1.EventTypeWarning, "Failed", err.Error())
	})
}

func (c *container) backOff(d time.Duration) {
	message := fmt.Sprintf("back-off %s restarting failed container=%s", d, c.spec.Name)
	c.pod.change(func() {
		c.status.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: message}}
	})
	c.pod.warn("BackOff", message)
}

// runOnce runs one process of the container to its end, which the pod's end or
// a liveness probe can bring about.
func (c *container) runOnce(ctx context.Context, l *launch) int32 {
	process, err := start(l, c.logPath(c.status.RestartCount), c.spec.Stdin)
	if err != nil {
		c.pod.warn("Failed", err.Error())
		return startError
	}
	began := metav1.Now()
	id := fmt.Sprintf("lab://%s-%s-%d", c.pod.pod.UID, c.spec.Name, c.status.RestartCount)
	c.pod.change(func() {
		c.process = process
		c.status.ContainerID, c.status.ImageID = id, "lab://"+c.spec.Image
		c.status.State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: began}}
	})
	probes, stopProbes := context.WithCancel(context.Background())
	unhealthy := c.probe(probes)
	select {
	case <-process.ended:
	case <-ctx.Done():
		c.terminate(process)
	case message := <-unhealthy:
		c.pod.warn("Unhealthy", message)
		c.terminate(process)
	}
	stopProbes()
	code := process.exitCode()
	reason := "Completed"
	if code == startError {
		reason = "StartError"
	} else if code != 0 {
		reason = "Error"
	}
	c.pod.change(func() {
		c.process = nil
		c.status.Ready, c.status.Started = false, new(bool)
		c.status.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			ExitCode: code, Reason: reason, StartedAt: began, FinishedAt: metav1.Now(), ContainerID: id,
		}}
		c.status.LastTerminationState = c.status.State
		if c.init && code == 0 {
			c.status.Ready = true
		}
	})
	return code
}

// terminate asks, waits and kills. The grace period includes the preStop hook.
func (c *container) terminate(p *process) {
	grace := c.pod.grace()
	deadline, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if hooks := c.spec.Lifecycle; hooks != nil && hooks.PreStop != nil && grace > 0 {
		if err := c.runHook(deadline, hooks.PreStop); err != nil {
			c.pod.warn("FailedPreStopHook", err.Error())
		}
	}
	p.signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-deadline.Done():
		p.signal(syscall.SIGKILL)
		<-p.ended
	}
}

func (c *container) logPath(attempt int32) string {
	return filepath.Join(c.pod.agent.dir, "logs", "pods",
		fmt.Sprintf("%s_%s_%s", c.pod.pod.Namespace, c.pod.pod.Name, c.pod.pod.UID), c.spec.Name, fmt.Sprintf("%d.log", attempt))
}

// launch resolves the container's manifest. It is done anew for each start,
// because what it refers to may have appeared or changed.
func (c *container) launch() (*launch, error) {
	w := c.pod
	image, known := w.agent.images.find(c.spec.Image)
	if !known {
		return nil, waitReason{"ErrImagePull", fmt.Errorf("image %q is not in the image table", c.spec.Image)}
	}
	env, err := c.environment(image)
	if err != nil {
		return nil, err
	}
	l := &launch{
		Hostname: w.hostname(),
		Root:     filepath.Join(w.dir, "roots", c.spec.Name),
		Args:     c.arguments(image, env),
		Env:      env.list(),
		Dir:      "/",
	}
	if len(l.Args) == 0 {
		return nil, errors.New("no command specified")
	}
	if w.netns != "" {
		l.Netns = netnsPath(w.netns)
	}
	for _, dir := range []string{image.WorkingDir, c.spec.WorkingDir} {
		if dir != "" {
			l.Dir = dir
		}
	}
	if err := l.secure(w.pod, c.spec, image); err != nil {
		return nil, err
	}
	if l.Mounts, err = c.mounts(image, env); err != nil {
		return nil, err
	}
	return l, os.MkdirAll(l.Root, 0o755)
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
