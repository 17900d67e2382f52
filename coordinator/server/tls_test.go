package server_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/buddyring/buddyring/coordinator/server"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir(), next: 1}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert, a.key = a.sign(template, "ca")
	return a
}

// sign writes NAME.crt and NAME.key.
func (a *authority) sign(template *x509.Certificate, name string) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatalf("generate key: %v", err)
	}
	a.next++
	template.SerialNumber = big.NewInt(a.next)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatalf("sign: %v", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatalf("encode key: %v", err)
	}
	a.write(name+".crt", "CERTIFICATE", der)
	a.write(name+".key", "PRIVATE KEY", keyDER)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatalf("parse: %v", err)
	}
	return cert, key
}

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	block := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(filepath.Join(a.dir, name), block, 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// credentials are those of a process with an identity.
func (a *authority) credentials(identity string) *rpc.Credentials {
	a.t.Helper()
	uri, err := url.Parse("spiffe://test/buddyring/" + identity)
	if err != nil {
		a.t.Fatal(err)
	}
	a.next++
	name := fmt.Sprintf("leaf-%d", a.next)
	a.sign(&x509.Certificate{
		URIs: []*url.URL{uri}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, name)
	c, err := rpc.NewCredentials(rpc.Security{
		CertFile: filepath.Join(a.dir, name+".crt"), KeyFile: filepath.Join(a.dir, name+".key"),
		CAFile: filepath.Join(a.dir, "ca.crt"),
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		a.t.Fatalf("credentials: %v", err)
	}
	return c
}

// secured runs a coordinator with TLS on loopback and returns the addresses of
// its listeners.
func secured(t *testing.T, ca *authority) map[string]string {
	t.Helper()
	credentials := ca.credentials("coordinator/c1")
	addresses := map[string]string{}
	listening := make(chan struct{}, 3)
	s, err := server.New(server.Config{
		ID: "c1", Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0", HTTPListen: "127.0.0.1:0",
		AutoCreatePools: true, AllowLocalAddresses: true,
	}, server.Deps{
		Store: newTable(), Credentials: credentials, Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
		Listen: func(ctx context.Context, name, address string) (net.Listener, error) {
			lis, err := credentials.Listen(ctx, name, address)
			if err == nil {
				addresses[name] = lis.Addr().String()
			}
			listening <- struct{}{}
			return lis, err
		},
	})
	if err != nil {
		t.Fatalf("new: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	for range 3 {
		<-listening
	}
	return addresses
}

func dialTLS(t *testing.T, c *rpc.Credentials, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := rpc.Dial(rpc.DialConfig{
		Addresses: []string{address}, Credentials: c, ServerRole: rpc.RoleCoordinator, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// Identity comes from the certificate, and everybody speaks for themselves only.
func TestIdentity(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	at := secured(t, ca)
	stranger := newAuthority(t)

	session := func(t *testing.T, c *rpc.Credentials, pool, id string) error {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		s, err := pb.NewAgentServiceClient(dialTLS(t, c, at["agent"])).Session(ctx)
		if err != nil {
			return err
		}
		_ = s.Send(hello(func(h *pb.Hello) { // Recv tells the error
			h.Pool, h.ServerId, h.Spec.ProbeAddresses = pool, id, nil
		}))
		_, err = s.Recv()
		return err
	}
	subscribe := func(t *testing.T, c *rpc.Credentials, id string) error {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		s, err := pb.NewMembershipServiceClient(dialTLS(t, c, at["agent"])).Subscribe(ctx)
		if err != nil {
			return err
		}
		_ = s.Send(&pb.SubscribeRequest{Message: &pb.SubscribeRequest_Hello{Hello: &pb.SubscribeHello{RouterId: id}}})
		_, err = s.Recv()
		return err
	}
	administer := func(t *testing.T, c *rpc.Credentials, _ string) error {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := pb.NewAdminServiceClient(dialTLS(t, c, at["admin"])).GetStatus(ctx, &pb.GetStatusRequest{})
		return err
	}
	asAgent := func(pool, id string) func(*testing.T, *rpc.Credentials) error {
		return func(t *testing.T, c *rpc.Credentials) error { return session(t, c, pool, id) }
	}
	asRouter := func(t *testing.T, c *rpc.Credentials) error { return subscribe(t, c, "r1") }
	asAdmin := func(t *testing.T, c *rpc.Credentials) error { return administer(t, c, "") }
	asPeer := func(t *testing.T, c *rpc.Credentials) error {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := pb.NewPeerServiceClient(dialTLS(t, c, at["agent"])).GetLead(ctx, &pb.GetLeadRequest{})
		return err
	}

	for name, c := range map[string]struct {
		authority *authority
		identity  string
		do        func(*testing.T, *rpc.Credentials) error
		want      error
	}{
		"an agent for itself":           {ca, "agent/default/web-1", asAgent("default", "web-1"), nil},
		"an agent for another server":   {ca, "agent/default/web-1", asAgent("default", "web-2"), member.ErrPermission},
		"an agent for another pool":     {ca, "agent/games/web-1", asAgent("default", "web-1"), member.ErrPermission},
		"a router as an agent":          {ca, "router/web-1", asAgent("default", "web-1"), member.ErrPermission},
		"an admin as an agent":          {ca, "admin/web-1", asAgent("default", "web-1"), member.ErrPermission},
		"a coordinator as an agent":     {ca, "coordinator/web-1", asAgent("default", "web-1"), member.ErrPermission},
		"a router for itself":           {ca, "router/r1", asRouter, nil},
		"a router for another":          {ca, "router/r2", asRouter, member.ErrPermission},
		"an agent as a router":          {ca, "agent/default/r1", asRouter, member.ErrPermission},
		"an admin":                      {ca, "admin/ops", asAdmin, nil},
		"a router as an admin":          {ca, "router/ops", asAdmin, member.ErrPermission},
		"an agent as an admin":          {ca, "agent/default/ops", asAdmin, member.ErrPermission},
		"a coordinator as a peer":       {ca, "coordinator/c2", asPeer, nil},
		"an agent as a peer":            {ca, "agent/default/web-1", asPeer, member.ErrPermission},
		"a router as a peer":            {ca, "router/r1", asPeer, member.ErrPermission},
		"an admin of another authority": {stranger, "admin/ops", asAdmin, member.ErrUnavailable},
	} {
		credentials := c.authority.credentials(c.identity)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := c.do(t, credentials)
			if !errors.Is(err, c.want) {
				t.Errorf("%s: error is %v, not %v", c.identity, err, c.want)
			}
		})
	}
	t.Run("plaintext", func(t *testing.T) {
		t.Parallel()
		if err := asAdmin(t, plaintext(t)); !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("error is %v", err)
		}
	})
}

// The history says who asked, and an agent without an address gets that of its
// connection.
func TestIdentityIsRecorded(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	at := secured(t, ca)
	s, err := pb.NewAgentServiceClient(dialTLS(t, ca.credentials("agent/default/web-1"), at["agent"])).Session(t.Context())
	if err != nil {
		t.Fatalf("session: %v", err)
	}
	if err := s.Send(hello(func(h *pb.Hello) { h.Spec.ProbeAddresses = nil })); err != nil {
		t.Fatalf("send: %v", err)
	}
	if _, err := s.Recv(); err != nil {
		t.Fatalf("receive: %v", err)
	}
	admin := pb.NewAdminServiceClient(dialTLS(t, ca.credentials("admin/ops"), at["admin"]))
	res, err := admin.GetServer(t.Context(), &pb.GetServerRequest{ServerId: "web-1"})
	if err != nil {
		t.Fatalf("get server: %v", err)
	}
	if got := res.GetServer().GetSpec().GetProbeAddresses(); len(got) != 1 || got[0] != "127.0.0.1" {
		t.Errorf("probe addresses: %v", got)
	}
	intent, err := admin.SetIntent(t.Context(), &pb.SetIntentRequest{ServerId: "web-1", Wish: pb.Wish_WISH_MAINTENANCE})
	if err != nil || intent.GetIntent().GetActor() != "spiffe://test/buddyring/admin/ops" {
		t.Errorf("intent: %v, %v", intent, err)
	}
}
