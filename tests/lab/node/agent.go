// Package node is the lab's kubelet: it registers a Node and runs the pods
// bound to it, each in a network namespace, each container as a process in
// mount, PID, IPC and UTS namespaces of its own. What it understands of a pod
// it does as the kubelet does; what it does not understand it ignores.
package node

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/version"
)

type agent struct {
	name   string
	ip     string
	apiIP  string // the kubernetes service, for KUBERNETES_SERVICE_HOST
	dir    string
	images imageTable
	client kubernetes.Interface
	events record.EventRecorder
	pool   *pool

	mu      sync.Mutex
	workers map[types.UID]*worker
}

// Run is the node subcommand.
func Run(args []string) error {
	a := &agent{workers: map[types.UID]*worker{}}
	flags := flag.NewFlagSet("node", flag.ExitOnError)
	flags.StringVar(&a.name, "name", "", "node name")
	flags.StringVar(&a.ip, "ip", "", "node address")
	flags.StringVar(&a.apiIP, "api", "", "cluster IP of the kubernetes service")
	flags.StringVar(&a.dir, "dir", "", "state directory")
	kubeconfig := flags.String("kubeconfig", "", "the node's identity")
	pods := flags.String("pods", "", "range of pod addresses")
	images := flags.String("images", "", "image table")
	var serving servingFiles
	flags.StringVar(&serving.cert, "tls-cert", "", "serving certificate")
	flags.StringVar(&serving.key, "tls-key", "", "serving key")
	flags.StringVar(&serving.clientCA, "client-ca", "", "authority of permitted clients")
	flags.Parse(args)

	prefix, err := netip.ParsePrefix(*pods)
	if err != nil {
		return err
	}
	a.pool = newPool(prefix)
	if a.images, err = loadImages(*images); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 200, 400
	if a.client, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: a.client.CoreV1().Events("")})
	a.events = broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "lab", Host: a.name})

	ctx := context.Background()
	if err := a.register(ctx); err != nil {
		return err
	}
	a.watchPods(ctx)
	go a.renewLease(ctx)
	return a.serve(serving)
}

func (a *agent) register(ctx context.Context) error {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: a.name, Labels: map[string]string{
		corev1.LabelHostname:   a.name,
		corev1.LabelOSStable:   "linux",
		corev1.LabelArchStable: "amd64",
	}}}
	node, err := a.client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	// Requests are not enforced, so they should not keep a pod from running.
	node.Status.Capacity = corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse("100"),
		corev1.ResourceMemory:           resource.MustParse("1Ti"),
		corev1.ResourceEphemeralStorage: resource.MustParse("1Ti"),
		corev1.ResourcePods:             resource.MustParse("1000"),
	}
	node.Status.Allocatable = node.Status.Capacity
	node.Status.Addresses = []corev1.NodeAddress{
		{Type: corev1.NodeInternalIP, Address: a.ip}, {Type: corev1.NodeHostName, Address: a.name},
	}
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = serverPort
	node.Status.NodeInfo = corev1.NodeSystemInfo{
		OperatingSystem: "linux", Architecture: "amd64", KubeletVersion: version.Get().GitVersion + "-lab", ContainerRuntimeVersion: "lab://1",
	}
	node.Status.Conditions = []corev1.NodeCondition{{
		Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady",
		LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now(),
	}}
	_, err = a.client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{})
	return err
}

// renewLease is the heartbeat without which the node would be declared lost. An
// API server that is away for a while, or refuses, is asked again soon.
func (a *agent) renewLease(ctx context.Context) {
	for {
		pause := 10 * time.Second
		if err := a.renewOnce(ctx); err != nil {
			fmt.Println("lease:", err)
			pause = time.Second
		}
		time.Sleep(pause)
	}
}

func (a *agent) renewOnce(ctx context.Context) error {
	leases := a.client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	seconds := int32(40)
	lease, err := leases.Get(ctx, a.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		lease, err = leases.Create(ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: a.name},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &a.name, LeaseDurationSeconds: &seconds},
		}, metav1.CreateOptions{})
	}
	if err != nil {
		return err
	}
	lease.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()}
	_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
	return err
}

func (a *agent) watchPods(ctx context.Context) {
	factory := informers.NewSharedInformerFactoryWithOptions(a.client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", a.name).String()
	}))
	factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { a.sync(obj.(*corev1.Pod)) },
		UpdateFunc: func(_, obj any) { a.sync(obj.(*corev1.Pod)) },
		DeleteFunc: func(obj any) {
			if last, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = last.Obj
			}
			if w := a.worker(obj.(*corev1.Pod).UID); w != nil {
				w.abandon()
			}
		},
	})
	factory.Start(ctx.Done())
}

func (a *agent) worker(uid types.UID) *worker {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.workers[uid]
}

func (a *agent) sync(pod *corev1.Pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w, known := a.workers[pod.UID]
	if !known {
		if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			return
		}
		w = newWorker(a, pod)
		a.workers[pod.UID] = w
		go func() {
			w.run()
			a.mu.Lock()
			defer a.mu.Unlock()
			delete(a.workers, pod.UID)
		}()
	}
	w.update(pod)
}

// AwaitReady waits until pods can be created: the node is ready and the
// default namespace has its service account.
func AwaitReady(client kubernetes.Interface, name string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for {
		_, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err == nil {
			_, err = client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}
