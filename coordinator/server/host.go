package server

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

const (
	// inboxSize is how much may wait for a pool's machine before those who bring
	// more have to wait.
	inboxSize = 1024
	// batchSize is about how many waiting inputs one step takes.
	batchSize = 256
)

// host runs the machine of one pool: one goroutine owns it, hands it inputs,
// answers queries and carries out effects. Only that goroutine touches machine,
// sessions, calls, timer and heard.
type host struct {
	pool     member.Pool
	machine  *pool.Machine
	sessions map[pool.SessionID]*session
	calls    map[pool.Token]waiter
	timer    *time.Timer

	lead    leadership
	tenure  *tenure
	table   Changes
	dialer  dialer
	history *history
	marks   *marks
	alarms  *alarms
	health  *health
	metrics *metrics
	routers *routers
	log     *slog.Logger

	// mail is what agents say, inbox all else.
	mail  *mail
	inbox chan work
	// heard is room for what one step takes from the mail.
	heard []pool.Input
	// outcomes has room for the one change under way.
	outcomes chan outcome
	tokens   atomic.Uint64
	// over ends when the host has stopped, with the reason.
	over *ending
	// gone hears that the pool was deleted; deleted is how, nil while it is there.
	gone    func(member.DeletedPool)
	deleted *member.DeletedPool
	// helpers are commits, dials and waits for routers.
	helpers sync.WaitGroup
	// committing is closed when the newest commit has ended; nil before the first.
	committing chan struct{}
	// back is the commits' own, of which there is one at a time.
	back lag
	// stopping says that no more is begun.
	stopping bool
	// frozen guards the machine of a host that is not run, and only answers
	// queries.
	frozen *sync.Mutex
}

// work is one thing for the host's goroutine: an input, with whoever waits for
// its effects, or a query.
type work struct {
	input  pool.Input
	token  pool.Token
	waiter waiter
	query  func(*pool.Machine)
}

// waiter is called on the host's goroutine with the answer to a call.
type waiter func(*pool.Machine, pool.Reply)

// tell hands an input to the machine. It waits while the inbox is full, and
// drops the input once the host has stopped.
func (h *host) tell(in pool.Input) {
	select {
	case h.inbox <- work{input: in}:
	case <-h.over.done():
	}
}

// note hands an event of the coordinator's own to the machine.
func (h *host) note(e member.Event) { h.tell(pool.Note{Event: e}) }

// listen hands what an agent says to the machine, beginning with its Hello; whatever
// the machine says to it goes to the session. It waits while the machine has not
// heard what the agent has said before, and drops the input once the host has
// stopped.
func (h *host) listen(s *session, in pool.Input) { h.mail.post(s, in, h.over) }

// view runs query on the host's goroutine and waits for it. The query must not
// block, nor keep the machine. After an error its results are not to be read.
func (h *host) view(ctx context.Context, query func(*pool.Machine)) error {
	if h.frozen != nil {
		h.frozen.Lock()
		defer h.frozen.Unlock()
		query(h.machine)
		return nil
	}
	done := make(chan struct{})
	return h.submit(ctx, done, work{query: func(m *pool.Machine) {
		defer close(done)
		query(m)
	}})
}

// callTime is how long an operator's command may take.
const callTime = 15 * time.Second

// call hands an operator's command to the machine and waits for its reply; then
// runs on the host's goroutine with the reply, unless that is an error.
func (h *host) call(
	ctx context.Context, command func(pool.Token) pool.Input, then func(*pool.Machine, pool.Reply),
) error {
	ctx, cancel := context.WithTimeoutCause(ctx, callTime, errCallTime)
	defer cancel()
	done := make(chan struct{})
	var refused error
	token := pool.Token(h.tokens.Add(1))
	err := h.submit(ctx, done, work{input: command(token), token: token, waiter: func(m *pool.Machine, r pool.Reply) {
		defer close(done)
		if refused = r.Err; refused == nil {
			then(m, r)
		}
	}})
	if err != nil {
		return err
	}
	return refused
}

// submit hands w over and waits until it is done.
func (h *host) submit(ctx context.Context, done <-chan struct{}, w work) error {
	select {
	case h.inbox <- w:
	case <-h.over.done():
		return h.over.reason()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-done:
		return nil
	case <-h.over.done():
		return h.over.reason()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var errCallTime = fmt.Errorf("%w: the database did not confirm the change within %s and may still make it; "+
	"repeat the request with the same request_id", member.ErrUnavailable, callTime)

// run owns the machine until ctx ends, whose cause everybody who waits is told,
// or until a commit shows that somebody else writes the pool, which is the error.
// When it returns, all that it started has ended.
func (h *host) run(ctx context.Context) error {
	h.timer = time.NewTimer(0)
	defer h.timer.Stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer h.helpers.Wait()
	defer cancel(nil)
	for h.deleted == nil {
		var err error
		select {
		case <-ctx.Done():
			h.settleLast(ctx)
			h.over.end(context.Cause(ctx))
			return nil
		case <-h.mail.arrived:
			h.hear(ctx)
		case w := <-h.inbox:
			h.work(ctx, w)
		case o := <-h.outcomes:
			h.step(ctx, o.input)
			err = o.fatal
		case <-h.timer.C:
			h.step(ctx, pool.Tick{})
		}
		if err != nil {
			h.over.end(&member.NotLeaderError{})
			return err
		}
	}
	h.over.end(fmt.Errorf("pool %s was deleted at revision %d: %w", h.pool, h.deleted.Position.Revision, member.ErrNotFound))
	return nil
}

// settleLast waits for the change under way and tells everybody what came of it.
func (h *host) settleLast(ctx context.Context) {
	h.stopping = true
	if h.committing == nil {
		return
	}
	<-h.committing
	select {
	case o := <-h.outcomes:
		h.step(ctx, o.input)
	default:
	}
}

// hear takes what agents have said.
func (h *host) hear(ctx context.Context) {
	h.heard = h.mail.collect(h.heard[:0], batchSize, func(s *session) { h.sessions[s.id] = s })
	if len(h.heard) > 0 {
		h.step(ctx, h.heard...)
	}
	clear(h.heard)
}

// work takes w and what waits behind it: inputs in one step, a query between
// steps.
func (h *host) work(ctx context.Context, w work) {
	var inputs []pool.Input
	for w.query == nil {
		inputs = append(inputs, h.expect(w))
		next, ok := h.waiting(len(inputs))
		if !ok {
			h.step(ctx, inputs...)
			return
		}
		w = next
	}
	if len(inputs) > 0 {
		h.step(ctx, inputs...)
	}
	w.query(h.machine)
}

// waiting returns what waits in the inbox, if the step has room for it.
func (h *host) waiting(taken int) (work, bool) {
	if taken == batchSize {
		return work{}, false
	}
	select {
	case w := <-h.inbox:
		return w, true
	default:
		return work{}, false
	}
}

// expect remembers who waits for the effects of an input.
func (h *host) expect(w work) pool.Input {
	if w.waiter != nil {
		h.calls[w.token] = w.waiter
	}
	return w.input
}

// step hands inputs to the machine and carries out the effects. It begins with the
// next change, so that the database works while the rest is seen to.
func (h *host) step(ctx context.Context, inputs ...pool.Input) {
	now, safety := time.Now(), false
	effects := h.machine.Step(now, inputs...)
	for _, e := range effects {
		if p, ok := e.(pool.Propose); ok {
			h.propose(ctx, p)
		}
	}
	for _, e := range effects {
		h.carryOut(ctx, now, e)
		safety = safety || touchesSafety(e)
	}
	if safety && h.deleted == nil {
		h.metrics.brake(h.pool, h.machine.Safety(), h.machine.ServicesDown())
	}
	for _, in := range inputs {
		if closed, ok := in.(pool.Closed); ok {
			delete(h.sessions, closed.Session)
		}
	}
}

// touchesSafety reports whether an effect may go with another standing between
// brake and floor.
func touchesSafety(effect pool.Effect) bool {
	switch effect.(type) {
	case pool.Publish, pool.PublishMark, pool.Raise, pool.Clear:
		return true
	}
	return false
}

func (h *host) carryOut(ctx context.Context, now time.Time, effect pool.Effect) {
	switch e := effect.(type) {
	case pool.Propose: // step has begun with it
	case pool.Publish:
		h.publish(e.Change, now)
	case pool.PublishMark:
		h.marks.publish(h.pool, e.Mark, now)
		h.metrics.suspects.WithLabelValues(string(h.pool)).Set(float64(h.marks.suspects(h.pool)))
	case pool.Reply:
		h.reply(e)
	case pool.AwaitRouters:
		if !h.stopping {
			h.helpers.Go(func() { h.awaitRouters(ctx, e) })
		}
	case pool.Dial:
		if !h.stopping {
			h.helpers.Go(func() { h.tell(h.dialer.dial(ctx, e)) })
		}
	case pool.Raise:
		h.alarms.raise(e.Alarm)
	case pool.Clear:
		h.alarms.clear(e.Key, now)
	case pool.Count:
		h.metrics.count(e.What)
	case pool.Removed:
		h.metrics.detection.WithLabelValues(e.Cause.String()).Observe(e.Detection.Seconds())
	case pool.SetTimer:
		h.setTimer(e.At, now)
	case pool.Welcome, pool.Refuse, pool.Assign, pool.Ask, pool.Challenge, pool.LeaveDone, pool.Stand:
		h.say(e)
	}
}

// say puts what the machine says to an agent into its outbox. Whom it was for
// may have gone.
func (h *host) say(effect pool.Effect) {
	switch e := effect.(type) {
	case pool.Welcome:
		if s := h.sessions[e.Session]; s != nil {
			s.welcome(e, h.lead.storeID, h.lead.addresses())
		}
	case pool.Refuse:
		if s := h.sessions[e.Session]; s != nil {
			s.over.end(e.Err)
		}
	case pool.Assign:
		if s := h.sessions[e.Session]; s != nil {
			s.assign(e.Assignment)
		}
	case pool.Ask:
		if s := h.sessions[e.Session]; s != nil {
			s.ask(e)
		}
	case pool.Challenge:
		if s := h.sessions[e.Session]; s != nil {
			s.challenge(e.Nonce)
		}
	case pool.LeaveDone:
		if s := h.sessions[e.Session]; s != nil {
			s.left(e)
		}
	case pool.Stand:
		if s := h.sessions[e.Session]; s != nil {
			s.stand(e.Standing)
		}
	}
}

func (h *host) reply(r pool.Reply) {
	if w := h.calls[r.Token]; w != nil {
		delete(h.calls, r.Token)
		w(h.machine, r)
	}
}

func (h *host) publish(c member.Change, now time.Time) {
	h.history.publish(c, now)
	h.metrics.published(c)
	h.metrics.pool(h.history)
	if c.Delete == nil {
		return
	}
	d := deletionOf(c)
	h.deleted = &d
	h.gone(d)
}

// setTimer arms the timer for a Tick; a zero time disarms it.
func (h *host) setTimer(at, now time.Time) {
	if at.IsZero() {
		h.timer.Stop()
		return
	}
	h.timer.Reset(at.Sub(now))
}
