package server

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// softWindow is how many marks a subscriber may be behind before it gets the
// full set again.
const softWindow = 4096

// marks is the soft state of all pools in the order in which it was published.
// It numbers the marks itself: a router's order spans the pools. It is safe for
// concurrent use; the messages it gives out are shared and must not be changed.
type marks struct {
	bell *bell

	mu  sync.Mutex
	seq uint64
	// recent are the newest marks, without gaps, in order.
	recent []*pb.SoftMark
	// active are the marks that hold, until their time.
	active map[markKey]activeMark
}

type markKey struct {
	pool member.Pool
	id   member.ID
}

type activeMark struct {
	mark  *pb.SoftMark
	until time.Time
}

func newMarks(b *bell) *marks {
	return &marks{bell: b, active: map[markKey]activeMark{}}
}

// publish adds a mark and wakes the readers.
func (l *marks) publish(name member.Pool, m member.Mark, now time.Time) {
	l.add(name, m, now)
	l.bell.ring()
}

func (l *marks) add(name member.Pool, m member.Mark, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	mark := &pb.SoftMark{
		Pool: string(name), ServerId: string(m.ID), Incarnation: uint64(m.Incarnation),
		Suspect: &m.Suspect, ServiceDown: &m.ServiceDown, SoftSeq: l.seq, Ttl: toOptionalDuration(m.TTL),
	}
	if m.Suspect || m.ServiceDown {
		l.active[markKey{name, m.ID}] = activeMark{mark, now.Add(m.TTL)}
	} else {
		delete(l.active, markKey{name, m.ID})
	}
	l.recent = append(l.recent, mark)
	if len(l.recent) > softWindow {
		l.recent[0] = nil
		l.recent = l.recent[1:]
	}
}

// forget drops the marks that hold in a pool.
func (l *marks) forget(name member.Pool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.active, func(key markKey, _ activeMark) bool { return key.pool == name })
}

// suspects counts the suspect marks of a pool that hold.
func (l *marks) suspects(name member.Pool) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for key, a := range l.active {
		if key.pool == name && a.mark.GetSuspect() {
			n++
		}
	}
	return n
}

// after returns the marks after a number, and false when they are no longer all
// there.
func (l *marks) after(cursor uint64) ([]*pb.SoftMark, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if cursor > l.seq || l.seq-cursor > uint64(len(l.recent)) {
		return nil, false
	}
	return slices.Clone(l.recent[uint64(len(l.recent))-(l.seq-cursor):]), true
}

// full returns all marks that hold, with the time they have left, by pool and
// id, and the number of the newest mark that they account for.
func (l *marks) full(now time.Time) ([]*pb.SoftMark, uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*pb.SoftMark
	for key, a := range l.active {
		left := a.until.Sub(now)
		if left <= 0 {
			delete(l.active, key)
			continue
		}
		all = append(all, &pb.SoftMark{
			Pool: a.mark.GetPool(), ServerId: a.mark.GetServerId(), Incarnation: a.mark.GetIncarnation(),
			Suspect: a.mark.Suspect, ServiceDown: a.mark.ServiceDown, SoftSeq: a.mark.GetSoftSeq(), Ttl: durationpb.New(left),
		})
	}
	slices.SortFunc(all, func(a, b *pb.SoftMark) int {
		if c := strings.Compare(a.GetPool(), b.GetPool()); c != 0 {
			return c
		}
		return strings.Compare(a.GetServerId(), b.GetServerId())
	})
	return all, l.seq
}
