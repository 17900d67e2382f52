// Package web is the HTTP door of a router: the pools as JSON, with conditional
// and blocking requests, and targets for Prometheus.
//
// Answers are encoded once per state of a pool, and a request that waits costs
// its connection and nothing more. It decides nothing about who may get work.
package web

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/quota"
	"github.com/buddyring/buddyring/router/door"
)

const (
	// maxQuery is the longest query string that is looked at.
	maxQuery = 1024
	// maxWaiters is how many requests may wait at a time, half of them from one source.
	maxWaiters = 4096
	// writeTime is how long a client may take for its answer.
	writeTime = 20 * time.Second
)

// Deps are what the door needs from its process.
type Deps struct {
	Pools    door.Pools
	Registry *prometheus.Registry
}

// Door is the HTTP door. It is safe for concurrent use. A request whose context ends
// waits no longer.
type Door struct {
	pools   door.Pools
	metrics *metrics
	// waiting are the requests that wait.
	waiting *quota.Counter
	// jitter spreads the ends of waits: up to so much is added to one.
	jitter func(atMost time.Duration) time.Duration
}

// ServeHTTP answers below /v1/ and /sd/.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, answer := d.route(r.URL.Path)
	code := d.serve(w, r, answer)
	d.metrics.requests.WithLabelValues(name, statusClass(code)).Inc()
}

// handler answers a request, or says why not.
type handler func(w http.ResponseWriter, r *http.Request) (code int, err error)

// route finds what answers a path, and what it is called in metrics.
func (d *Door) route(path string) (string, handler) {
	switch {
	case path == "/v1/pools":
		return "pools", d.listPools
	case strings.HasPrefix(path, "/v1/pools/"):
		return "pool", d.getPool
	case path == "/sd/prometheus":
		return "prometheus", d.targets
	default:
		return "other", func(http.ResponseWriter, *http.Request) (int, error) {
			return 0, &statusError{http.StatusNotFound, "there is nothing at this path"}
		}
	}
}

func (d *Door) serve(w http.ResponseWriter, r *http.Request, answer handler) int {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		return fail(w, &statusError{http.StatusMethodNotAllowed, "only GET and HEAD are answered"})
	}
	if len(r.URL.RawQuery) > maxQuery {
		return fail(w, &statusError{http.StatusRequestURITooLong, "the query is too long"})
	}
	code, err := answer(w, r)
	if err != nil {
		return fail(w, err)
	}
	return code
}

// statusError is an error with a status of its own.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return e.text }

// retryAfter is when a client that could not be served may come again.
const retryAfter = "1"

// problem is the body of an answer that is an error.
type problem struct {
	Error string `json:"error"`
	// Field is the parameter that is wrong.
	Field string `json:"field,omitempty"`
}

// fail answers with an error.
func fail(w http.ResponseWriter, err error) int {
	p, code := problem{Error: err.Error()}, http.StatusInternalServerError
	var status *statusError
	var field *member.FieldError
	switch {
	case errors.As(err, &status):
		code = status.code
	case errors.As(err, &field):
		code, p.Field = http.StatusBadRequest, field.Field
	case errors.Is(err, member.ErrNotFound):
		code = http.StatusNotFound
	case errors.Is(err, member.ErrUnavailable):
		code = http.StatusServiceUnavailable
	}
	if code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", retryAfter)
	}
	body, err := json.Marshal(p)
	if err != nil {
		body = []byte("{}")
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Del("ETag")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n')) // a client that is gone needs no answer
	return code
}

// query are the parameters of a request, each at most once.
type query map[string]string

// parseQuery takes no parameters but those named.
func parseQuery(r *http.Request, known ...string) (query, error) {
	values, err := parseValues(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	q := query{}
	for name, all := range values {
		switch {
		case !slices.Contains(known, name):
			return nil, member.Invalid("query", "there is no parameter %.40q", name)
		case len(all) > 1:
			return nil, member.Invalid(name, "is there %d times", len(all))
		}
		q[name] = all[0]
	}
	return q, nil
}

// send answers with a body that does not change under its tag.
func send(w http.ResponseWriter, r *http.Request, b *body) (int, error) {
	h := w.Header()
	h.Set("ETag", `"`+b.index+`"`)
	if matches(r.Header.Get("If-None-Match"), b.index) {
		w.WriteHeader(http.StatusNotModified)
		return http.StatusNotModified, nil
	}
	h.Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(b.text) // a client that is gone needs no answer
	return http.StatusOK, nil
}

// matches reports whether an If-None-Match names a tag (RFC 9110, 13.1.2: by weak
// comparison).
func matches(header, index string) bool {
	for tag := range strings.SplitSeq(header, ",") {
		tag = strings.TrimSpace(tag)
		if tag == "*" || strings.TrimPrefix(tag, "W/") == `"`+index+`"` {
			return true
		}
	}
	return false
}
