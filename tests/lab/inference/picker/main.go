// Command picker is the endpoint picker of the suite: lwepp of the same
// version, which this is put together from, with its answers put in order (see
// order.go).
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"

	extproc "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metrics "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/gateway-api-inference-extension/pkg/common"
	"sigs.k8s.io/gateway-api-inference-extension/pkg/lwepp/datastore"
	"sigs.k8s.io/gateway-api-inference-extension/pkg/lwepp/handlers"
	"sigs.k8s.io/gateway-api-inference-extension/pkg/lwepp/server"
)

func main() {
	logging := zap.Options{}
	logging.BindFlags(flag.CommandLine)
	pflag.CommandLine.AddGoFlagSet(flag.CommandLine)
	options := server.NewOptions()
	options.AddFlags(pflag.CommandLine)
	pflag.Parse()
	ctrl.SetLogger(zap.New(zap.UseFlagOptions(&logging)))
	if err := run(ctrl.SetupSignalHandler(), options); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, options *server.Options) error {
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	pool := common.GKNN{
		NamespacedName: types.NamespacedName{Name: options.PoolName, Namespace: options.PoolNamespace},
		GroupKind:      schema.GroupKind{Group: options.PoolGroup, Kind: "InferencePool"},
	}
	address := metrics.Options{BindAddress: fmt.Sprintf(":%d", options.MetricsPort)}
	manager, err := server.NewDefaultManager(server.NewControllerConfig(true), pool, config, address)
	if err != nil {
		return err
	}
	store := datastore.NewDatastore(ctx)
	runner := &server.ExtProcServerRunner{GrpcHealthPort: options.GRPCHealthPort, GKNN: pool, Datastore: store}
	if err := runner.SetupWithManager(manager); err != nil {
		return err
	}
	failed := make(chan error, 3)
	go func() { failed <- runner.HealthServerRunnable(ctrl.Log).Start(ctx) }()
	go func() { failed <- serve(options, &inOrder{handlers.NewStreamingServer(store)}) }()
	go func() { failed <- manager.Start(ctx) }()
	return <-failed
}

func serve(options *server.Options, picker extproc.ExternalProcessorServer) error {
	var own []grpc.ServerOption
	if options.SecureServing {
		certificate, err := selfSigned()
		if err != nil {
			return err
		}
		own = append(own, grpc.Creds(credentials.NewServerTLSFromCert(&certificate)))
	}
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", options.GRPCPort))
	if err != nil {
		return err
	}
	calls := grpc.NewServer(own...)
	extproc.RegisterExternalProcessorServer(calls, picker)
	return calls.Serve(listener)
}

func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now, NotAfter: now.AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
