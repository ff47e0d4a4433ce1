package node

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// volumePeriod is how soon a changed Secret or ConfigMap reaches its pods. The
// kubelet takes up to a minute or two; tests should not.
const volumePeriod = 3 * time.Second

// A worker runs one pod from its binding to the node to its deletion.
type worker struct {
	agent      *agent
	pod        *corev1.Pod // as first seen: its spec and identity do not change
	dir        string
	ip         netip.Addr
	netns      string // name, empty for the node's network
	init, main []*container
	tokens     tokenCache

	deleted context.Context // done when the pod is to end
	end     context.CancelFunc
	dirty   chan struct{} // the status is to be published

	mu         sync.Mutex
	latest     *corev1.Pod
	abandoned  bool // the object is gone: no grace
	networked  bool
	phase      corev1.PodPhase
	conditions map[corev1.PodConditionType]condition
}

func newWorker(a *agent, pod *corev1.Pod) *worker {
	w := &worker{
		agent: a, pod: pod, latest: pod, phase: corev1.PodPending,
		dir:        filepath.Join(a.dir, "pods", string(pod.UID)),
		dirty:      make(chan struct{}, 1),
		conditions: map[corev1.PodConditionType]condition{},
		tokens:     tokenCache{},
	}
	w.deleted, w.end = context.WithCancel(context.Background())
	for i := range pod.Spec.InitContainers {
		w.init = append(w.init, newContainer(w, &pod.Spec.InitContainers[i], true))
	}
	for i := range pod.Spec.Containers {
		w.main = append(w.main, newContainer(w, &pod.Spec.Containers[i], false))
	}
	return w
}

func (w *worker) update(pod *corev1.Pod) {
	w.mu.Lock()
	w.latest = pod
	w.mu.Unlock()
	if len(pod.Spec.ReadinessGates) > 0 { // someone else's condition may make it ready
		w.change(func() {})
	}
	if pod.DeletionTimestamp != nil {
		w.end()
	}
}

// abandon ends a pod whose object was deleted without waiting for us.
func (w *worker) abandon() {
	w.mu.Lock()
	w.abandoned = true
	w.mu.Unlock()
	w.end()
}

func (w *worker) grace() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	seconds := *first(w.latest.DeletionGracePeriodSeconds, w.pod.Spec.TerminationGracePeriodSeconds, new(int64))
	if w.abandoned {
		seconds = 0
	}
	return time.Duration(seconds) * time.Second
}

func (w *worker) current() *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.latest
}

// change alters what the status is made of.
func (w *worker) change(alter func()) {
	w.mu.Lock()
	alter()
	w.mu.Unlock()
	select {
	case w.dirty <- struct{}{}:
	default:
	}
}

func (w *worker) run() {
	ended := make(chan struct{})
	var publishing sync.WaitGroup
	publishing.Go(func() { w.publishChanges(ended) })
	if w.prepare() {
		w.runContainers()
	}
	<-w.deleted.Done()
	close(ended)
	publishing.Wait()
	w.cleanUp()
}

// prepare gives the pod its network and its volumes. A missing Secret or
// ConfigMap holds the pod back until it appears.
func (w *worker) prepare() bool {
	w.change(func() {})
	for problem := ""; ; {
		err := w.setupNetwork()
		if err == nil {
			err = w.writeFiles()
		}
		if err == nil {
			err = w.syncVolumes()
		}
		if err == nil {
			return w.deleted.Err() == nil
		}
		if problem != err.Error() {
			problem = err.Error()
			w.warn("FailedMount", problem)
		}
		if !w.sleep(time.Second) {
			return false
		}
	}
}

func (w *worker) setupNetwork() error {
	if w.networked {
		return nil
	}
	ip := netip.MustParseAddr(w.agent.ip)
	if !w.pod.Spec.HostNetwork {
		ip = w.agent.pool.take()
		w.netns = "lab-" + w.pod.Namespace + "-" + string(w.pod.UID)[24:]
		if err := addPodNetwork(w.netns, w.agent.ip, ip); err != nil {
			removePodNetwork(w.netns) // what there is of it, for the next attempt
			w.agent.pool.give(ip)
			return err
		}
		if context := w.pod.Spec.SecurityContext; context != nil {
			for _, sysctl := range context.Sysctls {
				if err := setSysctl(w.netns, sysctl.Name, sysctl.Value); err != nil {
					w.warn("SysctlForbidden", err.Error())
				}
			}
		}
	}
	w.change(func() { w.ip, w.networked = ip, true })
	return nil
}

// runContainers returns when no container runs and none is to be restarted.
func (w *worker) runContainers() {
	go w.refreshVolumes()
	sidecars, stopSidecars := context.WithCancel(w.deleted)
	var running, helping sync.WaitGroup
	defer helping.Wait()
	defer stopSidecars()
	for _, c := range w.init {
		if c.sidecar() {
			helping.Go(func() { c.supervise(sidecars) })
			if !c.awaitStarted(w.deleted) {
				return
			}
		} else if code := c.supervise(w.deleted); code != 0 || w.deleted.Err() != nil {
			w.change(func() { w.phase = corev1.PodFailed })
			return
		}
	}
	w.change(func() { w.phase = corev1.PodRunning })
	for _, c := range w.main {
		running.Go(func() { c.supervise(w.deleted) })
	}
	running.Wait()
	stopSidecars()
	helping.Wait()
	w.change(func() {
		w.phase = corev1.PodSucceeded
		for _, c := range w.main {
			if c.exitCode() != 0 {
				w.phase = corev1.PodFailed
			}
		}
	})
}

func (w *worker) refreshVolumes() {
	for w.sleep(volumePeriod) {
		if err := w.syncVolumes(); err != nil {
			w.warn("FailedMount", err.Error())
		}
	}
}

// cleanUp removes what the pod had and then the object, in this order: nobody
// may see a deleted pod that still answers.
func (w *worker) cleanUp() {
	if w.netns != "" {
		removePodNetwork(w.netns)
		w.agent.pool.give(w.ip)
	}
	os.RemoveAll(w.dir)
	pod := w.current()
	err := w.agent.client.CoreV1().Pods(pod.Namespace).Delete(context.Background(), pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: new(int64),
		Preconditions:      metav1.NewUIDPreconditions(string(pod.UID)),
	})
	_ = err // gone or replaced already: the same to us
}

// sleep reports whether the pod still lives after a while.
func (w *worker) sleep(d time.Duration) bool {
	select {
	case <-w.deleted.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (w *worker) warn(reason, message string) {
	w.agent.events.Event(w.current(), corev1.EventTypeWarning, reason, message)
}
