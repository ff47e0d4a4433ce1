package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// An authority is the cluster's only certificate authority. Everyone, the
// control plane included, is a client certificate it signed, so that RBAC sees
// the identities a real cluster has.
type authority struct {
	dir    string
	server string // the API server's URL in kubeconfigs
	cert   *x509.Certificate
	key    crypto.Signer
}

func newAuthority(dir, server string) (*authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	a := &authority{dir: dir, server: server}
	self := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "lab"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	if err := a.sign("ca", self); err != nil {
		return nil, err
	}
	// RSA, because verifiers of service account tokens may know only RS256.
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	return a, a.writeKey("service-account", key)
}

func (a *authority) path(file string) string { return filepath.Join(a.dir, file) }

// server issues a serving certificate as NAME.crt and NAME.key.
func (a *authority) serving(name string, ips []net.IP, hosts ...string) error {
	return a.sign(name, &x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: ips,
		DNSNames:    hosts,
	})
}

// client issues a user's certificate and writes NAME.kubeconfig.
func (a *authority) client(name, user string, groups ...string) error {
	err := a.sign(name, &x509.Certificate{
		Subject:     pkix.Name{CommonName: user, Organization: groups},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return err
	}
	config := api.NewConfig()
	config.Clusters["lab"] = &api.Cluster{Server: a.server, CertificateAuthority: a.path("ca.crt")}
	config.AuthInfos[name] = &api.AuthInfo{ClientCertificate: a.path(name + ".crt"), ClientKey: a.path(name + ".key")}
	config.Contexts["lab"] = &api.Context{Cluster: "lab", AuthInfo: name}
	config.CurrentContext = "lab"
	if err := api.FlattenConfig(config); err != nil { // certificates inline: the file can be copied
		return err
	}
	return clientcmd.WriteToFile(*config, a.path(name+".kubeconfig"))
}

func (a *authority) sign(name string, cert *x509.Certificate) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	cert.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	cert.NotBefore = time.Now().Add(-time.Hour)
	cert.NotAfter = time.Now().AddDate(1, 0, 0)
	if !cert.IsCA {
		cert.KeyUsage = x509.KeyUsageDigitalSignature
	} else {
		a.cert, a.key = cert, key
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, a.cert, key.Public(), a.key)
	if err != nil {
		return err
	}
	if cert.IsCA { // parsed again for the key identifiers CreateCertificate added
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			return err
		}
	}
	if err := writePEM(a.path(name+".crt"), "CERTIFICATE", der); err != nil {
		return err
	}
	return a.writeKey(name, key)
}

func (a *authority) writeKey(name string, key crypto.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(a.path(name+".key"), "PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
