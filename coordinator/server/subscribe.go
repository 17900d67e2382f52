package server

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const (
	// bookmarkInterval is how often a subscriber hears where it stands.
	bookmarkInterval = time.Second
	// sendTime is how long one message may take to leave; a subscriber that
	// needs longer is dropped and resumes.
	sendTime = 10 * time.Second
	// A router acknowledges each change that it applies.
	acksPerSecond = 500
	acksBurst     = 2000
)

// membershipService serves the routers' subscriptions.
type membershipService struct {
	pb.UnimplementedMembershipServiceServer

	lead    leadership
	pools   *pools
	marks   *marks
	bell    *bell
	routers *routers
	alarms  ownAlarms
	closing *ending
	metrics *metrics

	// snapshots has a place for each snapshot under way.
	snapshots *line
	live      atomic.Int64
	streams   crowd
}

// subscription is one router's stream. Only feed's goroutine touches what is
// below over.
type subscription struct {
	service *membershipService
	stream  pb.MembershipService_SubscribeServer
	// sendingSince is when the message under way was handed over, nil for none.
	sendingSince atomic.Pointer[time.Time]
	over         *ending

	subscribing

	// cursors say what was sent of each pool; soft, of the marks, once synced.
	cursors map[member.Pool]member.Position
	soft    uint64
	synced  bool
	// deletions is how many deletions of pools were looked at.
	deletions int
	// giveUp gives up the place that was taken for a snapshot; nil for none.
	giveUp func()
}

var (
	errSlow = fmt.Errorf("%w: a message did not leave within %s; resume", member.ErrExhausted, sendTime)
	errAcks = fmt.Errorf("%w: more than %d acks a second", member.ErrExhausted, acksPerSecond)
)

// Subscribe runs one router's stream: a reader takes its acks, a feeder sends
// what is new, and this goroutine waits for whatever ends the stream first.
func (m *membershipService) Subscribe(stream pb.MembershipService_SubscribeServer) error {
	if !m.streams.enter() {
		return m.closing.reason()
	}
	defer m.streams.leave()
	m.live.Add(1)
	defer m.live.Add(-1)

	s := &subscription{
		service: m, stream: stream, over: newEnding(), cursors: map[member.Pool]member.Position{},
	}
	greeted := make(chan struct{})
	m.streams.run(func() { s.over.end(clean(s.read(greeted))) })
	s.await(greeted)
	err := s.over.reason()
	if errors.Is(err, errSlow) {
		m.metrics.ended.WithLabelValues("membership", "slow").Inc()
	}
	return err
}

// await returns when the stream is over, and ends it when the router does not
// greet, does not take what is sent, or when the coordinator stops.
func (s *subscription) await(greeted <-chan struct{}) {
	late := time.NewTimer(helloTime)
	defer late.Stop()
	watch := time.NewTicker(bookmarkInterval)
	defer watch.Stop()
	for {
		select {
		case <-s.over.done():
			return
		case <-s.service.closing.done():
			s.over.end(s.service.closing.reason())
		case <-greeted:
			greeted = nil
			late.Stop()
		case <-late.C:
			s.over.end(member.Invalid("hello", "was not sent within %s", helloTime))
		case now := <-watch.C:
			if since := s.sendingSince.Load(); since != nil && now.Sub(*since) > sendTime {
				s.over.end(errSlow)
			}
		}
	}
}

// read receives the hello, starts the feeder, and takes acks until the stream
// ends.
func (s *subscription) read(greeted chan<- struct{}) error {
	first, err := s.stream.Recv()
	if err != nil {
		return err
	}
	if first.GetHello() == nil {
		return member.Invalid("hello", "must be the first message of the stream")
	}
	if s.subscribing, err = parseSubscribe(first.GetHello(), peerOf(s.stream.Context())); err != nil {
		return err
	}
	m := s.service
	if err := m.routers.connect(arrival{s.router, s.run, s.version, s.pools, s.has()}, time.Now()); err != nil {
		return err
	}
	close(greeted)
	fed := make(chan struct{})
	m.streams.run(func() {
		defer close(fed)
		if err := s.feed(); err != nil {
			s.over.end(err)
		}
	})
	err = s.takeAcks()
	// A stream that the router has closed is a goodbye; one that broke, or that it
	// gave up to try another coordinator, is not.
	goodbye := !s.over.ended() && errors.Is(err, io.EOF)
	s.over.end(clean(err))
	<-fed
	m.routers.disconnect(s.router, s.run, goodbye, time.Now())
	return err
}

// has are the revisions of this history that the router brings along.
func (s *subscription) has() map[member.Pool]member.Revision {
	has := map[member.Pool]member.Revision{}
	if !s.sameStore() {
		return has
	}
	for name, p := range s.resume {
		if h := s.service.pools.find(name); h != nil && h.history.refutes(p) == "" {
			has[name] = p.Revision
		}
	}
	return has
}

func (s *subscription) takeAcks() error {
	limit := rate.NewLimiter(acksPerSecond, acksBurst)
	for {
		req, err := s.stream.Recv()
		if err != nil {
			return err
		}
		if !limit.Allow() {
			return errAcks
		}
		switch r := req.GetMessage().(type) {
		case *pb.SubscribeRequest_Hello:
			return member.Invalid("hello", "was already sent on this stream")
		case *pb.SubscribeRequest_Ack:
			a, err := parseAck(r.Ack)
			if err != nil {
				return err
			}
			s.service.acknowledge(s.router, s.run, a)
		}
	}
}

// acknowledge takes over an ack. Positions of another history count for nothing.
func (m *membershipService) acknowledge(id member.ID, run string, a ack) {
	applied := a.applied[:0:0]
	for _, p := range a.applied {
		if h := m.pools.find(p.pool); h != nil && h.history.refutes(p.point) == "" {
			applied = append(applied, p)
		}
	}
	a.applied = applied
	m.routers.ack(id, run, a, time.Now())
}

// feed sends the past, then what is new whenever there is something, and
// bookmarks, until the stream is over or a message cannot be sent.
func (s *subscription) feed() error {
	m := s.service
	defer s.leavePlace()
	news := m.bell.next()
	if err := s.begin(); err != nil {
		return err
	}
	bookmarks := time.NewTicker(bookmarkInterval)
	defer bookmarks.Stop()
	for {
		select {
		case <-news:
			news = m.bell.next()
			if err := s.catchUp(); err != nil {
				return err
			}
		case <-bookmarks.C:
			if err := s.bookmark(); err != nil {
				return err
			}
		case <-s.over.done():
			return nil
		case <-s.stream.Context().Done():
			return nil
		}
	}
}

func (s *subscription) send(r *pb.SubscribeResponse) error { return s.sendAny(r) }

// deliver sends a parcel and reports whether it was encoded for this subscriber.
func (s *subscription) deliver(p *parcel) (first bool, err error) {
	message, first, err := p.open()
	if err != nil {
		return first, err
	}
	return first, s.sendAny(message)
}

// sendAny sends a message, or one that is encoded. gRPC takes a message of any size
// at once and sends it by and by; only when it takes the next one, most of it has
// left.
func (s *subscription) sendAny(message any) error {
	now := time.Now()
	s.sendingSince.Store(&now)
	defer s.sendingSince.Store(nil)
	err := s.stream.SendMsg(message)
	s.leavePlace()
	return err
}

// begin sends the past, and at once a bookmark: with it the router knows that it has
// all pools, and may say that another one does not exist.
func (s *subscription) begin() error {
	if err := s.start(); err != nil {
		return err
	}
	if err := s.catchUp(); err != nil {
		return err
	}
	return s.bookmark()
}

func (s *subscription) start() error {
	for name, p := range s.resume {
		if s.sameStore() && p.Epoch > s.service.lead.epoch {
			return fmt.Errorf("resume pool %s at epoch %d, this leader is of epoch %d: %w",
				name, p.Epoch, s.service.lead.epoch, &member.NotLeaderError{})
		}
	}
	if s.storeID != "" && !s.sameStore() {
		s.service.alarms.raise(storeChanged(s.router, s.storeID, s.service.lead.storeID))
	}
	return s.send(&pb.SubscribeResponse{Message: &pb.SubscribeResponse_Start{Start: &pb.StreamStart{
		StoreId:          s.service.lead.storeID,
		Epoch:            uint64(s.service.lead.epoch),
		BookmarkInterval: durationpb.New(bookmarkInterval),
	}}})
}

func (s *subscription) sameStore() bool { return s.storeID == s.service.lead.storeID }

// catchUp sends all pools up to their heads, and then the marks. The marks are
// looked up first: none arrives before the row that it is about. Deletions and
// pools are of one moment: otherwise a pool that is deleted and made again in
// between would be sent as the old one gone on.
func (s *subscription) catchUp() error {
	news, present := s.softNews(), s.service.pools.present.Load()
	if err := s.sendDeleted(present); err != nil {
		return err
	}
	for _, h := range present.all {
		if s.pools != nil && !s.pools[h.pool] {
			continue
		}
		if err := s.advance(h.history); err != nil {
			return err
		}
	}
	return s.sendMarks(news)
}

// sendDeleted tells which of the pools that the router has were deleted. A new one
// of that name is one that it does not have.
func (s *subscription) sendDeleted(present *roster) error {
	if present.deletions == s.deletions {
		return nil
	}
	s.deletions = present.deletions
	has := map[member.Pool]member.Revision{}
	if s.sameStore() {
		for name, p := range s.resume {
			has[name] = p.Revision
		}
	}
	for name, p := range s.cursors {
		has[name] = p.Revision
	}
	for _, d := range present.deletedSince(has) {
		delete(s.cursors, d.Name)
		delete(s.resume, d.Name)
		err := s.send(&pb.SubscribeResponse{Message: &pb.SubscribeResponse_PoolDeleted{PoolDeleted: &pb.PoolDeleted{
			Pool: string(d.Name), Epoch: uint64(s.service.lead.epoch), Revision: uint64(d.Position.Revision),
		}}})
		if err != nil {
			return err
		}
	}
	return nil
}

// advance sends what a pool has that the router does not.
func (s *subscription) advance(h *history) error {
	cursor, known := s.cursors[h.name]
	if !known {
		resume, ok := s.resume[h.name]
		delete(s.resume, h.name)
		switch {
		case !ok:
			return s.snapshot(h)
		case !s.sameStore():
			return s.compacted(h, true)
		}
		if why := h.refutes(resume); why != "" {
			s.service.alarms.raise(wentBack(s.router, h.name, why))
			return s.compacted(h, true)
		}
		cursor = resume.Position
	}
	entries, ok := h.after(cursor.Revision)
	if !ok {
		return s.compacted(h, false)
	}
	confirmed, since := upToConfirmed(entries)
	for _, entries := range [][]*entry{confirmed, since} {
		if len(entries) == 0 {
			continue
		}
		delta := h.delta(entries)
		if _, err := s.deliver(delta); err != nil {
			return err
		}
		cursor.Revision = delta.leads.Revision
	}
	s.cursors[h.name] = member.Position{Epoch: s.service.lead.epoch, Revision: cursor.Revision}
	return nil
}

// softNews are marks to be sent, up to the number head. full says that they are
// all that hold.
type softNews struct {
	marks []*pb.SoftMark
	head  uint64
	full  bool
}

// softNews looks up the marks that the router does not have: at first, and when
// it is too far behind, the full set.
func (s *subscription) softNews() softNews {
	if s.synced {
		if recent, ok := s.service.marks.after(s.soft); ok {
			return softNews{marks: recent, head: s.soft + uint64(len(recent))}
		}
	}
	all, head := s.service.marks.full(time.Now())
	return softNews{marks: all, head: head, full: true}
}

func (s *subscription) sendMarks(news softNews) error {
	if marks := s.wanted(news.marks); len(marks) > 0 {
		err := s.send(&pb.SubscribeResponse{Message: &pb.SubscribeResponse_SoftMarks{SoftMarks: &pb.SoftMarks{
			Epoch: uint64(s.service.lead.epoch), Marks: marks,
		}}})
		if err != nil {
			return err
		}
	}
	s.soft, s.synced = news.head, true
	if !news.full {
		return nil
	}
	return s.send(&pb.SubscribeResponse{Message: &pb.SubscribeResponse_SoftSynced{SoftSynced: &pb.SoftSynced{
		Epoch: uint64(s.service.lead.epoch), SoftSeq: news.head,
	}}})
}

// wanted keeps the marks of the pools that the router subscribed to.
func (s *subscription) wanted(all []*pb.SoftMark) []*pb.SoftMark {
	if s.pools == nil {
		return all
	}
	var some []*pb.SoftMark
	for _, m := range all {
		if s.pools[member.Pool(m.GetPool())] {
			some = append(some, m)
		}
	}
	return some
}

// bookmark says what the router has been sent, not where the pools stand.
func (s *subscription) bookmark() error {
	var positions []*pb.Position
	for _, h := range s.service.pools.list() {
		if cursor, ok := s.cursors[h.pool]; ok {
			positions = append(positions, toPosition(h.pool, cursor))
		}
	}
	return s.send(&pb.SubscribeResponse{Message: &pb.SubscribeResponse_Bookmark{
		Bookmark: &pb.Bookmark{Positions: positions},
	}})
}

// storeChanged tells that a router comes from another database. It is one alarm for
// all of them.
func storeChanged(id member.ID, from, to string) member.Alarm {
	return member.Alarm{
		Name: alarmStoreChanged, Since: time.Now(),
		Text: fmt.Sprintf("router %s comes from the store %s, and this is %s: was a backup restored, or is it the wrong database?", id, from, to),
	}
}

// wentBack tells what a router has that the history does not.
func wentBack(id member.ID, name member.Pool, has string) member.Alarm {
	return member.Alarm{
		Name: alarmWentBack, Pool: name, Subject: string(id), Since: time.Now(),
		Text: fmt.Sprintf("router %s has of pool %s %s: was a backup restored?", id, name, has),
	}
}
