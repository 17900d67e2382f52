package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// service is the small service of one host. By HTTP it says the host's name, by
// gRPC, on the same port, that it is well; the name is then in the header.
type service struct {
	server *http.Server
	ended  sync.WaitGroup
}

func serve(name string, lis net.Listener) *service {
	calls := grpc.NewServer()
	healthv1.RegisterHealthServer(calls, health.NewServer())
	s := &service{server: &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Server", name)
			if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
				calls.ServeHTTP(w, r)
				return
			}
			_, _ = fmt.Fprintf(w, "hello from %s\n", name) // the client may be gone
		}),
		Protocols:         new(http.Protocols),
		ReadHeaderTimeout: 5 * time.Second,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}}
	s.server.Protocols.SetHTTP1(true)
	s.server.Protocols.SetUnencryptedHTTP2(true)
	s.ended.Go(func() {
		_ = s.server.Serve(lis) // it ends by close, or when its place is silenced
	})
	return s
}

// close ends the service and all its connections at once.
func (s *service) close() {
	_ = s.server.Close()
	s.ended.Wait()
}

// get calls a service from a place and checks that it answers.
func get(from place) func(ctx context.Context, address string) error {
	client := &http.Client{Transport: &http.Transport{
		DialContext: from.Dial,
		// Every request is a new client's.
		DisableKeepAlives: true,
	}}
	return func(ctx context.Context, address string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
		if err != nil {
			return fmt.Errorf("call %s: %w", address, err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return fmt.Errorf("call %s: %w", address, err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		err = errors.Join(err, resp.Body.Close())
		if err == nil && resp.StatusCode != http.StatusOK {
			err = errors.New(resp.Status)
		}
		if err != nil {
			return fmt.Errorf("call %s: %w", address, err)
		}
		return nil
	}
}
