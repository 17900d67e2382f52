package daemon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/buddyring/buddyring/internal/member"
)

// parsed runs the command line and parses what it says.
func parsed(t *testing.T, args ...string) (settings, error) {
	t.Helper()
	boot := filepath.Join(t.TempDir(), "boot-id")
	if err := os.WriteFile(boot, []byte("this-boot\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var s settings
	root := newCommand(func(_ *cobra.Command, o *options) error {
		var err error
		s, err = o.parse(slog.New(slog.DiscardHandler))
		return err
	})
	root.SetArgs(append([]string{"--boot-id-file", boot}, args...))
	return s, root.ExecuteContext(t.Context())
}

func TestFlags(t *testing.T) {
	t.Parallel()
	s, err := parsed(t, "--coordinator", "c1:7400,c2:7400", "--pool", "web", "--id", "web-1", "--zone", "z1", "--rack", "r1",
		"--weight", "0", "--label", "a=b,c=d", "--label", "empty=", "--endpoint", "192.0.2.1:80", "--endpoint", "admin=http://web-1:81",
		"--probe-address", "192.0.2.1,2001:db8::1", "--probe", "tcp://:80", "--state-dir", "/x", "--on-term", "leave", "--leave-timeout", "3s",
		"--drain-timeout", "0")
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Pool: "web", ID: "web-1", Coordinators: []string{"c1:7400", "c2:7400"}, BootID: "this-boot", Version: s.agent.Version,
		Spec: member.Spec{
			ProbeAddresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
			Probe:          member.Probe{Method: member.ProbeTCP, Port: 80},
			Endpoints:      []member.Endpoint{{Address: "192.0.2.1:80"}, {Name: "admin", Protocol: "http", Address: "web-1:81"}},
			Zone:           "z1", Rack: "r1", Weight: 0, Labels: map[string]string{"a": "b,c=d", "empty": ""},
		},
	}
	if diff := cmp.Diff(want, s.agent, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if s.stateDir != "/x" || s.onTerm != onTermLeave || s.leaveTimeout != 3*time.Second || s.httpListen != "127.0.0.1:7602" {
		t.Errorf("%+v", s)
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	s, err := parsed(t, "--id", "a")
	if err != nil {
		t.Fatal(err)
	}
	if s.agent.Pool != member.DefaultPool || s.agent.Spec.Weight != member.DefaultWeight || s.onTerm != onTermAuto ||
		len(s.agent.Spec.ProbeAddresses) != 0 || s.agent.Spec.Probe != (member.Probe{}) || s.leaveTimeout != 10*time.Second || s.agent.DrainTimeout != 10*time.Second {
		t.Errorf("%+v", s)
	}
}

func TestMalformedFlagsAreNamed(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{
		"--check tcp://nowhere", "--check ftp://x:1", "--pool Web", "--id a_b", "--coordinator nowhere", "--coordinator c:0", "--probe-address host", "--probe-address 224.0.0.1",
		"--probe-address 192.0.2.1,192.0.2.2", "--probe udp", "--endpoint nothing", "--endpoint A=1.2.3.4:80", "--endpoint ://1.2.3.4:80,x",
		"--zone A", "--rack -", "--weight 10001", "--label x", "--label X=1", "--on-term stay", "--leave-timeout -1s", "--drain-timeout -1s", "--drain-timeout 11m",
		"--http-listen 7602", "--boot-id-file " + empty, "--tls-key x",
	} {
		flag, value, _ := strings.Cut(args, " ")
		want := strings.TrimPrefix(flag, "--")
		if want == "tls-key" {
			want = "tls-cert" // is what is missing
		}
		_, err := parsed(t, "--id", "a", flag, value)
		var field *member.FieldError
		if !errors.As(err, &field) || field.Field != want {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestTwiceTheSameLabel(t *testing.T) {
	t.Parallel()
	if _, err := parsed(t, "--id", "a", "--label", "k=1", "--label", "k=2"); !errors.Is(err, member.ErrInvalid) {
		t.Errorf("error %v", err)
	}
}

func TestDefaultStateDir(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		env  map[string]string
		uid  int
		want string
	}{
		{map[string]string{"STATE_DIRECTORY": "/var/lib/x:/var/lib/y", "HOME": "/h"}, 0, "/var/lib/x"},
		{map[string]string{"HOME": "/root"}, 0, systemStateDir},
		{map[string]string{"HOME": "/h"}, 1000, "/h/.local/state/buddyring/agent"},
		{map[string]string{"HOME": "/h", "XDG_STATE_HOME": "/s"}, 1000, "/s/buddyring/agent"},
		{nil, 1000, ""},
	} {
		got, err := defaultStateDir(func(k string) string { return c.env[k] }, c.uid)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%v as %d: %q, %v", c.env, c.uid, got, err)
		}
	}
}

// TestCertificateNamesTheServer: with TLS the name comes from the certificate,
// and flags that say otherwise are an error.
func TestCertificateNamesTheServer(t *testing.T) {
	t.Parallel()
	agent := certificate(t, "spiffe://example.org/buddyring/agent/web/web-1")
	s, err := parsed(t, agent...)
	if err != nil || s.agent.Pool != "web" || s.agent.ID != "web-1" || s.httpListen != ":7602" {
		t.Errorf("%+v, %v", s, err)
	}
	for name, args := range map[string][]string{
		"another id":   append([]string{"--id", "web-2"}, agent...),
		"another pool": append([]string{"--pool", "db"}, agent...),
		"another role": certificate(t, "spiffe://example.org/buddyring/router/r1"),
	} {
		var field *member.FieldError
		if _, err := parsed(t, args...); !errors.As(err, &field) || field.Field != "tls-cert" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// certificate returns flags that name a self-signed certificate for a URI.
func certificate(t *testing.T, uri string) []string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		URIs: []*url.URL{u}, IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var args []string
	for _, f := range []struct {
		flag, kind string
		der        []byte
	}{{"--tls-cert", "CERTIFICATE", cert}, {"--tls-key", "PRIVATE KEY", secret}, {"--tls-ca", "CERTIFICATE", cert}} {
		path := filepath.Join(dir, f.flag[2:])
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der}), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, f.flag, path)
	}
	return args
}

func TestBootID(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "boot-id")
	for content, ok := range map[string]bool{
		"6f1c\n": true, "": false, "two words": false, strings.Repeat("x", maxBootIDBytes+1): false, "ü": false,
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if id, err := readBootID(path); (err == nil) != ok || ok && id != strings.TrimSpace(content) {
			t.Errorf("%q: %q, %v", content, id, err)
		}
	}
	if _, err := readBootID(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a missing file: no error")
	}
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	home := netip.MustParseAddr("127.0.0.1")
	if got := newRoutes(true).find(t.Context(), "127.0.0.1:7400"); len(got) != 1 || got[0] != home {
		t.Errorf("to this host: %v", got)
	}
	if got := newRoutes(false).find(t.Context(), "127.0.0.1:7400"); len(got) != 0 {
		t.Errorf("to this host, local addresses not allowed: %v", got)
	}
	if got := newRoutes(true).find(t.Context(), "nonsense"); len(got) != 0 {
		t.Errorf("to nowhere: %v", got)
	}
}
