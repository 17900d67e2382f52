package client

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	// defaultAttempts is how many servers a request is tried on.
	defaultAttempts = 3
	// connectLimit is long enough for one lost packet.
	connectLimit = 2 * time.Second
	// idlePerServer is how many connections to one server wait for work.
	idlePerServer = 64
)

// Transport is a RoundTripper that sends each request to a server of a pool. The
// host of the URL is not looked up; it becomes the Host header, where the request
// has no other.
//
// A request that could not be sent, because no connection came about, is tried on
// another server; one whose connection broke before the response began only
// where it may be repeated: GET, HEAD, OPTIONS, TRACE, PUT and DELETE, or with an
// Idempotency-Key. A request with a body needs GetBody too. With HTTPS, servers
// must have a certificate for their address, or Base a TLS configuration with a
// ServerName.
type Transport struct {
	// Pool is the pool. Its Close remains the caller's.
	Pool *Pool
	// Base sends the requests. Nil for a transport that gives up connecting after
	// 2 s, so that a dead server is left in time.
	Base http.RoundTripper
	// Choose says which server to ask for. Nil for any. Its Exclude is extended
	// for further attempts.
	Choose func(*http.Request) Request
	// Attempts is how many servers are tried at most; 3 when 0.
	Attempts int

	once sync.Once
	// base is Base, or what stands for it.
	base http.RoundTripper
}

// RoundTrip sends a request to a server of the pool. It waits for the first view
// of the pool as long as there is a router left to ask.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	t.once.Do(t.setUp)
	if err := t.Pool.ready(req.Context()); err != nil {
		return nil, errors.Join(err, closeBody(req.Body))
	}
	var request Request
	if t.Choose != nil {
		request = t.Choose(req)
	}
	var last error
	body := req.Body
	for attempt := 1; ; attempt++ {
		choice, err := t.Pool.Pick(request)
		if err != nil {
			return nil, errors.Join(last, err, closeBody(body))
		}
		res, err := t.send(req, body, choice)
		if err == nil {
			return res, nil
		}
		last = fmt.Errorf("server %s: %w", choice.Server.ID, err)
		if attempt == t.attempts() || !mayRepeat(req, err) {
			return nil, last
		}
		var ok bool
		if body, ok = again(req); !ok {
			return nil, last
		}
		request.Exclude = append(slices.Clip(request.Exclude), choice.Server.ID)
	}
}

// send sends a request with a body to one server, and counts it until the body
// of the response ends.
func (t *Transport) send(req *http.Request, body io.ReadCloser, c Choice) (*http.Response, error) {
	out := req.Clone(req.Context())
	out.Body = body
	if out.Host == "" {
		out.Host = req.URL.Host
	}
	out.URL.Host = c.Address
	res, err := t.base.RoundTrip(out)
	if err != nil {
		c.Done()
		return nil, err
	}
	res.Request = req
	res.Body = counted(res.Body, c)
	return res, nil
}

// CloseIdleConnections is what http.Client calls.
func (t *Transport) CloseIdleConnections() {
	t.once.Do(t.setUp)
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

func (t *Transport) setUp() {
	if t.base = t.Base; t.base == nil {
		t.base = &http.Transport{
			DialContext:         (&net.Dialer{Timeout: connectLimit}).DialContext,
			ForceAttemptHTTP2:   true,
			TLSHandshakeTimeout: 2 * connectLimit,
			MaxIdleConnsPerHost: idlePerServer,
			IdleConnTimeout:     90 * time.Second,
		}
	}
}

func (t *Transport) attempts() int {
	if t.Attempts > 0 {
		return t.Attempts
	}
	return defaultAttempts
}

// mayRepeat reports whether another server may get a request that has failed:
// where it was not sent, or may be sent twice.
func mayRepeat(req *http.Request, err error) bool {
	if req.Context().Err() != nil {
		return false
	}
	var op *net.OpError
	return idempotent(req) || errors.As(err, &op) && op.Op == "dial"
}

// idempotent: RFC 9110, 9.2.2; TRACE and OPTIONS are safe.
func idempotent(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return req.Header.Get("Idempotency-Key") != ""
}

// again returns the body from the beginning, which may be none.
func again(req *http.Request) (io.ReadCloser, bool) {
	if req.Body == nil || req.Body == http.NoBody {
		return req.Body, true
	}
	if req.GetBody == nil {
		return nil, false
	}
	body, err := req.GetBody()
	return body, err == nil
}

func closeBody(body io.ReadCloser) error {
	if body == nil {
		return nil
	}
	return body.Close()
}

// counted is a body whose end is the end of the work on it.
func counted(body io.ReadCloser, c Choice) io.ReadCloser {
	done := &sync.Once{}
	counting := &countedBody{ReadCloser: body, done: func() { done.Do(c.Done) }}
	if w, ok := body.(io.Writer); ok {
		// The connection of an upgrade is written to as well.
		return &struct {
			*countedBody
			io.Writer
		}{counting, w}
	}
	return counting
}

type countedBody struct {
	io.ReadCloser

	done func()
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.done()
	}
	return n, err
}

func (b *countedBody) Close() error {
	b.done()
	return b.ReadCloser.Close()
}
