//go:build mariadb

package store_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path"
	"path/filepath"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/testdb"
)

func TestTLS(t *testing.T) {
	t.Parallel()
	cert, key, authority := certificate(t)
	server := testdb.Start(t, "--ssl-cert="+cert, "--ssl-key="+key)
	address := server.Database(t)
	server.Exec(t, "CREATE USER app@localhost REQUIRE SSL")
	server.Exec(t, "GRANT ALL ON *.* TO app@localhost")
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server.Forward(t, lis)
	url := "mysql://app@" + lis.Addr().String() + "/" + path.Base(address)

	_, err = store.Open(t.Context(), store.Config{URL: url, Migrate: store.MigrateAuto})
	wantDenied(t, err, "--store-tls-ca")
	_, err = store.Open(t.Context(), store.Config{
		URL: url, Migrate: store.MigrateAuto, TLS: &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12},
	})
	if !errors.Is(err, member.ErrUnavailable) {
		t.Errorf("with another authority: %v, want ErrUnavailable", err)
	}
	s, err := store.Open(t.Context(), store.Config{
		URL: url, Migrate: store.MigrateAuto, TLS: &tls.Config{RootCAs: authority, MinVersion: tls.VersionTLS12},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if _, err := s.CreatePool(t.Context(), lead(t, s).Epoch, store.NewPool{Name: "web", Settings: member.DefaultSettings()}); err != nil {
		t.Error(err)
	}
}

// certificate writes a certificate for 127.0.0.1 that signs itself.
func certificate(t *testing.T) (cert, key string, authority *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, content []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	authority = x509.NewCertPool()
	if parsed, err := x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	} else {
		authority.AddCert(parsed)
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", secret), authority
}
