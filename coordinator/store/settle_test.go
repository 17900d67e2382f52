package store_test

import (
	"errors"
	"testing"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

// settles fails the test unless a change is settled as said, and nothing changes
// by that.
func settles(t *testing.T, s *store.Store, c member.Change, want bool) {
	t.Helper()
	before := readPools(t, s)
	for range 2 {
		if isIn, err := s.Settle(t.Context(), c); err != nil || isIn != want {
			t.Errorf("settled: %t, %v; want %t", isIn, err, want)
		}
	}
	diff(t, "pools", before, readPools(t, s))
}

// What is not in the table is not made, and the next change finds the base free.
func TestSettleMakesNothing(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	settles(t, s, joinOne(at), false)
	other := change(at)
	other.ID = "other"
	commit(t, s, other)
	if _, err := s.Settle(t.Context(), joinOne(at)); !errors.Is(err, member.ErrStale) {
		t.Errorf("after another change: %v, want ErrStale", err)
	}
}

func TestSettleFindsWhatIsIn(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	at = commit(t, s, joinOne(at))
	at.Revision--
	settles(t, s, joinOne(at), true)
	at.Revision++
	commit(t, s, end(at))
	settles(t, s, end(at), true)
}

func TestErrorsOfSettle(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	elsewhere := change(at)
	elsewhere.Pool = "nope"
	if _, err := s.Settle(t.Context(), elsewhere); !errors.Is(err, member.ErrNotFound) {
		t.Errorf("in an unknown pool: %v, want ErrNotFound", err)
	}
	early := change(member.Position{Epoch: at.Epoch, Revision: at.Revision + 1})
	if _, err := s.Settle(t.Context(), early); !errors.Is(err, member.ErrUnavailable) {
		t.Errorf("from a revision the table has not seen: %v, want ErrUnavailable", err)
	}
	lead(t, s)
	if _, err := s.Settle(t.Context(), change(at)); !errors.Is(err, member.ErrFenced) {
		t.Errorf("in an epoch that is over: %v, want ErrFenced", err)
	}
}
