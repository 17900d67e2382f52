package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// service is the small HTTP service of one host: it says the host's name.
type service struct {
	server *http.Server
	ended  sync.WaitGroup
}

func serve(name string, lis net.Listener) *service {
	s := &service{server: &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, "hello from %s\n", name) // the client may be gone
		}),
		ReadHeaderTimeout: 5 * time.Second,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}}
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
