package daemon

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
)

// TestItinerary: whatever happens, the pauses stay within bounds, and an agent
// that cannot reach anybody tries every address in turn.
func TestItinerary(t *testing.T) {
	t.Parallel()
	list := []string{"a:1", "b:1", "c:1"}
	rapid.Check(t, func(t *rapid.T) {
		trip := newItinerary()
		spread := rapid.SampledFrom([]time.Duration{0, time.Second, 10 * time.Second}).Draw(t, "spread")
		errs := []error{
			member.ErrUnavailable, member.ErrStale, member.ErrAlreadyExists, errNoAck, errNoWelcome, errOldLeader, errNewSpec,
			&member.NotLeaderError{Leader: "d:1"}, &member.NotLeaderError{Leader: "garbage"}, errors.New("unknown"),
			rpc.WithRetry(member.ErrUnavailable, time.Hour),
		}
		free := 0 // attempts in a row without a pause
		for range rapid.IntRange(1, 100).Draw(t, "attempts") {
			trip.next(list)
			var w *welcome
			if rapid.Bool().Draw(t, "welcomed") {
				w = &welcome{spread: spread}
			}
			err := rapid.SampledFrom(errs).Draw(t, "error")
			wait := trip.after(w, err, len(list), rapid.Float64Range(0, 0.999).Draw(t, "jitter"))
			if wait < 0 || wait > refusedMax+retryFirst {
				t.Fatalf("pause of %v after %v", wait, err)
			}
			if w == nil && trip.hint != "" {
				free++
			} else {
				free = 0
			}
			if free > maxHints {
				t.Fatalf("followed %d leaders in a row without a pause", free)
			}
		}
	})
}

func TestItineraryTriesEveryAddressInTurn(t *testing.T) {
	t.Parallel()
	list := []string{"a:1", "b:1", "c:1"}
	trip := newItinerary()
	var total time.Duration
	for turn := range 5 {
		for i, want := range list {
			if got := trip.next(list); got != want {
				t.Fatalf("turn %d: %s, want %s", turn, got, want)
			}
			wait := trip.after(nil, member.ErrUnavailable, len(list), 0.999)
			if i < len(list)-1 && wait > nextAddress {
				t.Errorf("pause of %v within a turn", wait)
			}
			total += wait
		}
	}
	// A standby takes over 4 s after its leader's end; five turns see it through.
	if total < 4*time.Second || total > 6*time.Second {
		t.Errorf("five turns take %v", total)
	}
}

// TestItineraryFollowsTheLeader that a coordinator names: at once, but not
// together with everybody else whose session has ended.
func TestItineraryFollowsTheLeader(t *testing.T) {
	t.Parallel()
	list := []string{"a:1", "b:1"}
	named := &member.NotLeaderError{Leader: "d:1"}
	trip := newItinerary()
	trip.next(list)
	if wait := trip.after(nil, named, 2, 0.5); wait != 0 {
		t.Errorf("pause of %v after a standby's answer", wait)
	}
	if got := trip.next(list); got != "d:1" {
		t.Errorf("next %s, not the leader", got)
	}
	if wait := trip.after(&welcome{spread: 8 * time.Second}, named, 2, 0.5); wait != 4*time.Second {
		t.Errorf("pause of %v after the end of a session, want half of the spread", wait)
	}
	if got := trip.next(list); got != "d:1" {
		t.Errorf("next %s, not the new leader", got)
	}
	// The leader that was named is dead: the others are tried.
	trip.after(nil, member.ErrUnavailable, 2, 0.5)
	if got := trip.next(list); got != "b:1" {
		t.Errorf("next %s", got)
	}
}

// TestItineraryDoesNotReturnToASilentLeader: those who stand by name it for a
// while after its end. In the next turn they are believed again.
func TestItineraryDoesNotReturnToASilentLeader(t *testing.T) {
	t.Parallel()
	list := []string{"a:1", "b:1", "c:1"}
	named := &member.NotLeaderError{Leader: "a:1"}
	for name, silence := range map[string]error{"no ack": errNoAck, "no answer": errUnreached, "no welcome": errNoWelcome} {
		trip := newItinerary()
		trip.next(list)
		var w *welcome
		if errors.Is(silence, errNoAck) {
			w = &welcome{spread: time.Second}
		}
		trip.after(w, silence, len(list), 0)
		for _, want := range list[1:] {
			if got := trip.next(list); got != want {
				t.Errorf("%s: next %s, want %s", name, got, want)
			}
			trip.after(nil, named, len(list), 0)
		}
		trip.next(list)
		trip.after(nil, named, len(list), 0)
		if got := trip.next(list); got != "a:1" {
			t.Errorf("%s: next %s, want the leader that is named again", name, got)
		}
	}
}

func TestItineraryReturnsToTheSameAddressAfterALoss(t *testing.T) {
	t.Parallel()
	list := []string{"a:1", "b:1"}
	trip := newItinerary()
	if wait := trip.after(&welcome{spread: 8 * time.Second}, member.ErrUnavailable, 2, 0.5); wait != 4*time.Second {
		t.Errorf("pause of %v, want half of the spread", wait)
	}
	if got := trip.next(list); got != "a:1" {
		t.Errorf("next %s", got)
	}
	trip.after(&welcome{spread: time.Second}, errNoAck, 2, 0.5)
	if got := trip.next(list); got != "b:1" {
		t.Errorf("after a coordinator that is stuck: %s", got)
	}
}
