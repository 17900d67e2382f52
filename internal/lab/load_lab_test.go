//go:build lab && linux

package lab_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/lab"
	"github.com/buddyring/buddyring/internal/netlab"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

const servicePort = "8080"

// service is the HTTP service of one host.
type service struct {
	server *http.Server
	ended  sync.WaitGroup
}

func (w *world) serve(id string) *service {
	w.t.Helper()
	host := w.Host(id)
	lis, err := host.Listen(w.t.Context(), "tcp", net.JoinHostPort(host.Addr().String(), servicePort))
	if err != nil {
		w.t.Fatal(err)
	}
	s := &service{server: &http.Server{
		ReadHeaderTimeout: patience,
		Handler:           http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(out, id) }),
	}}
	s.ended.Go(func() { _ = s.server.Serve(lis) })
	w.t.Cleanup(func() { _ = s.server.Close(); s.ended.Wait() })
	return s
}

// stop lets what is under way end, as a service does at SIGTERM.
func (s *service) stop(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.server.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	s.ended.Wait()
}

// load is clients that pick a server and make a new connection to it, over and
// over. Each knows all routers and asks the next one when one does not answer.
type load struct {
	w      *world
	client *http.Client

	asked, elsewhere atomic.Int64
	mu               sync.Mutex
	failures         []failure
}

// failure is a request that has failed, picked at a time.
type failure struct {
	picked time.Time
	server string
	err    error
}

const (
	pickTime    = 500 * time.Millisecond
	requestTime = 500 * time.Millisecond
	// loadPause is between two requests of a client.
	loadPause = 5 * time.Millisecond
)

// startLoad lets clients on a host ask until the returned function is called.
func (w *world) startLoad(from *netlab.Host, routers, clients int) (l *load, stop func()) {
	l = &load{w: w, client: &http.Client{
		Timeout:   requestTime,
		Transport: &http.Transport{DialContext: from.Dial, DisableKeepAlives: true},
	}}
	ctx, cancel := context.WithCancel(w.t.Context())
	var all sync.WaitGroup
	for n := range clients {
		all.Go(func() {
			for at := n; ctx.Err() == nil; time.Sleep(loadPause) {
				at = l.ask(ctx, at, routers)
			}
		})
	}
	stop = sync.OnceFunc(func() { cancel(); all.Wait() })
	w.t.Cleanup(stop)
	return l, stop
}

// ask makes one request by way of the first router that answers, and returns
// which that was.
func (l *load) ask(ctx context.Context, at, routers int) int {
	var errs []error
	for range routers {
		choice, err := l.pick(ctx, at%routers)
		picked := time.Now()
		if err == nil {
			err = l.get(ctx, choice.GetAddress())
			if ctx.Err() != nil {
				return at
			}
			l.asked.Add(1)
			if err != nil {
				l.fail(failure{picked, choice.GetServerId(), err})
			}
			return at
		}
		if ctx.Err() != nil {
			return at
		}
		l.elsewhere.Add(1)
		errs = append(errs, err)
		at++
	}
	l.asked.Add(1)
	l.fail(failure{time.Now(), "", errors.Join(errs...)})
	return at
}

func (l *load) pick(ctx context.Context, router int) (*routerv1.Choice, error) {
	ctx, cancel := context.WithTimeout(ctx, pickTime)
	defer cancel()
	answer, err := l.w.Router(router).Pick(ctx, &routerv1.PickRequest{Pool: lab.Pool})
	if err != nil {
		return nil, fmt.Errorf("pick from router %d: %w", router+1, err)
	}
	return answer.GetChoices()[0], nil
}

func (l *load) get(ctx context.Context, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return err
	}
	res, err := l.client.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return errors.Join(err, res.Body.Close())
}

func (l *load) fail(f failure) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = append(l.failures, f)
}

// take returns what has failed since it was called last, and how many requests
// there were.
func (l *load) take() (failures []failure, asked int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	failures, l.failures = l.failures, nil
	return failures, l.asked.Swap(0)
}

// noneFailed reports a stretch of the load in which nothing may fail.
func (l *load) noneFailed(what string) {
	l.w.t.Helper()
	failures, asked := l.take()
	l.w.t.Logf("%s: %d of %d requests failed, %d picks went to another router", what, len(failures), asked, l.elsewhere.Swap(0))
	for _, f := range failures[:min(len(failures), 5)] {
		l.w.t.Errorf("%s: picked %q at %s: %v", what, f.server, f.picked.Format(time.StampMilli), f.err)
	}
	if asked == 0 {
		l.w.t.Errorf("%s: nobody has asked", what)
	}
}
