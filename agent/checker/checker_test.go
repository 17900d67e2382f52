package checker

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/buddyring/buddyring/internal/member"
)

func TestMalformedChecksNameTheField(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"", "tcp", "tcp://", "tcp://host", "tcp://host:0", "tcp://host:http", "tcp://host:80/path", "tcp://u@host:80",
		"grpc://host", "grpc://u@host:80", "grpc://host:80/s?x", "http://", "http://ho st/", "http://host:99999/", "http:host",
		"https://[::1", "https://0.0.0.0/", "exec:", "exec: ", "udp://host:1", "host:80", "ftp://host/",
	} {
		var field *member.FieldError
		if _, err := Parse("check", s); !errors.As(err, &field) || field.Field != "check" {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"tcp://[::1]:80", "http://web-1/health?full=1", "https://10.0.0.1:8443", "grpc://h:1", "grpc://h:1/a.B", "exec:test -f /run/x",
	} {
		if c, err := Parse("check", s); err != nil || c.String() != s {
			t.Errorf("%q: %q, %v", s, c, err)
		}
	}
	if c, err := Parse("check", "http://me:secret@h/"); err != nil || strings.Contains(c.String(), "secret") {
		t.Errorf("%q, %v", c, err)
	}
}

// run makes a check once, with time enough.
func run(t *testing.T, s string) error {
	t.Helper()
	c, err := Parse("check", s)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return c.Run(ctx)
}

func passes(t *testing.T, s string) {
	t.Helper()
	if err := run(t, s); err != nil {
		t.Errorf("%s: %v", s, err)
	}
}

func fails(t *testing.T, s, with string) {
	t.Helper()
	if err := run(t, s); err == nil || !strings.Contains(err.Error(), with) {
		t.Errorf("%s: %v, want %q", s, err, with)
	}
}

// closed is an address at which nobody listens, and that is given to nobody who
// asks for any.
const closed = "127.0.0.1:1"

// listen returns the address of a listener whose connections wait for ever.
func listen(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lis.Close() })
	return lis.Addr().String()
}

func TestTCP(t *testing.T) {
	t.Parallel()
	passes(t, "tcp://"+listen(t))
	fails(t, "tcp://"+closed, "refused")
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			w.WriteHeader(http.StatusNoContent)
		case "/moved":
			http.Redirect(w, r, "/broken", http.StatusFound)
		default:
			http.Error(w, "no", http.StatusServiceUnavailable)
		}
	})
	plain, secured := httptest.NewServer(serve), httptest.NewTLSServer(serve)
	t.Cleanup(plain.Close)
	t.Cleanup(secured.Close)
	for _, base := range []string{plain.URL, secured.URL} {
		passes(t, base+"/ok")
		passes(t, base+"/moved")
		fails(t, base+"/broken", "503")
	}
	fails(t, "http://"+closed, "refused")
}

func TestGRPC(t *testing.T) {
	t.Parallel()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv, states := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(srv, states)
	states.SetServingStatus("shop.v1.Orders", healthpb.HealthCheckResponse_NOT_SERVING)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	url := "grpc://" + lis.Addr().String()
	passes(t, url)
	fails(t, url+"/shop.v1.Orders", "NOT_SERVING")
	fails(t, url+"/shop.v1.Unknown", "unknown service")
	fails(t, "grpc://"+closed, "refused")
}

func TestExec(t *testing.T) {
	t.Parallel()
	passes(t, "exec:test 1 -lt 2 && true")
	fails(t, "exec:echo one; echo disk is gone; exit 3", "exit status 3: disk is gone")
}

// TestHungService: what accepts connections and says nothing ends a check with
// its context.
func TestHungService(t *testing.T) {
	t.Parallel()
	silent := listen(t)
	for _, s := range []string{"http://" + silent, "https://" + silent, "grpc://" + silent, "exec:sleep 1000"} {
		t.Run(s, func(t *testing.T) {
			t.Parallel()
			c, err := Parse("check", s)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			began := time.Now()
			if err := c.Run(ctx); err == nil || time.Since(began) > time.Minute {
				t.Errorf("%v after %v", err, time.Since(began))
			}
		})
	}
}
