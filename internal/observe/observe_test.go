package observe_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/buddyring/buddyring/internal/leak"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/observe"
)

func TestMain(m *testing.M) { leak.Main(m) }

// lines are the log lines written so far.
func lines(t *testing.T, buf *strings.Builder) []map[string]any {
	t.Helper()
	var out []map[string]any
	for text := range strings.Lines(buf.String()) {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatal(err)
		}
		out = append(out, line)
	}
	return out
}

func logger(t *testing.T, cfg observe.LogConfig) (*slog.Logger, *strings.Builder) {
	t.Helper()
	buf := &strings.Builder{}
	log, err := observe.NewLogger(buf, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return log, buf
}

func TestRepeatedLinesAreCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, buf := logger(t, observe.LogConfig{Format: "json"})
		for range 10 {
			log.Warn("session refused", "server_id", "a", "attempt", 1)
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Second)
		log.Warn("session refused", "server_id", "a")
		time.Sleep(time.Second)
		log.Warn("session refused", "server_id", "a")
		got := lines(t, buf)
		if len(got) != 3 {
			t.Fatalf("%d lines: %s", len(got), buf)
		}
		for i, want := range []any{nil, 9.0, nil} {
			if got[i]["suppressed"] != want {
				t.Errorf("line %d: suppressed %v, want %v", i, got[i]["suppressed"], want)
			}
		}
	})
}

func TestDifferentLinesAllAppear(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, buf := logger(t, observe.LogConfig{Format: "json"})
		log.Warn("session refused", "server_id", "a")
		log.Warn("session refused", "server_id", "b")
		log.Error("session refused", "server_id", "a")
		log.Warn("session lost", "server_id", "a")
		log.With("pool", "web").Warn("session lost", "server_id", "a")
		log.With("pool", "db").WithGroup("g").Warn("session lost", "server_id", "a")
		for range 3 {
			log.Info("server joined")
		}
		if got := lines(t, buf); len(got) != 9 {
			t.Errorf("%d lines: %s", len(got), buf)
		}
	})
}

func TestManyDifferentLinesStayBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, buf := logger(t, observe.LogConfig{Format: "json"})
		for i := range 10_000 {
			log.Warn("session refused", "server_id", i)
		}
		if n := len(lines(t, buf)); n > 5000 {
			t.Errorf("%d lines", n)
		}
		time.Sleep(time.Second)
		log.Warn("session refused", "server_id", 9_999)
		got := lines(t, buf)
		if last := got[len(got)-1]; last["server_id"] != 9999.0 {
			t.Errorf("a second later the line is still held back: %v", last)
		}
	})
}

func TestLoggerFormatsAndLevels(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		cfg  observe.LogConfig
		want string
	}{
		{observe.LogConfig{}, "level=INFO"},
		{observe.LogConfig{Format: "text", Level: "debug"}, "level=INFO"},
		{observe.LogConfig{Format: "json", Level: "info"}, `"level":"INFO"`},
		{observe.LogConfig{Level: "warn"}, ""},
		{observe.LogConfig{Level: "error"}, ""},
	} {
		log, buf := logger(t, tt.cfg)
		log.Info("started")
		if tt.want == "" && buf.Len() > 0 || !strings.Contains(buf.String(), tt.want) {
			t.Errorf("%+v: %q", tt.cfg, buf)
		}
	}
	for field, cfg := range map[string]observe.LogConfig{"log-level": {Level: "loud"}, "log-format": {Format: "xml"}} {
		var bad *member.FieldError
		if _, err := observe.NewLogger(io.Discard, cfg); !errors.As(err, &bad) || bad.Field != field {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

// page fetches a page of a server that ends with the test.
func page(t *testing.T, cfg observe.HTTPConfig) func(path string) (int, string) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- observe.NewHTTP(cfg).Serve(ctx, lis) }()
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return func(path string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+lis.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(body)
	}
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	ready := make(chan error, 1)
	get := page(t, observe.HTTPConfig{
		Registry: observe.NewRegistry("agent"),
		Ready:    func() error { return <-ready },
	})
	if code, body := get("/livez"); code != http.StatusOK || body != "ok\n" {
		t.Errorf("/livez: %d %q", code, body)
	}
	ready <- errors.New("no assignment yet")
	if code, body := get("/readyz"); code != http.StatusServiceUnavailable || body != "no assignment yet\n" {
		t.Errorf("/readyz: %d %q", code, body)
	}
	ready <- nil
	if code, _ := get("/readyz"); code != http.StatusOK {
		t.Errorf("/readyz: %d", code)
	}
	code, body := get("/metrics")
	for _, want := range []string{`buddyring_build_info{component="agent"`, "go_goroutines", "process_open_fds"} {
		if code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("/metrics: %d without %s", code, want)
		}
	}
	if code, _ := get("/other"); code != http.StatusNotFound {
		t.Errorf("/other: %d", code)
	}
}

func TestSecondsIsAlsoNative(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	h := prometheus.NewHistogram(observe.Seconds("x_seconds", "X.", 1, 2))
	reg.MustRegister(h)
	h.Observe(1.5)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := families[0].GetMetric()[0].GetHistogram()
	if len(got.GetBucket()) != 2 || len(got.GetPositiveSpan()) == 0 {
		t.Errorf("got %v", got)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}
