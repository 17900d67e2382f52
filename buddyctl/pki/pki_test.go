package pki_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/buddyring/buddyring/buddyctl/pki"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
)

func authority(t *testing.T, domain string) *pki.Authority {
	t.Helper()
	a, err := pki.NewAuthority(domain, time.Now(), 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a *pki.Authority, id rpc.Identity, hosts ...string) *pki.Issued {
	t.Helper()
	issued, err := a.Issue(pki.Wanted{Identity: id, Hosts: hosts, Valid: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return issued
}

func TestIdentities(t *testing.T) {
	t.Parallel()
	a := authority(t, "example.org")
	for uri, id := range map[string]rpc.Identity{
		"spiffe://example.org/buddyring/agent/default/db-1.rack2": {Role: rpc.RoleAgent, Pool: "default", Name: "db-1.rack2"},
		"spiffe://example.org/buddyring/router/edge-1":            {Role: rpc.RoleRouter, Name: "edge-1"},
		"spiffe://example.org/buddyring/coordinator/c-1":          {Role: rpc.RoleCoordinator, Name: "c-1"},
		"spiffe://example.org/buddyring/admin/ann":                {Role: rpc.RoleAdmin, Name: "ann"},
		"spiffe://example.org/buddyring/client/shop":              {Role: rpc.RoleClient, Name: "shop"},
	} {
		cert := issue(t, a, id, "c-1.example.org", "10.0.0.1", "2001:db8::1").Cert
		if len(cert.URIs) != 1 || cert.URIs[0].String() != uri {
			t.Errorf("URIs %v, want %s", cert.URIs, uri)
		}
		if err := cert.VerifyHostname("10.0.0.1"); err != nil {
			t.Error(err)
		}
		if err := cert.VerifyHostname("c-1.example.org"); err != nil {
			t.Error(err)
		}
		server := false
		for _, u := range cert.ExtKeyUsage {
			server = server || u == x509.ExtKeyUsageServerAuth
		}
		if server == (id.Role == rpc.RoleAdmin || id.Role == rpc.RoleClient) {
			t.Errorf("%s: may be a server: %v", uri, server)
		}
	}
}

func TestBadNamesAreRefused(t *testing.T) {
	t.Parallel()
	for _, domain := range []string{"", "Example.org", "a..b", "a/b", strings.Repeat("a", 64)} {
		if _, err := pki.NewAuthority(domain, time.Now(), time.Hour); !errors.Is(err, member.ErrInvalid) {
			t.Errorf("domain %q: %v", domain, err)
		}
	}
	a := authority(t, "example.org")
	now := time.Now()
	for name, w := range map[string]pki.Wanted{
		"no name":     {Identity: rpc.Identity{Role: rpc.RoleAdmin}, Valid: time.Hour},
		"slash":       {Identity: rpc.Identity{Role: rpc.RoleAdmin, Name: "a/b"}, Valid: time.Hour},
		"no role":     {Identity: rpc.Identity{Name: "a"}, Valid: time.Hour},
		"no pool":     {Identity: rpc.Identity{Role: rpc.RoleAgent, Name: "a"}, Valid: time.Hour},
		"bad host":    {Identity: rpc.Identity{Role: rpc.RoleAdmin, Name: "a"}, Hosts: []string{"a b"}, Valid: time.Hour},
		"beyond CA":   {Identity: rpc.Identity{Role: rpc.RoleAdmin, Name: "a"}, Valid: 25 * time.Hour},
		"with a zone": {Identity: rpc.Identity{Role: rpc.RoleAdmin, Name: "a"}, Hosts: []string{"::%eth0"}, Valid: time.Hour},
	} {
		if _, err := a.Issue(w, now); !errors.Is(err, member.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An authority's certificate cannot be used for identities of another domain,
// even by whoever has its key.
func TestTheAuthorityIsBoundToItsDomain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mine := authority(t, "example.org")
	if _, err := mine.Save(dir); err != nil {
		t.Fatal(err)
	}
	stolen, err := pki.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	stolen.Domain = "example.com"
	cert := issue(t, stolen, rpc.Identity{Role: rpc.RoleCoordinator, Name: "c-1"}).Cert
	roots := x509.NewCertPool()
	if pemCA, err := os.ReadFile(filepath.Join(dir, pki.CAFile)); err != nil || !roots.AppendCertsFromPEM(pemCA) {
		t.Fatal(err)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err == nil {
		t.Error("a certificate for another domain is valid")
	}
	good := issue(t, mine, rpc.Identity{Role: rpc.RoleCoordinator, Name: "c-1"}).Cert
	if _, err := good.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
		t.Error(err)
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ca")
	a := authority(t, "example.org")
	files, err := a.Save(dir)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := issue(t, a, rpc.Identity{Role: rpc.RoleAdmin, Name: "ann"}).Save(dir, "admin-ann")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{dir: 0o700, files.Key: 0o600, issued.Key: 0o600, issued.Cert: 0o644} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
	before, err := os.ReadFile(files.Key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := authority(t, "example.org").Save(dir); !errors.Is(err, member.ErrAlreadyExists) {
		t.Errorf("a second CA: %v", err)
	}
	if after, err := os.ReadFile(files.Key); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the CA's key was touched: %v", err)
	}
}

func TestSavingIsAllOrNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, pki.CAFile), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := authority(t, "example.org").Save(dir); !errors.Is(err, member.ErrAlreadyExists) {
		t.Errorf("beside a certificate: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, pki.CAKeyFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key was left behind: %v", err)
	}
}

func TestOpenRefusesWhatIsNoAuthority(t *testing.T) {
	t.Parallel()
	save := func(t *testing.T) string {
		t.Helper()
		dir := t.TempDir()
		if _, err := authority(t, "example.org").Save(dir); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for name, spoil := range map[string]func(dir string) error{
		"nothing there": func(dir string) error { return os.Remove(filepath.Join(dir, pki.CAFile)) },
		"no key":        func(dir string) error { return os.Remove(filepath.Join(dir, pki.CAKeyFile)) },
		"garbage":       func(dir string) error { return os.WriteFile(filepath.Join(dir, pki.CAFile), []byte("x"), 0o600) },
		"cut short": func(dir string) error {
			block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1, 2}})
			return os.WriteFile(filepath.Join(dir, pki.CAFile), block, 0o600)
		},
		"another key": func(dir string) error {
			other, err := os.ReadFile(filepath.Join(save(t), pki.CAKeyFile))
			return errors.Join(err, os.WriteFile(filepath.Join(dir, pki.CAKeyFile), other, 0o600))
		},
		"no CA": func(dir string) error {
			a, err := pki.Open(dir)
			if err != nil {
				return err
			}
			return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700), func() error {
				_, err := issue(t, a, rpc.Identity{Role: rpc.RoleAdmin, Name: "ann"}).Save(dir, "ca")
				return err
			}())
		},
	} {
		dir := save(t)
		if err := spoil(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := pki.Open(dir); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

// The certificates do what they are for: a server and a client of this project
// accept one another, and refuse those of another authority.
func TestHandshake(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := authority(t, "example.org")
	ca, err := a.Save(dir)
	if err != nil {
		t.Fatal(err)
	}
	security := func(by *pki.Authority, role rpc.Role, name string) rpc.Security {
		f, err := issue(t, by, rpc.Identity{Role: role, Name: name}).Save(dir, string(role)+"-"+name)
		if err != nil {
			t.Fatal(err)
		}
		return rpc.Security{CertFile: f.Cert, KeyFile: f.Key, CAFile: ca.Cert}
	}
	log := slog.New(slog.DiscardHandler)
	credentials, err := rpc.NewCredentials(security(a, rpc.RoleCoordinator, "c-1"), log)
	if err != nil {
		t.Fatal(err)
	}
	lis, err := credentials.Listen(t.Context(), "admin", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := rpc.NewServer(rpc.ServerConfig{Credentials: credentials, Logger: log})
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, lis) }()

	check := func(s rpc.Security) error {
		credentials, err := rpc.NewCredentials(s, log)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := rpc.Dial(rpc.DialConfig{
			Addresses: []string{lis.Addr().String()}, Credentials: credentials, ServerRole: rpc.RoleCoordinator, Logger: log,
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		return errors.Join(err, conn.Close())
	}
	if err := check(security(a, rpc.RoleAdmin, "ann")); err != nil {
		t.Error(err)
	}
	if err := check(security(authority(t, "example.org"), rpc.RoleAdmin, "eve")); err == nil {
		t.Error("a client of another authority was let in")
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
