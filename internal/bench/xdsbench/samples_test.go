package xdsbench_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"github.com/goccy/go-yaml"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/buddyring/buddyring/buddyctl/pki"
	"github.com/buddyring/buddyring/internal/bench/xdsbench"
	"github.com/buddyring/buddyring/internal/freeport"
	"github.com/buddyring/buddyring/internal/rpc"
)

func sample(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../../../deploy/xds", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// replaced returns data with each old text replaced, all of which must be in it.
func replaced(t *testing.T, data []byte, texts map[string]string) []byte {
	t.Helper()
	for before, after := range texts {
		if !bytes.Contains(data, []byte(before)) {
			t.Fatalf("the sample has no %s", before)
		}
		data = bytes.ReplaceAll(data, []byte(before), []byte(after))
	}
	return data
}

// The first router of the sample does not exist: the client goes to the second.
func TestTheSampleBootstrapWithoutTLS(t *testing.T) {
	l := newLab(t, 1)
	bootstrap := replaced(t, sample(t, "bootstrap-plaintext.json"), map[string]string{
		"127.0.0.1:7500": "127.0.0.1:1", "127.0.0.1:7510": l.RouterAddress,
	})
	conn, err := xdsbench.Dial(bootstrap, "xds:///web")
	l.must(err)
	defer func() { l.must(conn.Close()) }()
	l.must(xdsbench.Call(t.Context(), conn, 0))
}

func TestTheSampleBootstrapWithTLS(t *testing.T) {
	dir := t.TempDir()
	l := &lab{t: t}
	authority, err := pki.NewAuthority("example.org", time.Now(), 24*time.Hour)
	l.must(err)
	ca, err := authority.Save(filepath.Join(dir, "ca"))
	l.must(err)
	at, err := freeport.Find(t.Context())
	l.must(err)
	host, _, err := net.SplitHostPort(at)
	l.must(err)
	issue := func(role rpc.Role, name string) rpc.Security {
		cert, err := authority.Issue(pki.Wanted{
			Identity: rpc.Identity{Role: role, Name: name}, Hosts: []string{"127.0.0.1", host}, Valid: time.Hour,
		}, time.Now())
		l.must(err)
		files, err := cert.Save(dir, name)
		l.must(err)
		return rpc.Security{CertFile: files.Cert, KeyFile: files.Key, CAFile: ca.Cert}
	}
	client := issue(rpc.RoleRouter, "shop")
	l.Lab, err = xdsbench.NewLab(t.Context(), xdsbench.Config{
		Dir: filepath.Join(dir, "state"), RouterAddress: at,
		Coordinator: issue(rpc.RoleCoordinator, "c1"), Router: issue(rpc.RoleRouter, "r1"),
	})
	l.must(err)
	t.Cleanup(func() { l.must(l.Close()) })
	servers, err := l.Servers(t.Context(), 1)
	l.must(err)
	l.Put("web", servers[0].Row())
	l.must(l.StartRouter(context.WithoutCancel(t.Context())))
	bootstrap := replaced(t, sample(t, "bootstrap.json"), map[string]string{
		"router-1.example.org:7500": l.RouterAddress, "router-2.example.org:7500": "127.0.0.1:1",
		"/etc/buddyring/ca.crt": client.CAFile, "/etc/buddyring/client.crt": client.CertFile, "/etc/buddyring/client.key": client.KeyFile,
	})
	conn, err := xdsbench.Dial(bootstrap, "xds:///web")
	l.must(err)
	defer func() { l.must(conn.Close()) }()
	l.must(xdsbench.Call(t.Context(), conn, 0))
}

// Envoy would take the samples: they are what its schema allows.
func TestTheSampleEnvoyConfigurations(t *testing.T) {
	for name, m := range map[string]interface {
		proto.Message
		ValidateAll() error
	}{
		"envoy.yaml": &bootstrapv3.Bootstrap{}, "envoy-eds.yaml": &clusterv3.Cluster{},
	} {
		data, err := yaml.YAMLToJSON(sample(t, name))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := protojson.Unmarshal(data, m); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := m.ValidateAll(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
