package server_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// The epochs of another store say nothing about this one's.
func TestSubscribe_AnotherStoreOfALowerEpoch(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(start("store", 5), snapshot(at(5, 10), rows(2)...), suspect(5, 9, "s000", time.Minute), synced(5, 9), bookmark(at(5, 10)))
		s.end <- member.ErrUnavailable
		s = w.coordinators[second].next()
		s.send(start("other", 1), snapshot(at(1, 3), rows(3)...), suspect(1, 2, "s001", time.Minute), synced(1, 2), bookmark(at(1, 3)))
		if diff := cmp.Diff([]string{"active s000", "active s002", "suspect s001"}, w.resolved()); diff != "" {
			t.Errorf("resolved (-want +got):\n%s", diff)
		}
		if got := s.ack(); got.GetSoftEpoch() != 1 || got.GetSoftSeq() != 2 {
			t.Errorf("acknowledged the marks up to %d of epoch %d, want 2 of 1", got.GetSoftSeq(), got.GetSoftEpoch())
		}
	}, first, second)
}

// A stream begins with its start, and with nothing else.
func TestSubscribe_RefusesABadBeginning(t *testing.T) {
	t.Parallel()
	for name, beginning := range map[string]*pb.SubscribeResponse{
		"no store id": start("", 1),
		"snapshot":    snapshot(at(1, 11), rows(3)...),
		"marks":       suspect(1, 1, "s000", time.Minute),
		"bookmark":    bookmark(at(1, 10)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				w.start()
				s := w.coordinators[first].next()
				s.send(catchUp(2)...)
				before := w.resolved()
				s.end <- member.ErrUnavailable
				w.coordinators[second].next().send(beginning)
				begun := time.Now()
				hello := w.coordinators[first].next().hello
				if took := time.Since(begun); took > time.Second {
					t.Errorf("left after %v, want at once", took)
				}
				if hello.GetStoreId() != "store" || !cmp.Equal(before, w.resolved()) {
					t.Errorf("of store %q it serves %v instead of %v", hello.GetStoreId(), w.resolved(), before)
				}
			}, first, second)
		})
	}
}
