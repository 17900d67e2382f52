package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/buddyring/buddyring/client"
)

// fakeBase is what sends requests: it answers with the address and the Host of
// the request, or fails as told.
type fakeBase struct {
	// fail are the errors by address.
	fail map[string]error
	// seen are the addresses in the order of attempts.
	seen []string
}

var (
	errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	errReset   = &net.OpError{Op: "read", Net: "tcp", Err: errors.New("connection reset by peer")}
)

func (b *fakeBase) RoundTrip(req *http.Request) (*http.Response, error) {
	b.seen = append(b.seen, req.URL.Host)
	var body string
	if req.Body != nil {
		text, err := io.ReadAll(req.Body)
		if err := errors.Join(err, req.Body.Close()); err != nil {
			return nil, err
		}
		body = " " + string(text)
	}
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	if err := b.fail[req.URL.Host]; err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: http.StatusOK, Request: req, Body: io.NopCloser(strings.NewReader(req.URL.Host + " " + req.Host + body)),
	}, nil
}

// inHTTP gives a test a transport for a pool of a, b and, suspect, c.
func inHTTP(t *testing.T, test func(t *testing.T, tr *client.Transport, base *fakeBase)) {
	t.Helper()
	inWorld(t, func(t *testing.T, w *world) {
		p := w.open(w.config(first))
		w.router(first).session().snapshot(1, 1, "a", "b", "suspect c")
		base := &fakeBase{fail: map[string]error{}}
		test(t, &client.Transport{Pool: p, Base: base}, base)
	})
}

// ask sends a request with a body, if it is not empty.
func ask(t *testing.T, tr http.RoundTripper, method, body string) (string, error) {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://shop/cart", reader)
	if err != nil {
		t.Fatal(err)
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return "", err
	}
	if res.Request != req {
		t.Error("the response is of another request")
	}
	text, err := io.ReadAll(res.Body)
	return string(text), errors.Join(err, res.Body.Close())
}

func TestTransport_SpreadsRequests(t *testing.T) {
	t.Parallel()
	inHTTP(t, func(t *testing.T, tr *client.Transport, _ *fakeBase) {
		counts := map[string]int{}
		for range 100 {
			text, err := ask(t, tr, http.MethodPost, "body")
			if err != nil {
				t.Fatal(err)
			}
			counts[text]++
		}
		if len(counts) != 2 || counts["a.test:80 shop body"] < 20 || counts["b.test:80 shop body"] < 20 {
			t.Error(counts)
		}
	})
}

func TestTransport_WhatIsTriedAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		method, body string
		err          error
		again        bool
	}{
		"not sent":         {http.MethodGet, "", errRefused, true},
		"not sent, a body": {http.MethodPost, "body", errRefused, true},
		"lost, safe":       {http.MethodGet, "", errReset, true},
		"lost, idempotent": {http.MethodPut, "body", errReset, true},
		"lost, neither":    {http.MethodPost, "body", errReset, false},
		"lost, patch":      {http.MethodPatch, "", errReset, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inHTTP(t, func(t *testing.T, tr *client.Transport, base *fakeBase) {
				base.fail["a.test:80"] = c.err
				failed := 0
				for range 30 {
					text, err := ask(t, tr, c.method, c.body)
					if err != nil {
						failed++
						if !errors.Is(err, c.err) || !strings.Contains(err.Error(), "server a:") {
							t.Error(err)
						}
					} else if text != strings.TrimSpace("b.test:80 shop "+c.body) {
						t.Errorf("answer %q", text)
					}
				}
				if (failed == 0) != c.again {
					t.Errorf("%d failed", failed)
				}
			})
		})
	}
}

func TestTransport_TriesEachServerOnceAndNotForEver(t *testing.T) {
	t.Parallel()
	inHTTP(t, func(t *testing.T, tr *client.Transport, base *fakeBase) {
		for _, id := range []string{"a", "b", "c"} {
			base.fail[id+".test:80"] = errRefused
		}
		if _, err := ask(t, tr, http.MethodGet, ""); !errors.Is(err, errRefused) {
			t.Error(err)
		}
		if len(base.seen) != 3 || base.seen[0] == base.seen[1] || base.seen[2] != "c.test:80" {
			t.Errorf("three attempts: %v", base.seen)
		}
		base.seen = nil
		tr.Attempts = 2
		if _, err := ask(t, tr, http.MethodGet, ""); err == nil || len(base.seen) != 2 {
			t.Errorf("two attempts: %v, %v", base.seen, err)
		}
		base.seen = nil
		tr.Attempts = 9
		if _, err := ask(t, tr, http.MethodGet, ""); !errors.Is(err, errRefused) || !errors.Is(err, client.ErrNoServer) || len(base.seen) != 3 {
			t.Errorf("nine attempts on three servers: %v, %v", base.seen, err)
		}
	})
}

func TestTransport_BodyThatCannotBeRepeatedIsNot(t *testing.T) {
	t.Parallel()
	inHTTP(t, func(t *testing.T, tr *client.Transport, base *fakeBase) {
		for _, id := range []string{"a", "b", "c"} {
			base.fail[id+".test:80"] = errRefused
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://shop/", io.MultiReader(strings.NewReader("once")))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tr.RoundTrip(req); !errors.Is(err, errRefused) || len(base.seen) != 1 {
			t.Errorf("%v, %v", base.seen, err)
		}
	})
}

func TestTransport_IdempotencyKey(t *testing.T) {
	t.Parallel()
	inHTTP(t, func(t *testing.T, tr *client.Transport, base *fakeBase) {
		base.fail["a.test:80"], base.fail["b.test:80"] = errReset, errReset
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://shop/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Idempotency-Key", "7")
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := res.Body.Close(); err != nil || len(base.seen) != 3 {
			t.Errorf("%v, %v", base.seen, err)
		}
	})
}

func TestTransport_CancelledRequestIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	inHTTP(t, func(t *testing.T, tr *client.Transport, base *fakeBase) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://shop/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tr.RoundTrip(req); !errors.Is(err, context.Canceled) || len(base.seen) != 1 {
			t.Errorf("%v, %v", base.seen, err)
		}
	})
}

func TestTransport_ChooseSaysWhichServer(t *testing.T) {
	t.Parallel()
	inHTTP(t, func(t *testing.T, tr *client.Transport, base *fakeBase) {
		exclude := make([]string, 1, 8)
		exclude[0] = "a"
		tr.Choose = func(*http.Request) client.Request { return client.Request{Endpoint: "admin", Exclude: exclude} }
		base.fail["b.test:81"] = errRefused
		for range 10 {
			if text, err := ask(t, tr, http.MethodGet, ""); err != nil || text != "c.test:81 shop" {
				t.Errorf("%q, %v", text, err)
			}
		}
		if exclude[:2][1] != "" {
			t.Error("the caller's list is written to")
		}
	})
}

func TestTransport_CountsUntilTheBodyEnds(t *testing.T) {
	t.Parallel()
	inHTTP(t, func(t *testing.T, tr *client.Transport, _ *fakeBase) {
		tr.Choose = func(*http.Request) client.Request { return client.Request{Exclude: []string{"b"}} }
		var open []io.Closer
		for range 5 {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://shop/", nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, res.Body)
		}
		if got := picks(t, tr.Pool, 50, client.Request{}); got["b"] != 50 {
			t.Errorf("with five open bodies of a: %v", got)
		}
		for _, body := range append(open, open...) {
			_ = body.Close()
		}
		if got := picks(t, tr.Pool, 100, client.Request{}); got["a"] < 20 || got["b"] < 20 {
			t.Errorf("with none: %v", got)
		}
	})
}

func TestTransport_WaitsForTheFirstView(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		tr := &client.Transport{Pool: w.open(w.config(first)), Base: &fakeBase{}}
		time.Sleep(time.Second)
		if _, err := ask(t, tr, http.MethodPost, "body"); !errors.Is(err, client.ErrUnknown) {
			t.Errorf("with a router that is not there: %v", err)
		}
	})
	inWorld(t, func(t *testing.T, w *world) {
		r := w.router(first)
		tr := &client.Transport{Pool: w.open(w.config(first)), Base: &fakeBase{}}
		answered := make(chan error, 1)
		go func() {
			_, err := ask(t, tr, http.MethodPost, "body")
			answered <- err
		}()
		s := r.session()
		time.Sleep(time.Second)
		s.snapshot(1, 1, "a")
		if err := <-answered; err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		other := w.config(second)
		w.router(second)
		tr = &client.Transport{Pool: w.open(other), Base: &fakeBase{}}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://shop/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tr.RoundTrip(req); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, client.ErrUnknown) {
			t.Errorf("with a router that says nothing in time: %v", err)
		}
	})
}

// TestTransport_OverTCP uses the transport's own base, with real servers.
func TestTransport_OverTCP(t *testing.T) {
	t.Parallel()
	var hits atomic.Int64
	lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		hits.Add(1)
		body, _ := io.ReadAll(req.Body)
		fmt.Fprintf(rw, "%s %s", req.Host, body)
	})}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }()
	defer func() {
		_ = srv.Close()
		<-served
	}()
	shop := openShop(serverRow("a", lis.Addr().String(), nobody), serverRow("b", nobody, nobody))
	defer shop.close()
	p, err := client.Open(client.Config{Pool: "web", Routers: shop.routers, Credentials: routerCreds})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	tr := &client.Transport{Pool: p}
	defer tr.CloseIdleConnections()
	for range 20 {
		if text, err := ask(t, tr, http.MethodPost, "body"); err != nil || text != "shop body" {
			t.Errorf("%q, %v", text, err)
		}
	}
	if n := hits.Load(); n != 20 {
		t.Errorf("%d requests arrived", n)
	}
}

// nobody is an address at which nobody listens, and that is given to nobody who
// asks for any.
const nobody = "127.0.0.1:1"
