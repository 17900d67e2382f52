package rpc_test

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/observe"
	"github.com/buddyring/buddyring/internal/rpc"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

const (
	coordinatorURI = "spiffe://example.org/buddyring/coordinator/c1"
	agentURI       = "spiffe://example.org/buddyring/agent/web/db-1.rack.example"
	adminURI       = "spiffe://example.org/buddyring/admin/alice"
)

func TestPartialTLSNamesTheFlag(t *testing.T) {
	t.Parallel()
	full := newAuthority(t).issue("c1", coordinatorURI)
	for flag, s := range map[string]rpc.Security{
		"tls-cert": {KeyFile: full.KeyFile, CAFile: full.CAFile},
		"tls-key":  {CertFile: full.CertFile, CAFile: full.CAFile},
		"tls-ca":   {CertFile: full.CertFile, KeyFile: full.KeyFile},
		"insecure": {CertFile: full.CertFile, KeyFile: full.KeyFile, CAFile: full.CAFile, Insecure: true},
	} {
		_, err := rpc.NewCredentials(s, silent)
		var field *member.FieldError
		if !errors.As(err, &field) || field.Field != flag {
			t.Errorf("without or with %s: %v", flag, err)
		}
	}
}

func TestBadFilesAreRefusedByName(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	good := ca.issue("c1", coordinatorURI)
	other := ca.issue("c2", coordinatorURI)
	junk := filepath.Join(t.TempDir(), "junk.pem")
	must(t, os.WriteFile(junk, []byte("-----BEGIN CERTIFICATE-----\nAAAA"), 0o600))
	absent := filepath.Join(t.TempDir(), "absent.pem")
	for name, tt := range map[string]struct {
		security rpc.Security
		file     string
	}{
		"absent certificate": {rpc.Security{CertFile: absent, KeyFile: good.KeyFile, CAFile: good.CAFile}, absent},
		"absent ca":          {rpc.Security{CertFile: good.CertFile, KeyFile: good.KeyFile, CAFile: absent}, absent},
		"junk certificate":   {rpc.Security{CertFile: junk, KeyFile: good.KeyFile, CAFile: good.CAFile}, junk},
		"junk ca":            {rpc.Security{CertFile: good.CertFile, KeyFile: good.KeyFile, CAFile: junk}, junk},
		"another's key":      {rpc.Security{CertFile: good.CertFile, KeyFile: other.KeyFile, CAFile: good.CAFile}, other.KeyFile},
		"no identity":        {ca.issue("anybody"), "anybody.pem"},
		"two identities":     {ca.issue("both", coordinatorURI, agentURI), "both.pem"},
		"foreign identity":   {ca.issue("foreign", "spiffe://example.org/ns/web"), "foreign.pem"},
	} {
		if _, err := rpc.NewCredentials(tt.security, silent); err == nil || !strings.Contains(err.Error(), tt.file) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// seen is what a handler learned of its caller.
type seen struct {
	identity rpc.Identity
	ok       bool
	admin    error
}

// call calls once over TCP and returns what the handler saw.
func call(t *testing.T, server, client rpc.Security, want rpc.Role) (seen, error) {
	t.Helper()
	var got seen
	creds := newCredentials(t, server)
	lis := listen(t, creds)
	serve(t, rpc.ServerConfig{Credentials: creds}, &service{pick: func(ctx context.Context) error {
		got.identity, got.ok = rpc.PeerIdentity(ctx)
		got.admin = rpc.RequireRole(ctx, rpc.RoleAdmin)
		return nil
	}}, lis)
	conn := dial(t, rpc.DialConfig{
		Addresses: []string{lis.Addr().String()}, Credentials: newCredentials(t, client), ServerRole: want,
	})
	_, err := routerv1.NewRouterServiceClient(conn).Pick(soon(t), &routerv1.PickRequest{}, grpc.WaitForReady(false))
	return got, err
}

func TestMutualTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	server := ca.issue("c1", coordinatorURI)

	got, err := call(t, server, ca.issue("db-1", agentURI), rpc.RoleCoordinator)
	must(t, err)
	want := rpc.Identity{Domain: "example.org", Role: rpc.RoleAgent, Pool: "web", Name: "db-1.rack.example"}
	if !got.ok || got.identity != want || got.identity.String() != agentURI {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if !errors.Is(got.admin, member.ErrPermission) {
		t.Errorf("an agent passes for an admin: %v", got.admin)
	}

	got, err = call(t, server, ca.issue("alice", adminURI), rpc.RoleCoordinator)
	must(t, err)
	if got.admin != nil {
		t.Errorf("an admin is refused: %v", got.admin)
	}

	got, err = call(t, rpc.Security{}, rpc.Security{}, rpc.RoleCoordinator)
	must(t, err)
	if got.ok || got.admin != nil {
		t.Errorf("without TLS: %+v", got)
	}
}

func TestForeignDomainHasNoRole(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	server := ca.issue("c1", coordinatorURI)
	creds := newCredentials(t, server)
	lis := listen(t, creds)
	var got seen
	serve(t, rpc.ServerConfig{Credentials: creds}, &service{pick: func(ctx context.Context) error {
		got.identity, got.ok = rpc.PeerIdentity(ctx)
		got.admin = rpc.RequireRole(ctx, rpc.RoleAdmin)
		return nil
	}}, lis)
	for _, uri := range []string{"spiffe://example.com/buddyring/admin/alice", "spiffe://example.org/ns/web"} {
		stranger := ca.issue("stranger", uri)
		pickOverTLS(t, lis.Addr().String(), stranger)
		if !got.ok || got.identity != (rpc.Identity{}) || !errors.Is(got.admin, member.ErrPermission) {
			t.Errorf("%s: got %+v", uri, got)
		}
		got = seen{}
	}
}

func TestWrongPeersAreRefused(t *testing.T) {
	t.Parallel()
	ca, foreign := newAuthority(t), newAuthority(t)
	server := ca.issue("c1", coordinatorURI)
	agent := ca.issue("db-1", agentURI)

	mixed := foreign.issue("db-1", agentURI)
	mixed.CAFile = ca.caFile
	for name, tt := range map[string]struct {
		server, client rpc.Security
		text           string
	}{
		"server of the wrong role":   {ca.issue("alice", adminURI), agent, "not a coordinator of example.org"},
		"server of the wrong domain": {ca.issue("cx", "spiffe://example.com/buddyring/coordinator/c1"), agent, "not a coordinator of example.org"},
		"server of the wrong CA":     {foreign.issue("c1", coordinatorURI), agent, "unknown authority"},
		// Its reason may be lost with the connection; the server's log has it.
		"client of the wrong CA": {server, mixed, ""},
		"plaintext client":       {server, rpc.Security{}, ""},
		"plaintext server":       {rpc.Security{}, agent, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := call(t, tt.server, tt.client, rpc.RoleCoordinator)
			if !errors.Is(err, member.ErrUnavailable) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v", err)
			}
			if got != (seen{}) {
				t.Errorf("the handler ran: %+v", got)
			}
		})
	}
}

func TestExpiredClientIsRefused(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	ca.validFor = -time.Minute
	expired := ca.issue("db-1", agentURI)
	ca.validFor = 0
	// The client's first write may fail before it reads why it was refused.
	const attempts = 20
	var err error
	for range attempts {
		_, err = call(t, ca.issue("c1", coordinatorURI), expired, rpc.RoleCoordinator)
		if !errors.Is(err, member.ErrUnavailable) {
			t.Fatalf("got %v", err)
		}
		if strings.Contains(err.Error(), "expired") {
			return
		}
	}
	t.Errorf("refused %d times without the reason: %v", attempts, err)
}

func TestRolesOfAService(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	creds := newCredentials(t, ca.issue("c1", coordinatorURI))
	lis := listen(t, creds)
	nothing := func(context.Context) error { return nil }
	serve(t, rpc.ServerConfig{
		Credentials: creds,
		Roles:       map[string][]rpc.Role{routerv1.RouterService_ServiceDesc.ServiceName: {rpc.RoleAdmin, rpc.RoleRouter}},
	}, &service{pick: nothing, watch: func(grpc.ServerStream) error { return nil }}, lis)

	for uri, allowed := range map[string]bool{
		adminURI: true, "spiffe://example.org/buddyring/router/r1": true, agentURI: false,
	} {
		client := routerv1.NewRouterServiceClient(dial(t, rpc.DialConfig{
			Addresses: []string{lis.Addr().String()}, ServerRole: rpc.RoleCoordinator,
			Credentials: newCredentials(t, ca.issue("client", uri)),
		}))
		_, unary := client.Pick(soon(t), &routerv1.PickRequest{})
		watch, err := client.Watch(soon(t), &routerv1.WatchRequest{})
		must(t, err)
		for _, err := range []error{unary, ended(watch)} {
			if denied := errors.Is(err, member.ErrPermission); denied == allowed {
				t.Errorf("%s: %v", uri, err)
			}
		}
	}
}

// TestReload runs on virtual time, for the files are looked at once a second.
func TestReload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca := newAuthority(t)
		server := ca.issue("c1", coordinatorURI)
		agent := ca.issue("db-1", agentURI)
		log := &lockedBuffer{}
		creds, err := rpc.NewCredentials(server, slog.New(slog.NewTextHandler(log, nil)))
		must(t, err)
		lis := bufconn.Listen(1 << 16)
		var caller rpc.Identity
		serve(t, rpc.ServerConfig{Credentials: creds}, &service{pick: func(ctx context.Context) error {
			caller, _ = rpc.PeerIdentity(ctx)
			return nil
		}}, lis)
		clientCreds := newCredentials(t, agent)
		pick := func() error {
			// A new connection each time: files count at handshakes.
			conn := dial(t, rpc.DialConfig{
				Addresses: []string{"memory:1"}, Credentials: clientCreds, ServerRole: rpc.RoleCoordinator,
				Dialer: func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) },
			})
			defer conn.Close()
			_, err := routerv1.NewRouterServiceClient(conn).Pick(t.Context(), &routerv1.PickRequest{})
			return err
		}
		must(t, pick())

		// Rubbish is not taken, and said once.
		key, err := os.ReadFile(server.KeyFile)
		must(t, err)
		must(t, os.WriteFile(server.KeyFile, []byte("rubbish"), 0o600))
		for range 3 {
			time.Sleep(time.Second)
			must(t, pick())
		}
		if n := strings.Count(log.String(), "level=WARN"); n != 1 {
			t.Errorf("%d warnings: %s", n, log)
		}
		must(t, os.WriteFile(server.KeyFile, key, 0o600))

		// A new identity of the client is taken without a restart.
		ca.issue("db-1", "spiffe://example.org/buddyring/agent/web/db-2")
		time.Sleep(time.Second)
		must(t, pick())
		if caller.Name != "db-2" {
			t.Errorf("the caller is %v", caller)
		}

		// A new CA on the server shuts the old ones out.
		next := newAuthority(t)
		replacement := next.issue("c1", coordinatorURI)
		for from, to := range map[string]string{
			replacement.CertFile: server.CertFile, replacement.KeyFile: server.KeyFile, replacement.CAFile: server.CAFile,
		} {
			data, err := os.ReadFile(from)
			must(t, err)
			must(t, os.WriteFile(to, data, 0o600))
		}
		time.Sleep(time.Second)
		if err := pick(); !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("a client of the old CA got %v", err)
		}
		if creds.Identity().String() != coordinatorURI {
			t.Errorf("own identity is %v", creds.Identity())
		}
	})
}

func TestHTTPOverTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	creds := newCredentials(t, ca.issue("c1", coordinatorURI))
	lis := listen(t, creds)
	server := observe.NewHTTP(observe.HTTPConfig{
		TLS: creds.HTTPConfig(), Registry: prometheus.NewRegistry(), Logger: silent,
		Ready: func() error { return nil },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, lis) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-done)
	})
	status := func(path string, certs ...tls.Certificate) int {
		t.Helper()
		client := &http.Client{Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, Certificates: certs},
		}}
		res, err := client.Get("https://" + lis.Addr().String() + path)
		if err != nil {
			return 0
		}
		must(t, res.Body.Close())
		return res.StatusCode
	}
	agent := ca.issue("db-1", agentURI)
	cert, err := tls.LoadX509KeyPair(agent.CertFile, agent.KeyFile)
	must(t, err)
	stranger := newAuthority(t).issue("db-1", agentURI)
	foreign, err := tls.LoadX509KeyPair(stranger.CertFile, stranger.KeyFile)
	must(t, err)
	for _, tt := range []struct {
		path  string
		certs []tls.Certificate
		want  int
	}{
		{"/livez", nil, http.StatusOK},
		{"/readyz", nil, http.StatusOK},
		{"/metrics", nil, http.StatusForbidden},
		{"/metrics", []tls.Certificate{cert}, http.StatusOK},
		{"/metrics", []tls.Certificate{foreign}, 0},
	} {
		if got := status(tt.path, tt.certs...); got != tt.want {
			t.Errorf("%s with %d certificates: %d, want %d", tt.path, len(tt.certs), got, tt.want)
		}
	}
	if newCredentials(t, rpc.Security{}).HTTPConfig() != nil {
		t.Error("a TLS configuration without files")
	}
}

func TestParseIdentity(t *testing.T) {
	t.Parallel()
	for _, uri := range []string{
		coordinatorURI, agentURI, adminURI, "spiffe://example.org/buddyring/router/r1", "spiffe://example.org/buddyring/client/shop",
	} {
		id, err := rpc.ParseIdentity("san", uri)
		if err != nil || id.String() != uri {
			t.Errorf("%s: %v, %v", uri, id, err)
		}
	}
	for _, uri := range []string{
		"", "https://example.org/buddyring/router/r1", "spiffe://example.org/buddyring/router",
		"spiffe://example.org/buddyring/router/a/b", "spiffe://example.org/buddyring/agent/db-1",
		"spiffe://example.org/buddyring/agent/web/db-1/x", "spiffe://example.org/buddyring/king/k",
		"spiffe://example.org/other/router/r1", "spiffe:///buddyring/router/r1",
		"spiffe://example.org/buddyring/router/R1", "spiffe://example.org/buddyring/agent/a.b/c",
		"spiffe://example.org/buddyring/router/r1?x", "spiffe://example.org:80/buddyring/router/r1",
	} {
		if id, err := rpc.ParseIdentity("san", uri); !errors.Is(err, member.ErrInvalid) {
			t.Errorf("%q is %v", uri, id)
		}
	}
}

func FuzzParseIdentity(f *testing.F) {
	for _, uri := range []string{coordinatorURI, agentURI, adminURI, "spiffe://a/buddyring/agent//b"} {
		f.Add(uri)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		id, err := rpc.ParseIdentity("san", uri)
		if err == nil && (id.String() != uri || id.Role == "" || (id.Pool != "") != (id.Role == rpc.RoleAgent)) {
			t.Errorf("%q is %+v", uri, id)
		}
	})
}

// The metric follows the file: who watches it sees whether a renewal was taken.
func TestCertificateMetric(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca := newAuthority(t)
		reg := prometheus.NewRegistry()
		newCredentials(t, ca.issue("c1", coordinatorURI)).Register(reg)
		expires := func() float64 {
			families, err := reg.Gather()
			must(t, err)
			if len(families) != 1 || families[0].GetName() != "buddyring_certificate_expires_timestamp_seconds" {
				t.Fatalf("got %v", families)
			}
			return families[0].GetMetric()[0].GetGauge().GetValue()
		}
		if got, want := expires(), float64(time.Now().Add(time.Hour).Unix()); got != want {
			t.Errorf("it ends at %v, want %v", got, want)
		}
		ca.validFor = 48 * time.Hour
		ca.issue("c1", coordinatorURI)
		renewed := float64(time.Now().Add(48 * time.Hour).Unix())
		time.Sleep(time.Second)
		if got := expires(); got != renewed {
			t.Errorf("renewed, it ends at %v, want %v", got, renewed)
		}

		plain := prometheus.NewRegistry()
		newCredentials(t, rpc.Security{}).Register(plain)
		if families, err := plain.Gather(); err != nil || len(families) != 0 {
			t.Errorf("without TLS: %v, %v", families, err)
		}
	})
}
