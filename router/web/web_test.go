package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/buddyring/buddyring/internal/leak"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/observe"
	"github.com/buddyring/buddyring/router/door"
	"github.com/buddyring/buddyring/router/view"
)

func TestMain(m *testing.M) { leak.Main(m) }

// pools are what a door under test is to serve.
type pools struct {
	mu     sync.Mutex
	states map[member.Pool]*door.State
	ends   map[member.Pool]chan struct{}
	// asked, if there is one, is told each time that all pools are asked for.
	asked chan struct{}
}

func (p *pools) Pool(name member.Pool) (*door.State, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.states == nil {
		return nil, member.ErrUnavailable
	}
	if s := p.states[name]; s != nil {
		return s, nil
	}
	return nil, member.ErrNotFound
}

func (p *pools) Pools() ([]*door.State, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked != nil {
		select {
		case p.asked <- struct{}{}:
		default:
		}
	}
	if p.states == nil {
		return nil, member.ErrUnavailable
	}
	var all []*door.State
	for _, s := range p.states {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *door.State) int { return strings.Compare(string(a.View.Pool()), string(b.View.Pool())) })
	return all, nil
}

// set makes v the state of its pool.
func (p *pools) set(v *view.View) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.states == nil {
		p.states, p.ends = map[member.Pool]*door.State{}, map[member.Pool]chan struct{}{}
	}
	if end := p.ends[v.Pool()]; end != nil {
		close(end)
	}
	end := make(chan struct{})
	p.ends[v.Pool()] = end
	p.states[v.Pool()] = &door.State{
		View: v, Table: v.Table(), Superseded: end,
		Freshness: func(time.Time) (time.Duration, bool) { return 1250 * time.Millisecond, true },
		NotServed: func(time.Time) bool { return v.Pool() == "web" },
	}
}

func (p *pools) remove(name member.Pool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.ends[name])
	delete(p.states, name)
}

// pool is a view of a pool at a revision.
func pool(name member.Pool, revision member.Revision, servers ...*view.Server) *view.View {
	return view.Restore(name, view.Snapshot{StoreID: "s1", Position: member.Position{Epoch: 2, Revision: revision}, Servers: servers}, nil)
}

// suspect is the view with a suspect.
func suspect(v *view.View, id member.ID) *view.View {
	return v.ApplyMarks([]member.Mark{{ID: id, Incarnation: 1, Suspect: true, Epoch: 2, Seq: 1, TTL: time.Hour}}, time.Now())
}

func server(id member.ID, zone string) *view.Server {
	return &view.Server{
		ID: id, Incarnation: 1, Phase: member.PhaseActive, Weight: 100, Zone: zone, Labels: map[string]string{"a.b-c": "<x>"},
		Endpoints: []member.Endpoint{{Name: "http", Address: string(id) + ":80", Protocol: "http"}, {Name: "metrics", Address: string(id) + ":9100"}},
	}
}

func newDoor(tb testing.TB, p *pools) *Door {
	tb.Helper()
	d := New(Deps{Pools: p, Registry: prometheus.NewRegistry()})
	d.jitter = func(time.Duration) time.Duration { return 0 }
	return d
}

// get asks a door without a network.
func get(d http.Handler, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w
}

func indexOf(w *httptest.ResponseRecorder) string { return w.Header().Get("Buddyring-Index") }

func TestPool(t *testing.T) {
	t.Parallel()
	p := &pools{}
	p.set(suspect(pool("default", 17, server("web-1", "eu"), server("web-2", "us"), server("web-3", "eu")), "web-1"))
	d := newDoor(t, p)
	w := get(d, "/v1/pools/default?endpoint=http&zone=eu")
	want := `{"pool":"default","store_id":"s1","epoch":2,"revision":17,"index":"` + indexOf(w) + `","servers":[` +
		`{"server_id":"web-3","incarnation":1,"state":"active","zone":"eu","weight":100,"labels":{"a.b-c":"\u003cx\u003e"},` +
		`"endpoints":[{"name":"http","address":"web-3:80","protocol":"http"}]},` +
		`{"server_id":"web-1","incarnation":1,"state":"suspect","zone":"eu","weight":100,"labels":{"a.b-c":"\u003cx\u003e"},` +
		`"endpoints":[{"name":"http","address":"web-1:80","protocol":"http"}]}]}` + "\n"
	if diff := cmp.Diff(want, w.Body.String()); diff != "" || w.Code != http.StatusOK {
		t.Errorf("status %d (-want +got):\n%s", w.Code, diff)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Etag": `"` + indexOf(w) + `"`, "Buddyring-Age": "1.250", "Buddyring-Stale": "true", "Buddyring-Not-Served": "",
		"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	var all poolJSON
	if err := json.Unmarshal(get(d, "/v1/pools/default").Body.Bytes(), &all); err != nil || len(all.Servers) != 3 || len(all.Servers[0].Endpoints) != 2 {
		t.Errorf("without a filter: %v, %v", all, err)
	}
	for _, nobody := range []string{"endpoint=grpc", "zone=asia"} {
		w := get(d, "/v1/pools/default?"+nobody)
		if !strings.Contains(w.Body.String(), `"servers":[]`) || w.Code != http.StatusOK {
			t.Errorf("%s: %d %s", nobody, w.Code, w.Body)
		}
	}
}

func TestPools(t *testing.T) {
	t.Parallel()
	p := &pools{}
	p.set(pool("web", 3))
	p.set(suspect(pool("db", 17, server("db-1", ""), server("db-2", "")), "db-1"))
	d := newDoor(t, p)
	w := get(d, "/v1/pools")
	want := `{"pools":[` +
		`{"pool":"db","store_id":"s1","epoch":2,"revision":17,"stale":true,"servers":{"active":1,"held_back":0,"service_down":0,"suspect":1}},` +
		`{"pool":"web","store_id":"s1","epoch":2,"revision":3,"stale":true,"not_served":true,"servers":{"active":0,"held_back":0,"service_down":0,"suspect":0}}]}` + "\n"
	if got := get(d, "/v1/pools/web").Header().Get("Buddyring-Not-Served"); got != "true" {
		t.Errorf("of a pool that is not served: %q", got)
	}
	if diff := cmp.Diff(want, w.Body.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestConditionalRequests(t *testing.T) {
	t.Parallel()
	p := &pools{}
	p.set(pool("default", 1, server("web-1", "")))
	d := newDoor(t, p)
	for _, path := range []string{"/v1/pools", "/v1/pools/default", "/sd/prometheus"} {
		tag := get(d, path).Header().Get("ETag")
		for _, header := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
			if w := get(d, path, "If-None-Match: "+header); w.Code != http.StatusNotModified || w.Body.Len() > 0 || w.Header().Get("ETag") != tag {
				t.Errorf("%s with %s: %d %s", path, header, w.Code, w.Body)
			}
		}
		for _, header := range []string{`"x"`, strings.Trim(tag, `"`), ""} {
			if w := get(d, path, "If-None-Match: "+header); w.Code != http.StatusOK {
				t.Errorf("%s with %s: %d", path, header, w.Code)
			}
		}
	}
}

// An index stands for what clients can see: it is the same after a restart and on
// another router, and another one after any change of that.
func TestIndexIsOfTheContent(t *testing.T) {
	t.Parallel()
	index := func(v *view.View, query string) string {
		p := &pools{}
		p.set(v)
		return indexOf(get(newDoor(t, p), "/v1/pools/default"+query))
	}
	now := pool("default", 1, server("web-1", "eu"), server("web-2", "us"))
	same := pool("default", 1, server("web-1", "eu"), server("web-2", "us"))
	if a, b := index(now, ""), index(same, ""); a != b || len(a) != 24 {
		t.Errorf("the same content has index %s and %s", a, b)
	}
	seen := map[string]string{index(now, ""): "at first"}
	for name, v := range map[string]*view.View{
		"suspect": suspect(now, "web-1"), "revision": pool("default", 2, server("web-1", "eu"), server("web-2", "us")),
		"removed": pool("default", 1, server("web-1", "eu")),
	} {
		i := index(v, "")
		if other, ok := seen[i]; ok {
			t.Errorf("%s has the index of %s", name, other)
		}
		seen[i] = name
	}
	if index(now, "?zone=us") != index(suspect(now, "web-1"), "?zone=us") {
		t.Error("a mark in one zone changes the index of another")
	}
}

func TestWhatIsWrongIsSaid(t *testing.T) {
	t.Parallel()
	empty, p := newDoor(t, &pools{}), &pools{}
	p.set(pool("default", 1, server("web-1", "")))
	d := newDoor(t, p)
	long := strings.Repeat("x", 10_000)
	for _, c := range []struct {
		door   *Door
		target string
		code   int
		field  string
	}{
		{empty, "/v1/pools", 503, ""},
		{empty, "/v1/pools/default", 503, ""},
		{empty, "/sd/prometheus", 503, ""},
		{d, "/v1/pools/other", 404, ""},
		{d, "/v1/other", 404, ""},
		{d, "/", 404, ""},
		{d, "/v1/pools/", 400, "pool"},
		{d, "/v1/pools/A", 400, "pool"},
		{d, "/v1/pools/default/x", 400, "pool"},
		{d, "/v1/pools/" + long, 400, "pool"},
		{d, "/v1/pools/default?endpoint=-", 400, "endpoint"},
		{d, "/v1/pools/default?zone=_", 400, "zone"},
		{d, "/v1/pools/default?wait=soon", 400, "wait"},
		{d, "/v1/pools/default?wait=-1s", 400, "wait"},
		{d, "/v1/pools/default?index=" + long[:25], 400, "index"},
		{d, "/v1/pools/default?wiat=1s", 400, "query"},
		{d, "/v1/pools/default?zone=a&zone=b", 400, "zone"},
		{d, "/v1/pools/default?a=%zz", 400, "query"},
		{d, "/v1/pools/default?" + long, 414, ""},
		{d, "/v1/pools?pool=default", 400, "query"},
		{d, "/sd/prometheus?pool=A", 400, "pool"},
		{d, "/sd/prometheus?endpoint=A", 400, "endpoint"},
	} {
		w := get(c.door, c.target)
		var got problem
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != c.code || got.Field != c.field || got.Error == "" {
			t.Errorf("%.60s: %d %s, want %d and %q", c.target, w.Code, w.Body, c.code, c.field)
		}
		if w.Header().Get("Content-Type") != "application/json" || w.Header().Get("ETag") != "" {
			t.Errorf("%.60s: headers %v", c.target, w.Header())
		}
		if retry := w.Header().Get("Retry-After"); (retry != "") != (c.code == 503) {
			t.Errorf("%.60s: Retry-After %q", c.target, retry)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "X"} {
		w := httptest.NewRecorder()
		d.ServeHTTP(w, httptest.NewRequest(method, "/v1/pools", nil))
		if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
}

// waiting starts a request and returns where its answer comes.
func waiting(d *Door, target string) <-chan *httptest.ResponseRecorder {
	done := make(chan *httptest.ResponseRecorder, 1)
	go func() { done <- get(d, target) }()
	return done
}

func TestBlockingRequests(t *testing.T) {
	t.Parallel()
	now := pool("default", 1, server("web-1", "eu"), server("web-2", "us"))
	const path = "/v1/pools/default?index="
	for name, c := range map[string]struct {
		query string
		// after a minute this happens.
		happens func(*pools)
		// the answer comes after so long, with this status.
		want time.Duration
		code int
	}{
		"a server is suspect":      {"", func(p *pools) { p.set(suspect(now, "web-1")) }, time.Minute, 200},
		"the pool changes":         {"", func(p *pools) { p.set(pool("default", 2)) }, time.Minute, 200},
		"the pool goes":            {"", func(p *pools) { p.remove("default") }, time.Minute, 404},
		"another pool changes":     {"&wait=2m", func(p *pools) { p.set(pool("other", 2)) }, 2 * time.Minute, 200},
		"nothing to see":           {"&wait=2m", func(p *pools) { p.set(pool("default", 1, server("web-1", "eu"), server("web-2", "us"))) }, 2 * time.Minute, 200},
		"a change in another zone": {"&wait=2m&zone=us", func(p *pools) { p.set(suspect(now, "web-1")) }, 2 * time.Minute, 200},
		"nothing":                  {"", func(*pools) {}, maxWait, 200},
		"too long a wait":          {"&wait=10h", func(*pools) {}, maxWait, 200},
		"no wait":                  {"&wait=0s", func(*pools) {}, 0, 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := &pools{}
				p.set(now)
				d := newDoor(t, p)
				_, query, _ := strings.Cut(c.query, "&zone")
				if query != "" {
					query = "?zone" + query
				}
				index := indexOf(get(d, "/v1/pools/default"+query))
				began, done := time.Now(), waiting(d, path+index+c.query)
				time.AfterFunc(time.Minute, func() { c.happens(p) })
				w := <-done
				if took := time.Since(began); took != c.want || w.Code != c.code {
					t.Errorf("status %d after %v, want %d after %v", w.Code, took, c.code, c.want)
				}
				if changed := indexOf(w) != index; w.Code == 200 && changed != (c.want == time.Minute) {
					t.Errorf("index changed: %v", changed)
				}
				time.Sleep(time.Minute)
			})
		})
	}
}

// An index of something else is answered at once: that of another time, or one
// that is made up.
func TestOldIndexDoesNotWait(t *testing.T) {
	t.Parallel()
	p := &pools{}
	p.set(pool("default", 1, server("web-1", "")))
	d := newDoor(t, p)
	for _, index := range []string{"0", "123456789012345678901234", "zzz"} {
		if w := get(d, "/v1/pools/default?index="+index); w.Code != http.StatusOK {
			t.Errorf("index %s: %d", index, w.Code)
		}
	}
}

func TestWaitsEndSpread(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &pools{}
		p.set(pool("default", 1))
		d := New(Deps{Pools: p, Registry: prometheus.NewRegistry()})
		index := indexOf(get(d, "/v1/pools/default"))
		ends := map[time.Duration]bool{}
		for range 5 {
			began := time.Now()
			<-waiting(d, "/v1/pools/default?wait=160s&index="+index)
			took := time.Since(began)
			ends[took] = true
			if took < 160*time.Second || took > 170*time.Second {
				t.Errorf("a wait of 160 s took %v", took)
			}
		}
		if len(ends) < 2 {
			t.Error("all waits take equally long")
		}
	})
}

// So many may wait and no more, half of them from one source; the others are told at
// once. All are woken by a change, and nothing of them is left.
func TestWaitersAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &pools{}
		p.set(pool("default", 1, server("web-1", "")))
		d := newDoor(t, p)
		target := "/v1/pools/default?index=" + indexOf(get(d, "/v1/pools/default"))
		var all []<-chan *httptest.ResponseRecorder
		tooMany := func(from string) {
			t.Helper()
			if w := getFrom(d, from, target); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
				t.Errorf("one too many from %s: %d", from, w.Code)
			}
		}
		for _, from := range []string{"192.0.2.1:1", "192.0.2.2:1"} {
			for range maxWaiters / 2 {
				done := make(chan *httptest.ResponseRecorder, 1)
				go func() { done <- getFrom(d, from, target) }()
				all = append(all, done)
			}
			synctest.Wait()
			tooMany(from)
		}
		tooMany("192.0.2.3:1")
		if w := get(d, "/v1/pools/default"); w.Code != http.StatusOK {
			t.Errorf("one that does not wait: %d", w.Code)
		}
		p.set(pool("default", 2, server("web-1", "")))
		for _, done := range all {
			if w := <-done; w.Code != http.StatusOK {
				t.Errorf("a waiter got %d", w.Code)
			}
		}
		if n := d.waiting.Held(); n != 0 {
			t.Errorf("%d places are taken", n)
		}
	})
}

// getFrom asks from an address.
func getFrom(d http.Handler, from, target string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	r.RemoteAddr = from
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w
}

// pipes is a listener in memory, whose connections keep deadlines as TCP does.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

// overNetwork runs a door behind the server that it has in a router.
func overNetwork(t *testing.T, p *pools, test func(d *Door, dial func() net.Conn, client *http.Client)) {
	t.Helper()
	d, lis := newDoor(t, p), &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- observe.NewServer(nil, d, slog.New(slog.DiscardHandler)).Serve(ctx, lis) }()
	dial := func() net.Conn {
		ours, theirs := net.Pipe()
		lis.conns <- theirs
		return ours
	}
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return dial(), nil }}
	test(d, dial, &http.Client{Transport: transport})
	transport.CloseIdleConnections()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// A request may wait longer than others may take.
func TestLongWaitOverTheNetwork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &pools{}
		p.set(pool("default", 1, server("web-1", "")))
		overNetwork(t, p, func(d *Door, _ func() net.Conn, client *http.Client) {
			index := indexOf(get(d, "/v1/pools/default"))
			time.AfterFunc(4*time.Minute, func() { p.set(pool("default", 2)) })
			res, err := client.Get("http://router/v1/pools/default?index=" + index)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(res.Body)
			if err = errors.Join(err, res.Body.Close()); err != nil || !strings.Contains(string(text), `"revision":2`) {
				t.Errorf("%s, %v", text, err)
			}
			// HEAD is GET without the body.
			res, err = client.Head("http://router/v1/pools/default")
			if err != nil || res.StatusCode != http.StatusOK || res.Header.Get("ETag") == "" {
				t.Errorf("HEAD: %v, %v", res, err)
			}
		})
	})
}

// A client that goes while it waits, and a router that ends, end the wait.
func TestWaitEndsWithItsClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &pools{}
		p.set(pool("default", 1, server("web-1", "")))
		overNetwork(t, p, func(d *Door, dial func() net.Conn, _ *http.Client) {
			request := "GET /v1/pools/default?index=" + indexOf(get(d, "/v1/pools/default")) + " HTTP/1.1\r\nHost: router\r\n\r\n"
			leaves, stays := dial(), dial()
			for _, c := range []net.Conn{leaves, stays} {
				if _, err := io.WriteString(c, request); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
			if n := d.waiting.Held(); n != 2 {
				t.Errorf("%d wait, want 2", n)
			}
			_ = leaves.Close()
			synctest.Wait()
			if n := d.waiting.Held(); n != 1 {
				t.Errorf("%d wait, want 1", n)
			}
			t.Cleanup(func() { _ = stays.Close() })
		})
	})
}

// A client that does not read its answer is dropped.
func TestSlowReaderIsDropped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &pools{}
		var servers []*view.Server
		for i := range 1000 {
			servers = append(servers, server(member.ID(fmt.Sprintf("web-%d", i)), ""))
		}
		p.set(pool("default", 1, servers...))
		overNetwork(t, p, func(_ *Door, dial func() net.Conn, _ *http.Client) {
			c := dial()
			if _, err := io.WriteString(c, "GET /v1/pools/default HTTP/1.1\r\nHost: router\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			n, err := io.Copy(io.Discard, c)
			if n > 64<<10 {
				t.Errorf("%d bytes were kept for it, %v", n, err)
			}
			_ = c.Close()
		})
	})
}

func TestPrometheusTargets(t *testing.T) {
	t.Parallel()
	p := &pools{}
	draining, nothing := server("web-3", "eu"), server("web-4", "")
	draining.Phase, nothing.Endpoints = member.PhaseDraining, nil
	single := server("web-2", "")
	single.Endpoints = single.Endpoints[:1]
	held := server("web-9", "")
	v := view.Restore("default", view.Snapshot{
		StoreID: "s1", Position: member.Position{Epoch: 2, Revision: 1}, Servers: []*view.Server{server("web-1", "eu"), single, draining, nothing},
	}, []*view.Server{held})
	p.set(suspect(v, "web-1"))
	p.set(pool("db", 1, server("db-1", "")))
	d := newDoor(t, p)
	list := func(query string) []string {
		t.Helper()
		w := get(d, "/sd/prometheus"+query)
		var groups []targetGroup
		if err := json.Unmarshal(w.Body.Bytes(), &groups); err != nil || w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
			t.Fatalf("%d %s: %v", w.Code, w.Body, err)
		}
		lines := []string{}
		for _, g := range groups {
			lines = append(lines, strings.Join(g.Targets, ",")+" "+g.Labels["__meta_buddyring_state"])
		}
		return lines
	}
	for query, want := range map[string][]string{
		"":                               {"db-1:80 active", "web-1:80 suspect", "web-2:80 active", "web-3:80 draining", "web-9:80 held_back"},
		"?pool=default&endpoint=metrics": {"web-1:9100 suspect", "web-3:9100 draining", "web-9:9100 held_back"},
		"?pool=nobody":                   {},
		"?endpoint=nobody":               {},
	} {
		if diff := cmp.Diff(want, list(query)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
	}
	var groups []targetGroup
	if err := json.Unmarshal(get(d, "/sd/prometheus?pool=default&endpoint=metrics").Body.Bytes(), &groups); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"__meta_buddyring_pool": "default", "__meta_buddyring_server_id": "web-1", "__meta_buddyring_state": "suspect",
		"__meta_buddyring_zone": "eu", "__meta_buddyring_weight": "100", "__meta_buddyring_endpoint": "metrics",
		"__meta_buddyring_protocol": "", "__meta_buddyring_label_a_b_c": "<x>",
	}
	if diff := cmp.Diff(want, groups[0].Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
}

// Answers are encoded once per state, and names that are made up are not kept.
func TestAnswersAreEncodedOnce(t *testing.T) {
	t.Parallel()
	p := &pools{}
	p.set(pool("default", 1, server("web-1", "eu")))
	state, err := p.Pool("default")
	if err != nil {
		t.Fatal(err)
	}
	for f, kept := range map[filter]bool{{}: true, {"http", "eu"}: true, {"grpc", ""}: false, {"http", "us"}: false} {
		once := bodyOf(state, f)
		if again := bodyOf(state, f); (once == again) != kept {
			t.Errorf("%v: kept %v, want %v", f, once == again, kept)
		}
	}
}

// Whatever is asked, the answer is one of a few codes and JSON, or nothing.
func FuzzRequest(f *testing.F) {
	p := &pools{}
	p.set(suspect(pool("default", 1, server("web-1", "eu"), server("web-2", "")), "web-1"))
	d := newDoor(f, p)
	for _, seed := range [][3]string{
		{"/v1/pools", "", ""},
		{"/v1/pools/default", "index=x&wait=0s&endpoint=http&zone=eu", `"x"`},
		{"/sd/prometheus", "pool=default&endpoint=http", "*"},
		{"/v1/pools/%2e%2e", "a=%zz;b", ","},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, path, query, tag string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL = &url.URL{Path: path, RawQuery: query}
		r.Header.Set("If-None-Match", tag)
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // nobody waits
		w := httptest.NewRecorder()
		d.ServeHTTP(w, r.WithContext(ctx))
		if !slices.Contains([]int{200, 304, 400, 404, 414}, w.Code) {
			t.Errorf("status %d", w.Code)
		}
		if w.Code == 304 && w.Body.Len() > 0 || w.Code != 304 && !json.Valid(w.Body.Bytes()) {
			t.Errorf("status %d: %q", w.Code, w.Body)
		}
	})
}
