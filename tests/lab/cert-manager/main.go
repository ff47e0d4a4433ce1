// cert-manager's controller for tests: Issuers and Certificates, with issuers that sign by themselves or by a CA in a Secret.
//
// Every part that decides something is cert-manager's own, of the version in go.mod. Its program is a module that is on no Go
// proxy, so this one starts those parts. Left out are its webhook, ACME, and the issuers that ask somebody else: they bring the
// libraries of several clouds along.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os/signal"
	"syscall"
	"time"

	"github.com/cert-manager/cert-manager/pkg/controller"
	"k8s.io/klog/v2"

	// Each of these packages registers its controller.
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/selfsigned"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/issuing"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/keymanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/readiness"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/requestmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/revisionmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/trigger"
	_ "github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	_ "github.com/cert-manager/cert-manager/pkg/controller/issuers"

	// And each of these what an Issuer's status is found by.
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned"
)

// workers of each controller. A lab has a handful of Certificates.
const workers = 2

func main() {
	kubeconfig := flag.String("kubeconfig", "", "file that says where the API server is")
	namespace := flag.String("namespace", "cert-manager", "where the Secrets of ClusterIssuers are")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(klog.NewContext(ctx, klog.Background()), *kubeconfig, *namespace); err != nil {
		log.Fatal(err)
	}
}

// run starts all controllers and returns when all of them have ended, which is when the first one fails or ctx ends.
func run(ctx context.Context, kubeconfig, namespace string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	factory, err := controller.NewContextFactory(ctx, options(kubeconfig, namespace))
	if err != nil {
		return fmt.Errorf("with the kubeconfig %q: %w", kubeconfig, err)
	}
	parts := map[string]controller.Interface{}
	for name, build := range controller.Known() {
		if parts[name], err = build(factory); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	// What they watch they have asked for by now, and it is shared.
	shared, err := factory.Build("informers")
	if err != nil {
		return fmt.Errorf("informers: %w", err)
	}
	shared.SharedInformerFactory.Start(ctx.Done())
	shared.KubeSharedInformerFactory.Start(ctx.Done())
	ended := make(chan error)
	for name, part := range parts {
		go func() {
			defer cancel()
			if err := part.Run(workers, ctx); err != nil {
				ended <- fmt.Errorf("%s: %w", name, err)
			} else {
				ended <- nil
			}
		}()
	}
	log.Printf("%d controllers have started", len(parts))
	for range parts {
		err = errors.Join(err, <-ended)
	}
	return err
}

// options are those of cert-manager's program where they matter. A lab's API server is asked without a limit of ours.
func options(kubeconfig, namespace string) controller.ContextOptions {
	return controller.ContextOptions{
		Kubeconfig:         kubeconfig,
		KubernetesAPIQPS:   100,
		KubernetesAPIBurst: 200,
		IssuerOptions:      controller.IssuerOptions{ClusterResourceNamespace: namespace},
		CertificateOptions: controller.CertificateOptions{
			CertificateRequestMinimumBackoffDuration: time.Second,
			CertificateRequestMaximumBackoffDuration: time.Minute,
		},
	}
}
