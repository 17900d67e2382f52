package observe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
)

const (
	httpTimeout    = 10 * time.Second
	httpIdle       = time.Minute
	httpStop       = time.Second
	maxHeaderBytes = 8 << 10
	maxScrapes     = 8
)

// HTTPConfig configures the HTTP server.
type HTTPConfig struct {
	// TLS is nil for plaintext. With it, /metrics wants a client certificate;
	// the health pages do not.
	TLS      *tls.Config
	Registry *prometheus.Registry
	// Ready says why the process is not ready, or nil; it must not block.
	Ready func() error
	// Says is added to the answer of a process that is ready; nil, or "", for nothing.
	Says   func() string
	Logger *slog.Logger
	// Pages are further pages by pattern of http.ServeMux. With TLS they too want a
	// client certificate.
	Pages map[string]http.Handler
}

// HTTP is a server with limits on what one client may cost.
type HTTP struct {
	tls    *tls.Config
	server *http.Server
}

// NewHTTP returns a server of /metrics, /livez and /readyz that does nothing until
// Serve.
func NewHTTP(cfg HTTPConfig) *HTTP {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", certified(cfg.TLS != nil, promhttp.HandlerFor(cfg.Registry, promhttp.HandlerOpts{
		Registry: cfg.Registry, EnableOpenMetrics: true, MaxRequestsInFlight: maxScrapes, Timeout: httpTimeout,
	})))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { answer(w, nil, nil) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { answer(w, cfg.Ready(), cfg.Says) })
	for pattern, page := range cfg.Pages {
		mux.Handle(pattern, certified(cfg.TLS != nil, page))
	}
	return NewServer(cfg.TLS, mux, cfg.Logger)
}

// NewServer returns a server of a handler that does nothing until Serve. TLS is nil
// for plaintext.
func NewServer(security *tls.Config, handler http.Handler, log *slog.Logger) *HTTP {
	return &HTTP{tls: security, server: &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: httpTimeout,
		ReadTimeout:       httpTimeout,
		WriteTimeout:      2 * httpTimeout,
		IdleTimeout:       httpIdle,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
}

// Serve serves lis, which it closes, until ctx ends; then it returns nil. The
// contexts of requests end with ctx.
func (h *HTTP) Serve(ctx context.Context, lis net.Listener) error {
	if h.tls != nil {
		lis = tls.NewListener(lis, h.tls)
	}
	g, ctx := errgroup.WithContext(ctx)
	h.server.BaseContext = func(net.Listener) context.Context { return ctx }
	g.Go(func() error {
		if err := h.server.Serve(lis); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve http on %s: %w", lis.Addr(), err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpStop)
		defer cancel()
		if h.server.Shutdown(stop) != nil {
			return h.server.Close()
		}
		return nil
	})
	return g.Wait()
}

func answer(w http.ResponseWriter, err error, says func() string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	text := "ok"
	switch {
	case err != nil:
		w.WriteHeader(http.StatusServiceUnavailable)
		text = err.Error()
	case says != nil:
		if more := says(); more != "" {
			text += ": " + more
		}
	}
	// A client that is gone needs no answer.
	_, _ = io.WriteString(w, text+"\n")
}

// certified lets only clients with a verified certificate through.
func certified(needed bool, next http.Handler) http.Handler {
	if !needed {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			http.Error(w, "a client certificate is needed", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}
