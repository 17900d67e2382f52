package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/buddyring/buddyring/internal/connect"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

const (
	// silenceLimit is how long a router may say nothing: it sends a bookmark every
	// second.
	silenceLimit = 3 * time.Second
	// patience is how long a router may be behind what is known.
	patience = 10 * time.Second
	// staleLimit is how long a router that is out of touch with its coordinators is
	// followed while another may be in touch, and staleMemory how long one is taken
	// to be out of touch that was left for it.
	staleLimit  = 5 * time.Second
	staleMemory = time.Minute
	// retryFirst and retryMax bound the pause after all routers failed.
	retryFirst = 200 * time.Millisecond
	retryMax   = 3 * time.Second
	// spread is how long the clients of a lost router take to come to the next.
	spread = 100 * time.Millisecond

	maxMessageBytes = 64 << 20
)

var (
	errSilent = errors.New("the router is silent")
	errBehind = errors.New("the router is behind what is known")
	errStale  = errors.New("the router is out of touch with its coordinators")
)

// follower keeps a pool up to date from one router at a time.
type follower struct {
	pool *Pool
	log  *slog.Logger
	// told is what each router has told last, by address.
	told map[string]*list
	// stale is when each router was last found to be out of touch for long, or gone.
	stale map[string]time.Time
}

func newFollower(p *Pool) *follower {
	return &follower{pool: p, log: p.log, told: map[string]*list{}, stale: map[string]time.Time{}}
}

// run follows routers in turn until ctx ends.
func (f *follower) run(ctx context.Context) {
	routers := f.pool.cfg.Routers
	failures := 0
	for turn := rand.IntN(len(routers)); ctx.Err() == nil; turn++ { //nolint:gosec // no secret
		address := routers[turn%len(routers)]
		useful, err := f.session(ctx, address)
		if ctx.Err() != nil {
			return
		}
		if useful {
			failures = 0
		} else {
			f.stale[address] = time.Now()
		}
		failures++
		f.log.WarnContext(ctx, "router lost", "router", address, "error", err)
		err = fmt.Errorf("router %s: %w", address, err)
		f.pool.lost(err)
		if failures >= len(routers) {
			f.pool.fail(err)
		}
		sleep(ctx, f.pause(failures))
	}
}

// pause lets each router be tried once at once. The clients of a router that is
// lost do not come to the next all in the same moment.
func (f *follower) pause(failures int) time.Duration {
	rounds := failures - len(f.pool.cfg.Routers)
	if rounds < 0 && f.pool.known() == nil {
		return 0
	}
	limit := float64(spread)
	if rounds >= 0 {
		limit = min(float64(retryMax), float64(retryFirst)*math.Pow(1.6, float64(rounds)))
	}
	return time.Duration(limit * (0.5 + rand.Float64()/2)) //nolint:gosec // jitter
}

// session follows one router. It ends with an error, and says whether what the
// router told was of use.
func (f *follower) session(parent context.Context, address string) (useful bool, err error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	silence := time.AfterFunc(silenceLimit, func() { cancel(errSilent) })
	defer silence.Stop()

	conn, err := f.dial(address)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	told := &telling{router: address, list: f.told[address], since: time.Now(), touched: time.Now()}
	stream, err := routerv1.NewRouterServiceClient(conn).Watch(ctx, &routerv1.WatchRequest{
		Pool: string(f.pool.name), Resume: told.list.resume(),
	})
	if err != nil {
		return false, cause(ctx, err)
	}
	defer func() { f.told[address] = told.list }()
	for {
		msg, err := stream.Recv()
		if err != nil {
			return useful, cause(ctx, err)
		}
		silence.Reset(silenceLimit)
		if err := told.take(msg, f.pool); err != nil {
			return useful, err
		}
		useful = useful || told.used
		if told.outOfTouch() {
			f.stale[address] = time.Now()
			if f.another(address) {
				return useful, errStale
			}
		}
	}
}

// another reports whether a router but this one may be in touch with its
// coordinators.
func (f *follower) another(address string) bool {
	return slices.ContainsFunc(f.pool.cfg.Routers, func(r string) bool {
		at, found := f.stale[r]
		return r != address && (!found || time.Since(at) >= staleMemory)
	})
}

func (f *follower) dial(address string) (*grpc.ClientConn, error) {
	options := append([]grpc.DialOption{
		grpc.WithTransportCredentials(f.pool.cfg.Credentials),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)),
		grpc.WithDisableServiceConfig(),
		grpc.WithUserAgent("buddyring-client"),
	}, dialer(address)...)
	options = append(options, f.pool.cfg.DialOptions...)
	// The dialer resolves names at each attempt.
	conn, err := grpc.NewClient("passthrough:///"+address, options...)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	return conn, nil
}

// dialer tries all addresses of a router's name. Only gRPC's own dialer speaks to a
// proxy, where the environment has one.
func dialer(address string) []grpc.DialOption {
	request := &http.Request{URL: &url.URL{Scheme: "https", Host: address}}
	if proxy, err := http.ProxyFromEnvironment(request); proxy != nil || err != nil {
		return nil
	}
	return []grpc.DialOption{grpc.WithContextDialer(connect.First)}
}

// telling is what one router tells in one session.
type telling struct {
	router string
	list   *list
	// used says that list is, or was, the list in use.
	used bool
	// since is when the router was last seen not to be behind, touched when it was
	// last in touch with its coordinators.
	since, touched time.Time
}

// outOfTouch reports whether the router has been so for long.
func (t *telling) outOfTouch() bool { return time.Since(t.touched) >= staleLimit }

// take takes a message, and makes the list after it the one in use where it may
// replace that. A router that stays behind is an error.
func (t *telling) take(msg *routerv1.WatchResponse, p *Pool) error {
	before := t.list
	next, err := before.after(msg)
	if err != nil {
		return err
	}
	t.list = next
	age := msg.GetFreshness().GetAge().AsDuration()
	stale, later := msg.GetFreshness().GetStale(), time.Now().Add(-age).After(p.Status().Confirmed)
	if !stale {
		t.touched = time.Now()
	}
	if known := p.known(); next == nil || !t.replaces(known, before, stale, later) {
		if next != nil && next.storeID == known.storeID && !next.before(known) {
			t.since = time.Now()
		}
		if time.Since(t.since) >= patience {
			return errBehind
		}
		return nil
	}
	t.used, t.since = true, time.Now()
	p.use(next)
	p.follows(t.router, age)
	return nil
}

// replaces reports whether the router's list may replace the known one.
//
// A router whose list is the known one is believed whatever it says next. Of
// other routers, one that has another history, which is that of a restored
// backup, is believed while it is in touch with its coordinator, and else if its
// list was confirmed later than the known one, which may be an old one from disk.
// One that stands at an earlier point of the same history is not: it will catch
// up. If it is in touch with its coordinator and has not caught up in time, then
// the history did go back. A lower epoch is never believed. Neither is one at
// the same point that has been out of touch for longer: marks do not move it.
func (t *telling) replaces(known, before *list, stale, later bool) bool {
	switch {
	case known == nil || known == before:
		return true
	case known.storeID != t.list.storeID:
		return !stale || later
	case t.list.before(known):
		return !stale && t.list.position.Epoch >= known.position.Epoch && time.Since(t.since) >= patience
	default:
		return known.before(t.list) || !stale || later
	}
}

// cause returns why ctx was cancelled, where that is the reason for err.
func cause(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errSilent) {
		return errSilent
	}
	return err
}

// signal wakes one goroutine. Setting it several times before it is taken is
// the same as setting it once.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

func (s signal) set() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// sleep returns after d, or when ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
