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
		trip := NewItinerary()
		spread := rapid.SampledFrom([]time.Duration{0, time.Second, 10 * time.Second}).Draw(t, "spread")
		errs := []error{
			member.ErrUnavailable, member.ErrStale, member.ErrAlreadyExists, ErrNoAck, errNoWelcome, errOldLeader, errNewSpec,
			&member.NotLeaderError{Leader: "d:1"}, &member.NotLeaderError{Leader: "garbage"}, errors.New("unknown"),
			rpc.WithRetry(member.ErrUnavailable, time.Hour),
		}
		free := 0 // attempts in a row without a pause
		for range rapid.IntRange(1, 100).Draw(t, "attempts") {
			trip.Next(list)
			a := Attempt{Welcomed: rapid.Bool().Draw(t, "welcomed"), Spread: spread, Err: rapid.SampledFrom(errs).Draw(t, "error")}
			wait := trip.After(a, len(list), rapid.Float64Range(0, 0.999).Draw(t, "jitter"))
			if wait < 0 || wait > max(refusedMax+retryFirst, maxAway) {
				t.Fatalf("pause of %v after %v", wait, a.Err)
			}
			if !a.Welcomed && trip.hint != "" {
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
	trip := NewItinerary()
	var total time.Duration
	for turn := range 5 {
		for i, want := range list {
			if got := trip.Next(list); got != want {
				t.Fatalf("turn %d: %s, want %s", turn, got, want)
			}
			wait := trip.After(Attempt{Err: member.ErrUnavailable}, len(list), 0.999)
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
	trip := NewItinerary()
	trip.Next(list)
	if wait := trip.After(Attempt{Err: named}, 2, 0.5); wait != 0 {
		t.Errorf("pause of %v after a standby's answer", wait)
	}
	if got := trip.Next(list); got != "d:1" {
		t.Errorf("next %s, not the leader", got)
	}
	if wait := trip.After(Attempt{Welcomed: true, Spread: 8 * time.Second, Err: named}, 2, 0.5); wait != 4*time.Second {
		t.Errorf("pause of %v after the end of a session, want half of the spread", wait)
	}
	if got := trip.Next(list); got != "d:1" {
		t.Errorf("next %s, not the new leader", got)
	}
	// The leader that was named is dead: the others are tried.
	trip.After(Attempt{Err: member.ErrUnavailable}, 2, 0.5)
	if got := trip.Next(list); got != "b:1" {
		t.Errorf("next %s", got)
	}
}

// TestItineraryDoesNotReturnToASilentLeader: those who stand by name it for a
// while after its end. In the next turn they are believed again.
func TestItineraryDoesNotReturnToASilentLeader(t *testing.T) {
	t.Parallel()
	list := []string{"a:1", "b:1", "c:1"}
	named := &member.NotLeaderError{Leader: "a:1"}
	for name, silence := range map[string]error{"no ack": ErrNoAck, "no answer": errUnreached, "no welcome": errNoWelcome} {
		trip := NewItinerary()
		trip.Next(list)
		welcomed := errors.Is(silence, ErrNoAck)
		trip.After(Attempt{Welcomed: welcomed, Spread: time.Second, Err: silence}, len(list), 0)
		for _, want := range list[1:] {
			if got := trip.Next(list); got != want {
				t.Errorf("%s: next %s, want %s", name, got, want)
			}
			trip.After(Attempt{Err: named}, len(list), 0)
		}
		trip.Next(list)
		trip.After(Attempt{Err: named}, len(list), 0)
		if got := trip.Next(list); got != "a:1" {
			t.Errorf("%s: next %s, want the leader that is named again", name, got)
		}
	}
}

func TestItineraryReturnsToTheSameAddressAfterALoss(t *testing.T) {
	t.Parallel()
	list := []string{"a:1", "b:1"}
	trip := NewItinerary()
	if wait := trip.After(Attempt{Welcomed: true, Spread: 8 * time.Second, Err: member.ErrUnavailable}, 2, 0.5); wait != 4*time.Second {
		t.Errorf("pause of %v, want half of the spread", wait)
	}
	if got := trip.Next(list); got != "a:1" {
		t.Errorf("next %s", got)
	}
	trip.After(Attempt{Welcomed: true, Spread: time.Second, Err: ErrNoAck}, 2, 0.5)
	if got := trip.Next(list); got != "b:1" {
		t.Errorf("after a coordinator that is stuck: %s", got)
	}
}

// TestItineraryStaysAwayFromACoordinatorThatCannotKeepUp longer each time that it
// gets stuck soon, so that it can catch up with those who stay.
func TestItineraryStaysAwayFromACoordinatorThatCannotKeepUp(t *testing.T) {
	t.Parallel()
	list := []string{"a:1"}
	trip := NewItinerary()
	after := func(err error, lasted time.Duration) time.Duration {
		trip.Next(list)
		return trip.After(Attempt{Welcomed: true, Spread: 8 * time.Second, Lasted: lasted, Err: err}, 1, 0.5)
	}
	for stall, want := range []string{"4s", "8s", "16s", "32s", "1m0s", "1m0s", "1m0s"} {
		if wait := after(ErrNoAck, 5*time.Second); wait.String() != want {
			t.Errorf("stall %d: pause of %v, want %s", stall+1, wait, want)
		}
		trip.After(Attempt{Err: member.ErrUnavailable}, 1, 0.5)
	}
	if wait := after(ErrNoAck, lasting); wait != 4*time.Second {
		t.Errorf("pause of %v after a session that has lasted", wait)
	}
	after(ErrNoAck, 0)
	if wait := after(member.ErrUnavailable, 0); wait != 4*time.Second {
		t.Errorf("pause of %v after a lost session", wait)
	}
	if wait := after(ErrNoAck, 0); wait != 4*time.Second {
		t.Errorf("pause of %v after the first stall", wait)
	}
}
