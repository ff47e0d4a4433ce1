// Lab is a Kubernetes cluster on one Linux machine without a container engine:
// the real control plane and kube-proxy, and a small node agent that takes the
// kubelet's place and runs pods as plain processes in namespaces.
//
//	lab up   --dir DIR --images images.yaml   run a cluster until interrupted
//	lab exec --dir DIR -- COMMAND...          run a command on its node
//
// The other subcommands are the processes "up" starts.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"

	"lab/addons"
	"lab/node"
)

// Upstream components bring their own flags and exit codes.
var upstream = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllers.NewControllerManagerCommand,
	"kube-proxy":              proxy.NewProxyCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
}

var own = map[string]func(args []string) error{
	"up":             up,
	"inside":         inside,
	"exec":           enter,
	"etcd":           etcd,
	"addons":         addons.Run,
	"node":           node.Run,
	node.ShimCommand: node.Shim,
}

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("usage: lab up|exec [flags]"))
	}
	name := os.Args[1]
	if command, ok := upstream[name]; ok {
		os.Args = os.Args[1:]
		os.Exit(cli.Run(command()))
	}
	command, ok := own[name]
	if !ok {
		fail(fmt.Errorf("unknown subcommand %q", name))
	}
	if err := command(os.Args[2:]); err != nil {
		fail(fmt.Errorf("%s: %w", name, err))
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "lab", err)
	os.Exit(1)
}
