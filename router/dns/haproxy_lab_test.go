//go:build lab

package dns_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

const sample = "../../deploy/haproxy.cfg"

// haproxy is a real HAProxy with the sample configuration.
type haproxy struct {
	t     *testing.T
	stats string
	front string
}

// startHAProxy runs the sample with other addresses, and with more replacements in
// pairs, until the test ends.
func startHAProxy(t *testing.T, nameserver string, more ...string) *haproxy {
	t.Helper()
	text, err := os.ReadFile(sample)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	h := &haproxy{t: t, stats: filepath.Join(dir, "stats"), front: filepath.Join(dir, "front")}
	replacements := append([]string{
		"/run/haproxy/buddyring.sock", h.stats, "127.0.0.1:8080", "unix@" + h.front, "127.0.0.1:7553", nameserver,
	}, more...)
	for i := 0; i < len(replacements); i += 2 {
		if !strings.Contains(string(text), replacements[i]) {
			t.Fatalf("%s has no %q", sample, replacements[i])
		}
	}
	config := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(config, []byte(strings.NewReplacer(replacements...).Replace(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command("haproxy", "-db", "-f", config)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin")
	cmd.Stdout, cmd.Stderr = &log, &log
	if cmd.Err != nil {
		cmd.Path, cmd.Err = "/usr/sbin/haproxy", nil
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("haproxy said:\n%s", &log)
		}
	})
	return h
}

// servers are the addresses that HAProxy sends requests to.
func (h *haproxy) servers() map[string]bool {
	conn, err := net.Dial("unix", h.stats)
	if err != nil {
		return nil // it is starting
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "show servers state web\n"); err != nil {
		h.t.Fatal(err)
	}
	text, err := io.ReadAll(conn)
	if err != nil {
		h.t.Fatal(err)
	}
	// A server is up when its operational state is 2, and no bit of the
	// administrative one is set but that its name came from SRV.
	const addr, state, admin, running, bySRV = 4, 5, 6, "2", "64"
	up := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > admin && f[state] == running && f[admin] == bySRV {
			up[f[addr]] = true
		}
	}
	return up
}

// await returns how long it takes until HAProxy has n servers.
func (h *haproxy) await(n int) time.Duration {
	h.t.Helper()
	began := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		got := len(h.servers())
		if got == n {
			return time.Since(began)
		}
		if time.Since(began) > patience {
			h.t.Fatalf("HAProxy has %d servers, want %d", got, n)
		}
	}
	return 0
}

// The sample follows the pool over TCP, whatever its size, and a removal is seen
// within two seconds or so.
func TestHAProxyFollowsThePool(t *testing.T) {
	t.Parallel()
	p := &pools{}
	p.set(map[member.Pool]int{"default": 1})
	address, _ := serve(t, p)
	h := startHAProxy(t, address)
	for _, n := range []int{1, 10, 50, 200, 199, 1} {
		p.set(map[member.Pool]int{"default": n})
		t.Logf("%d servers after %v", n, h.await(n))
	}
}

// By UDP HAProxy sees what fits into the size that it asks for. It would take a part
// of an answer for the whole and drop the other servers; so it gets none, and keeps
// what it has.
func TestHAProxyByUDP(t *testing.T) {
	t.Parallel()
	p := &pools{}
	p.set(map[member.Pool]int{"default": 1})
	address, reg := serve(t, p)
	h := startHAProxy(t, address, "nameserver router1 tcp@", "nameserver router1 ", "accepted_payload_size 65535", "accepted_payload_size 8192")
	for _, n := range []int{1, 10, 50, 49} {
		p.set(map[member.Pool]int{"default": n})
		t.Logf("%d servers after %v", n, h.await(n))
	}
	p.set(map[member.Pool]int{"default": 200})
	for cut := value(t, reg, "buddyring_router_dns_truncated_total"); value(t, reg, "buddyring_router_dns_truncated_total") < cut+3; {
		if got := len(h.servers()); got != 49 {
			t.Fatalf("HAProxy has %d servers of a cut answer, want the 49 that it had", got)
		}
	}
}

// Requests through HAProxy reach every server of the pool, and none that has been
// removed.
func TestHAProxySendsWhereThePoolIs(t *testing.T) {
	t.Parallel()
	service, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.Context().Value(http.LocalAddrContextKey))
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(service)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	_, port, err := net.SplitHostPort(service.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	p := &pools{at: func(i int) string { return fmt.Sprintf("127.77.0.%d:%s", i+1, port) }}
	p.set(map[member.Pool]int{"default": 5})
	address, _ := serve(t, p)
	h := startHAProxy(t, address)
	client := &http.Client{Transport: &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", h.front) },
		DisableKeepAlives: true,
	}}
	for _, n := range []int{5, 2} {
		p.set(map[member.Pool]int{"default": n})
		h.await(n)
		reached := map[string]int{}
		for range 200 {
			res, err := client.Get("http://haproxy/")
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != http.StatusOK {
				t.Fatalf("%s, %v", res.Status, err)
			}
			_ = res.Body.Close()
			reached[string(text)]++
		}
		if len(reached) != n {
			t.Errorf("with %d servers requests reached %v", n, reached)
		}
	}
}
