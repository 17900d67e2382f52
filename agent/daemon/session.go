package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/agent/detector"
	"github.com/buddyring/buddyring/agent/health"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const (
	// openTime is how long it may take to reach a coordinator. A stopped one, or a
	// host that is gone, must not keep the agent from the others.
	openTime = 2 * time.Second
	// welcomeTime is longer than a coordinator takes to say that a join did not
	// become durable.
	welcomeTime = 20 * time.Second
	// ackTime is how long a digest may go without acknowledgement.
	ackTime = 2 * time.Second
	// leaveEvery is how often a refused leave is asked for again.
	leaveEvery = 2 * time.Second
	// outboxSize is how many messages may wait to be sent. A stream that lets so
	// many wait is stuck, and a new one starts from the present state.
	outboxSize = 256
)

// The reasons for which a session ends from this side.
var (
	errUnreached = fmt.Errorf("%w: the coordinator did not answer within %v", member.ErrUnavailable, openTime)
	errNoWelcome = fmt.Errorf("%w: the coordinator did not accept the session within %v", member.ErrUnavailable, welcomeTime)
	errStuck     = fmt.Errorf("%w: %d messages wait for the coordinator", member.ErrUnavailable, outboxSize)
	errOldLeader = fmt.Errorf("a newer leader is known: %w", &member.NotLeaderError{})
	errEnded     = fmt.Errorf("%w: the coordinator ended the session", member.ErrUnavailable)
	errNewSpec   = errors.New("the configuration has changed")
	errLeft      = errors.New("the server has left its pool")
)

// ErrNoAck ends a session whose coordinator takes in nothing any more.
var ErrNoAck = fmt.Errorf("%w: the coordinator did not acknowledge a digest within %v", member.ErrUnavailable, ackTime)

// stream is a session's stream.
type stream interface {
	Send(m *pb.SessionRequest) error
	Recv() (*pb.SessionResponse, error)
}

// session is one stream to a coordinator. Its reader answers challenges itself,
// so that nothing that takes time comes between a challenge and its echo; its
// writer sends echoes first; its loop does everything else.
type session struct {
	*Daemon

	stream stream
	inbox  chan *pb.SessionResponse
	urgent chan *pb.SessionRequest
	outbox chan *pb.SessionRequest
	stuck  chan struct{}
	// accepted is closed when the Welcome has been taken.
	accepted chan struct{}
	work     *errgroup.Group
	// slots bounds the examinations.
	slots chan struct{}
	// newest is the Assignment.Seq that came last.
	newest atomic.Uint64

	// The rest is the loop's own.

	// welcomed is nil before the Welcome.
	welcomed *welcome
	digests  uint64
	// unacked is the digest that is waited for until ackBy, or 0.
	unacked uint64
	ackBy   time.Time
	nextDig time.Time
	// leaveAt is when to ask to leave, or zero.
	leaveAt time.Time
}

// hold runs one session from Hello to its end and returns what the coordinator
// said, or nil if it never accepted, and why the session ended, never nil.
func (d *Daemon) hold(
	daemonCtx context.Context, open func(context.Context) (stream, error), hello *pb.SessionRequest,
) (*welcome, error) {
	ctx, cancel := context.WithCancel(daemonCtx)
	defer cancel()
	work, ctx := errgroup.WithContext(ctx)
	late := time.AfterFunc(openTime, cancel)
	st, err := open(ctx)
	if err == nil {
		err = st.Send(hello)
	}
	switch {
	case !late.Stop() && daemonCtx.Err() == nil:
		return nil, errUnreached
	case err != nil && !errors.Is(err, io.EOF):
		return nil, fmt.Errorf("open session: %w", err)
	}
	s := &session{
		Daemon: d, stream: st, work: work,
		inbox: make(chan *pb.SessionResponse, outboxSize), urgent: make(chan *pb.SessionRequest, outboxSize),
		outbox: make(chan *pb.SessionRequest, outboxSize), stuck: make(chan struct{}, 1),
		accepted: make(chan struct{}), slots: make(chan struct{}, maxExaminations),
	}
	work.Go(func() error { return s.read(ctx) })
	work.Go(func() error { return s.write(ctx) })
	work.Go(func() error { return s.loop(ctx) })
	err = work.Wait()
	d.watcher.attach(daemonCtx, nil)
	d.checkup.attach(daemonCtx, nil)
	return s.welcomed, err
}

// read receives until the stream ends.
func (s *session) read(ctx context.Context) error {
	for {
		m, err := s.stream.Recv()
		if errors.Is(err, io.EOF) {
			return errEnded
		}
		if err != nil {
			return err
		}
		if c := m.GetChallenge(); c != nil && !s.outdated(m) {
			s.put(s.urgent, &pb.SessionRequest{Message: &pb.SessionRequest_Echo{Echo: &pb.Echo{Nonce: c.GetNonce()}}})
			s.metrics.echoes.Inc()
			continue
		}
		select {
		case s.inbox <- m:
		case <-ctx.Done():
			return ctx.Err()
		}
		if m.GetWelcome() == nil {
			continue
		}
		// Which epochs are outdated depends on the Welcome.
		select {
		case <-s.accepted:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// outdated reports whether a message comes from a leader that has been
// succeeded. Before the Welcome it is not known which store this is.
func (s *session) outdated(m *pb.SessionResponse) bool {
	return m.GetEpoch() < s.floor.Load()
}

// write sends until the session ends. Why a send has failed is the reader's to
// find out.
func (s *session) write(ctx context.Context) error {
	for {
		var m *pb.SessionRequest
		select {
		case m = <-s.urgent:
		default:
			select {
			case m = <-s.urgent:
			case m = <-s.outbox:
			case <-s.stuck:
				return errStuck
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := s.stream.Send(m); err != nil {
			if errors.Is(err, io.EOF) {
				<-ctx.Done()
			}
			return err
		}
	}
}

// put queues a message without blocking; a full queue ends the session.
func (s *session) put(queue chan<- *pb.SessionRequest, m *pb.SessionRequest) {
	select {
	case queue <- m:
	default:
		select {
		case s.stuck <- struct{}{}:
		default:
		}
	}
}

// loop handles messages and time.
func (s *session) loop(ctx context.Context) error {
	begun := time.Now()
	timer := time.NewTimer(welcomeTime)
	defer timer.Stop()
	leaving := s.leaving.asked
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.respec:
			return errNewSpec
		case <-leaving:
			leaving = nil
			s.leaveAt = time.Now()
		case <-s.keeper.turned:
			s.nextDig = time.Now()
		case m := <-s.inbox:
			if err := s.handle(ctx, m); err != nil {
				return err
			}
		case <-timer.C:
		}
		next, err := s.due(begun)
		if err != nil {
			return err
		}
		timer.Reset(time.Until(next))
	}
}

// due does what is due by now and returns when to look again.
func (s *session) due(begun time.Time) (time.Time, error) {
	now := time.Now()
	if s.welcomed == nil {
		if !now.Before(begun.Add(welcomeTime)) {
			return now, errNoWelcome
		}
		return begun.Add(welcomeTime), nil
	}
	if s.unacked != 0 && !now.Before(s.ackBy) && len(s.inbox) == 0 {
		s.metrics.missedAcks.Inc()
		return now, ErrNoAck
	}
	if !now.Before(s.nextDig) {
		s.digest(now)
	}
	next := s.nextDig
	if s.unacked != 0 && s.ackBy.Before(next) {
		next = s.ackBy
	}
	if !s.leaveAt.IsZero() {
		if !now.Before(s.leaveAt) {
			s.leaveAt = time.Time{}
			s.leave(now)
		} else if s.leaveAt.Before(next) {
			next = s.leaveAt
		}
	}
	return next, nil
}

// leave asks to leave: after a drain, which may take what is left of its time, or
// at once where the configuration says so.
func (s *session) leave(now time.Time) {
	s.keeper.update(func(st *State) { st.Leaving = true }, nil)
	reason, drained := s.leaving.terms()
	leave := &pb.Leave{Incarnation: uint64(s.welcomed.incarnation), Reason: reason}
	if s.cfg.DrainTimeout > 0 {
		leave.DrainTimeout = durationpb.New(max(0, drained.Sub(now)))
	}
	s.put(s.outbox, &pb.SessionRequest{Message: &pb.SessionRequest_Leave{Leave: leave}})
}

func (s *session) digest(now time.Time) {
	s.digests++
	digest := toDigest(s.digests, s.watcher.sees(), toHealth(s.welcomed.incarnation, s.checkup.sees()))
	digest.GetDigest().StateTrouble = printable(s.keeper.trouble())
	s.put(s.outbox, digest)
	s.metrics.digests.Inc()
	s.nextDig = now.Add(s.welcomed.digestEvery)
	if s.unacked == 0 {
		s.unacked, s.ackBy = s.digests, now.Add(ackTime)
	}
}

// handle takes one message; an error ends the session.
func (s *session) handle(ctx context.Context, m *pb.SessionResponse) error {
	if w := m.GetWelcome(); w != nil {
		if s.welcomed != nil {
			return member.Invalid("welcome", "was already sent on this stream")
		}
		return s.accept(ctx, m.GetEpoch(), w)
	}
	if s.outdated(m) {
		s.metrics.stale.Inc()
		return nil
	}
	if s.welcomed == nil {
		return nil
	}
	s.raiseEpoch(member.Epoch(m.GetEpoch()))
	switch m := m.GetMessage().(type) {
	case *pb.SessionResponse_Assignment:
		a, err := parseAssignment(m.Assignment)
		if err != nil {
			return fmt.Errorf("take assignment: %w", err)
		}
		s.obey(ctx, a)
	case *pb.SessionResponse_Question:
		q, err := parseQuestion(m.Question)
		if err != nil {
			return fmt.Errorf("take question: %w", err)
		}
		s.examine(ctx, q)
	case *pb.SessionResponse_DigestAck:
		if m.DigestAck.GetSeq() >= s.unacked {
			s.unacked = 0
		}
	case *pb.SessionResponse_LeaveResult:
		if s.leaving.isAsked() {
			return s.left(ctx, m.LeaveResult)
		}
	case *pb.SessionResponse_Standing:
		s.stand(parseStanding(m.Standing))
	}
	return nil
}

// accept takes a Welcome: from here on this stream is the agent's session.
func (s *session) accept(ctx context.Context, epoch uint64, in *pb.Welcome) error {
	w, err := parseWelcome(in)
	if err != nil {
		return fmt.Errorf("take welcome: %w", err)
	}
	if w.storeID == s.keeper.get().StoreID && epoch < s.floor.Load() {
		s.metrics.stale.Inc()
		return errOldLeader
	}
	s.log.Info("session accepted", "incarnation", w.incarnation, "resumed", w.resumed,
		"epoch", epoch, "revision", w.assignment.Revision)
	w.at = time.Now()
	s.welcomed = &w
	s.floor.Store(epoch)
	close(s.accepted)
	s.keeper.update(func(st *State) {
		st.Pool, st.ID = s.id.pool, s.id.server
		st.Incarnation, st.StoreID, st.Epoch = w.incarnation, w.storeID, member.Epoch(epoch)
		st.BootID, st.Leaving = s.id.bootID, false
		st.Coordinators = w.coordinators
	}, nil)
	if w.standing != nil {
		s.stand(*w.standing)
	}
	s.obey(ctx, w.assignment)
	s.watcher.attach(ctx, func(r detector.Report) { s.put(s.outbox, toReport(r)) })
	s.checkup.attach(ctx, func(v health.Verdict) {
		s.put(s.outbox, &pb.SessionRequest{Message: &pb.SessionRequest_ServiceHealth{ServiceHealth: toHealth(w.incarnation, &v)}})
	})
	s.nextDig = time.Now()
	s.link.up()
	return nil
}

// raiseEpoch notes a newer leader of the same store.
func (s *session) raiseEpoch(epoch member.Epoch) {
	if uint64(epoch) <= s.floor.Load() {
		return
	}
	s.floor.Store(uint64(epoch))
	s.keeper.update(func(st *State) { st.Epoch = epoch }, nil)
}

// obey watches whom the coordinator says, at once, has it saved, and says so
// when it is: a server without watchers should not wait for a disk. While the
// disk takes nothing, nothing is acknowledged.
func (s *session) obey(ctx context.Context, a Assignment) {
	s.watcher.assign(ctx, a)
	s.newest.Store(a.Seq)
	s.keeper.update(func(st *State) { st.Assignment = a }, func(err error) (again bool) {
		if err != nil {
			return ctx.Err() == nil && s.newest.Load() == a.Seq
		}
		s.put(s.outbox, &pb.SessionRequest{Message: &pb.SessionRequest_AssignmentAck{
			AssignmentAck: &pb.AssignmentAck{Seq: a.Seq},
		}})
		return false
	})
}

// left hears how a leave went. A disk that takes nothing does not keep the agent
// from ending.
func (s *session) left(ctx context.Context, r *pb.LeaveResult) error {
	if !r.GetLeft() {
		s.log.Warn("leave refused, asking again", "reason", r.GetText())
		s.leaving.refused(r.GetText())
		s.leaveAt = time.Now().Add(leaveEvery)
		return nil
	}
	s.sayLeft(r)
	s.persist(ctx, func(st *State) { st.Incarnation, st.Leaving, st.Assignment = 0, false, Assignment{} })
	return errLeft
}

// sayLeft says whether it is safe to stop the server now.
func (s *session) sayLeft(r *pb.LeaveResult) {
	switch r.GetDrain() {
	case pb.DrainState_DRAIN_STATE_SAFE:
		s.log.Info("left the pool: SAFE, every router has confirmed", "incarnation", s.welcomed.incarnation)
	case pb.DrainState_DRAIN_STATE_PARTIAL:
		missing := make([]string, len(r.GetMissing()))
		for i, m := range r.GetMissing() {
			missing[i] = printable(m.GetRouterId()) + " (last heard " + m.GetLastSeen().AsTime().Format(time.RFC3339) + ")"
		}
		s.log.Warn("left the pool: PARTIAL, some routers have not confirmed and may send work still",
			"incarnation", s.welcomed.incarnation, "routers", missing)
	case pb.DrainState_DRAIN_STATE_UNSPECIFIED:
		s.log.Info("left the pool", "incarnation", s.welcomed.incarnation)
	}
}
