package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// maxMessageBytes is how much an agent takes of a coordinator at once. The most
// that there is to say are maxSubjects, and the routers that a drain waits for.
const maxMessageBytes = 4 << 20

const (
	// Pauses after a coordinator could not be reached, growing.
	retryFirst, retryMax = 250 * time.Millisecond, 2 * time.Second
	// Pauses after a coordinator said no in a way that only a person can mend.
	refusedFirst, refusedMax = 5 * time.Second, 30 * time.Second
	// nextAddress is the longest pause between two addresses of one turn.
	nextAddress = 100 * time.Millisecond
	// renewTime spreads hellos for a new incarnation, or with a new spec.
	renewTime = 500 * time.Millisecond
	// maxHints is how many leaders in a row are believed without a pause.
	maxHints = 3
	// A session that got stuck before it had lasted so long counts, and the spread of
	// the next one doubles with each in a row, this often: agents that all come back
	// at once to a coordinator that cannot keep up keep it from ever keeping up.
	lasting   = time.Minute
	maxStalls = 4
	// maxAway is the longest spread that comes of it.
	maxAway = 2 * time.Minute
)

// Itinerary decides which coordinator to try next, and when. It is not safe for
// concurrent use.
type Itinerary struct {
	// spread is what the last Welcome said.
	spread time.Duration
	// at is the place in the list of addresses, tried how many in a row have
	// failed.
	at, tried int
	// hint is a leader that another coordinator has named, or "".
	hint  string
	hints int
	// stalls counts the sessions in a row that got stuck soon.
	stalls int
	// last is the address that was tried last, and silent one that said nothing in
	// this turn, or "": those who stand by name a leader for a while after its end.
	last, silent string
	// pause and refusals grow from failure to failure.
	pause   time.Duration
	refused time.Duration
}

// NewItinerary returns that of an agent which has never had a session.
func NewItinerary() *Itinerary {
	return &Itinerary{spread: defaultSpread, pause: retryFirst, refused: refusedFirst}
}

// Attempt is how a try to hold a session has ended.
type Attempt struct {
	// Welcomed says that there was a session; Spread is what its Welcome gave, and
	// Lasted how long there was one.
	Welcomed bool
	Spread   time.Duration
	Lasted   time.Duration
	// Err is never nil.
	Err error
}

// Next is the address to try among the list, which is not empty.
func (i *Itinerary) Next(addresses []string) string {
	i.last = addresses[i.at%len(addresses)]
	if i.hint != "" {
		i.last, i.hint = i.hint, ""
	}
	return i.last
}

// After takes how an attempt ended, where there are so many addresses, and
// returns how long to wait before the next one. jitter is in [0, 1).
func (i *Itinerary) After(a Attempt, addresses int, jitter float64) time.Duration {
	err := a.Err
	if a.Welcomed {
		stalls := 0
		if errors.Is(err, ErrNoAck) && a.Lasted < lasting {
			stalls = min(i.stalls+1, maxStalls+1)
		}
		*i = Itinerary{spread: a.Spread, at: i.at, stalls: stalls, pause: retryFirst, refused: refusedFirst, last: i.last}
	}
	if silence(err) {
		i.silent = i.last
	}
	part := func(d time.Duration) time.Duration { return time.Duration(jitter * float64(d)) }
	var leader *member.NotLeaderError
	switch {
	case errors.Is(err, errNewSpec):
		return part(renewTime)
	case errors.Is(err, member.ErrStale) && i.tried == 0:
		i.tried++
		return part(renewTime)
	case errors.As(err, &leader) && leader.Leader != "" && leader.Leader != i.silent && i.hints < maxHints &&
		member.CheckHostPort("leader", leader.Leader) == nil:
		i.hint = leader.Leader
		i.hints++
		if a.Welcomed {
			// Everybody who had a session there hears of the leader at once.
			return part(i.spread)
		}
		return 0
	case permanent(err):
		i.at++
		wait := i.refused/2 + part(i.refused/2)
		i.refused = min(2*i.refused, refusedMax)
		return wait
	case a.Welcomed && !errors.Is(err, ErrNoAck):
		// The coordinator may be back at once, and everybody comes back with us.
		return part(i.spread)
	}
	i.at++
	i.tried++
	if i.tried%max(addresses, 1) != 0 {
		return part(nextAddress)
	}
	i.hints, i.silent = 0, ""
	wait := i.pause/2 + part(i.pause/2)
	if a.Welcomed {
		wait = part(max(i.spread, min(i.spread<<max(i.stalls-1, 0), maxAway)))
	}
	i.pause = min(i.pause*8/5, max(retryMax, i.spread))
	if hint, ok := rpc.RetryAfter(err); ok && hint > wait {
		wait = min(hint, refusedMax) + part(retryFirst)
	}
	return wait
}

// silence reports whether an attempt ended because nothing was heard, as from a
// process that is stopped or a host that is gone.
func silence(err error) bool {
	return errors.Is(err, ErrNoAck) || errors.Is(err, errUnreached) || errors.Is(err, errNoWelcome)
}

// permanent reports whether trying again will hardly help before somebody has
// changed something.
func permanent(err error) bool {
	return slices.ContainsFunc([]error{
		member.ErrAlreadyExists, member.ErrInvalid, member.ErrPermission, member.ErrRefused,
	}, func(e error) bool { return errors.Is(err, e) })
}

// stayConnected holds one session after the other until ctx ends or the server
// has left.
func (d *Daemon) stayConnected(ctx context.Context) error {
	trip := NewItinerary()
	leaving := d.leaving.asked
	for ctx.Err() == nil {
		wait, left := d.turn(ctx, trip)
		if left {
			return errLeft
		}
		select {
		case <-ctx.Done():
		case <-leaving:
			leaving = nil
		case <-time.After(wait):
		}
		if d.leaving.pointless(d.keeper.get()) {
			return errLeft
		}
	}
	return nil
}

// turn holds one session. It returns how long to wait before the next, or that
// the server has left.
func (d *Daemon) turn(ctx context.Context, trip *Itinerary) (wait time.Duration, left bool) {
	addresses := d.addresses()
	e := ended{address: trip.Next(addresses)}
	e.welcomed, e.err = d.attempt(ctx, e.address)
	switch {
	case errors.Is(e.err, errLeft):
		return 0, true
	case ctx.Err() != nil:
		return 0, false
	}
	e.wait = trip.After(e.attempt(), len(addresses), rand.Float64()) //nolint:gosec // jitter is no secret
	d.note(ctx, e)
	if removed, ok := errors.AsType[*member.RemovedError](e.err); ok {
		d.removed(ctx, removed)
	}
	return e.wait, false
}

// complaintEvery is how often the same trouble is said again.
const complaintEvery = time.Minute

// ended is how an attempt went, and how long to wait after it.
type ended struct {
	address  string
	welcomed *welcome
	err      error
	wait     time.Duration
}

func (e ended) attempt() Attempt {
	a := Attempt{Welcomed: e.welcomed != nil, Err: e.err}
	if a.Welcomed {
		a.Spread, a.Lasted = e.welcomed.spread, time.Since(e.welcomed.at)
	}
	return a
}

// how an attempt ended, in one word.
func (e ended) how() string {
	switch {
	case e.welcomed != nil:
		return "lost"
	case permanent(e.err):
		return "refused"
	}
	return "failed"
}

// complaint is a trouble that was logged.
type complaint struct {
	text string
	at   time.Time
}

// note logs and counts the end of a session. What repeats itself is said once a
// minute.
func (d *Daemon) note(ctx context.Context, e ended) {
	d.metrics.sessions.WithLabelValues(e.how()).Inc()
	d.link.down(time.Now(), e.err)
	level := slog.LevelWarn
	said := complaint{text: e.how(), at: time.Now()}
	if permanent(e.err) {
		said.text += e.err.Error()
	}
	switch {
	case errors.Is(e.err, errNewSpec):
		level = slog.LevelInfo
	case e.welcomed == nil && said.text == d.complaint.text && said.at.Sub(d.complaint.at) < complaintEvery:
		level = slog.LevelDebug
	default:
		d.complaint = said
	}
	d.log.Log(ctx, level, "no session with a coordinator, watching goes on", "session", e.how(), "address", e.address,
		"error", e.err, "next_try", e.wait.Round(time.Millisecond))
}

// addresses are the configured coordinators, then those that a coordinator has
// named.
func (d *Daemon) addresses() []string {
	list := slices.Clone(d.cfg.Coordinators)
	for _, c := range d.keeper.get().Coordinators {
		if !slices.Contains(list, c) {
			list = append(list, c)
		}
	}
	return list
}

// attempt holds one session with one coordinator.
func (d *Daemon) attempt(ctx context.Context, address string) (*welcome, error) {
	conn, err := d.deps.Dial(address)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	defer func() { _ = conn.Close() }() // its streams have ended
	select {
	case <-d.respec: // the present spec is about to be said
	default:
	}
	hello := toHello(d.id, d.keeper.get(), d.spec(ctx, address))
	return d.hold(ctx, func(ctx context.Context) (stream, error) {
		return pb.NewAgentServiceClient(conn).Session(ctx, grpc.MaxCallRecvMsgSize(maxMessageBytes))
	}, hello)
}

// spec is what to say of the server to the coordinator at an address.
func (d *Daemon) spec(ctx context.Context, address string) member.Spec {
	spec := d.present.Load().Clone()
	if len(spec.ProbeAddresses) == 0 {
		spec.ProbeAddresses = d.deps.Route(ctx, address)
	}
	return spec
}
