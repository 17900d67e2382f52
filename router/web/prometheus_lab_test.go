//go:build lab

package web

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buddyring/buddyring/internal/freeport"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/observe"
	"github.com/buddyring/buddyring/router/view"
)

const sample = "../../deploy/prometheus.yml"

// patience is how long Prometheus may take to follow: it asks every second here.
const patience = time.Minute

// listening is where Prometheus says that it listens.
var listening = regexp.MustCompile(`msg="Listening on" address=(\S+)`)

// startPrometheus runs a real Prometheus with the sample configuration, asking a
// door every second, until the test ends. It returns its address.
func startPrometheus(t *testing.T, door string) string {
	t.Helper()
	text, err := os.ReadFile(sample)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"127.0.0.1:7502", "refresh_interval: 5s"} {
		if !strings.Contains(string(text), part) {
			t.Fatalf("%s has no %q", sample, part)
		}
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	text = []byte(strings.NewReplacer("127.0.0.1:7502", door, "refresh_interval: 5s", "refresh_interval: 1s").Replace(string(text)))
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("prometheus", "--config.file", config, "--storage.tsdb.path", filepath.Join(dir, "data"),
		"--web.listen-address", "127.0.0.1:0")
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address, ended := make(chan string, 1), make(chan struct{})
	var said strings.Builder
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(log)
		for lines.Scan() {
			said.WriteString(lines.Text() + "\n")
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				address <- m[1]
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("prometheus said:\n%s", &said)
		}
	})
	select {
	case a := <-address:
		return a
	case <-ended:
	case <-time.After(patience):
	}
	t.Fatal("prometheus does not listen")
	return ""
}

// serveDoor runs a door at an address until the test ends or stop is called.
func serveDoor(t *testing.T, p *pools, address string) (stop func()) {
	t.Helper()
	lis, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- observe.NewServer(nil, newDoor(t, p), slog.New(slog.DiscardHandler)).Serve(ctx, lis)
	}()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// scraped is what Prometheus scrapes: "SERVER POOL ZONE STATE", sorted.
func scraped(t *testing.T, prometheus string) []string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + prometheus + "/api/v1/targets?state=active")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var answer struct {
		Data struct {
			ActiveTargets []struct {
				Labels    map[string]string `json:"labels"`
				ScrapeURL string            `json:"scrapeUrl"`
			} `json:"activeTargets"`
		} `json:"data"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil && res.StatusCode == http.StatusOK {
		t.Fatal(err)
	}
	out := []string{}
	for _, target := range answer.Data.ActiveTargets {
		l := target.Labels
		out = append(out, fmt.Sprintf("%s %s %s %s %s", target.ScrapeURL, l["server_id"], l["pool"], l["zone"], l["state"]))
	}
	slices.Sort(out)
	return out
}

func awaitScraped(t *testing.T, prometheus string, want ...string) {
	t.Helper()
	want = append([]string{}, want...)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; <-tick.C {
		diff := cmp.Diff(want, scraped(t, prometheus))
		if diff == "" {
			return
		}
		if time.Since(began) > patience {
			t.Fatalf("what Prometheus scrapes (-want +got):\n%s", diff)
		}
	}
}

// A real Prometheus follows the pool with the sample configuration, knows the
// states, and keeps what it has while no router answers or one that has seen
// nothing does.
func TestPrometheusFollowsThePool(t *testing.T) {
	t.Parallel()
	one := func(id member.ID, zone string) *view.Server {
		s := server(id, zone)
		s.Endpoints[1].Address = "127.0.0.1:1"
		return s
	}
	p := &pools{}
	now := pool("default", 1, one("web-1", "eu"), one("web-2", "us"))
	p.set(now)
	address, err := freeport.Find(t.Context()) // it is left and taken again
	if err != nil {
		t.Fatal(err)
	}
	stop := serveDoor(t, p, address)
	prometheus := startPrometheus(t, address)
	const url = "http://127.0.0.1:1/metrics "
	awaitScraped(t, prometheus, url+"web-1 default eu active", url+"web-2 default us active")
	p.set(suspect(now, "web-1"))
	awaitScraped(t, prometheus, url+"web-1 default eu suspect", url+"web-2 default us active")
	p.set(pool("default", 2, one("web-2", "us")))
	awaitScraped(t, prometheus, url+"web-2 default us active")

	stop()
	asked := make(chan struct{}, 16)
	empty := &pools{asked: asked}
	serveDoor(t, empty, address)
	for range 2 { // the second time Prometheus has dealt with the first
		<-asked
	}
	awaitScraped(t, prometheus, url+"web-2 default us active")
	empty.set(pool("default", 3))
	awaitScraped(t, prometheus)
}
