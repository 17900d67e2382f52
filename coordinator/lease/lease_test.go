package lease_test

import (
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/lease"
	"github.com/buddyring/buddyring/internal/member"
)

const ms = time.Millisecond

var start = time.Date(2026, 3, 29, 12, 0, 0, 0, time.UTC)

// held is the lease of a coordinator.
func held(holder member.ID, instance string, epoch member.Epoch, renewal uint64) member.Lease {
	return member.Lease{StoreID: "s", Holder: holder, Instance: instance, Advertise: string(holder) + ":7400", Epoch: epoch, Renewal: renewal}
}

// look is what a standby sees at a time after the start, and what follows.
type look struct {
	at    time.Duration
	lease member.Lease
	want  lease.Step
}

func TestWhenAStandbyTakesOver(t *testing.T) {
	t.Parallel()
	alive := func(n uint64) member.Lease { return held("b", "b-1", 7, n) }
	free := member.Lease{StoreID: "s", Epoch: 7, Renewal: 9}
	mine := func(n uint64) member.Lease { return held("a", "a-0", 7, n) }
	var known lease.Known
	known.See("s", 9)
	for name, c := range map[string]struct {
		self      lease.Self
		notBefore time.Duration
		looks     []look
	}{
		"nobody has led yet": {looks: []look{{0, member.Lease{}, lease.Take}}},
		"the leader renews": {looks: []look{
			{0, alive(1), lease.Wait},
			{1900 * ms, alive(2), lease.Wait},
			{3800 * ms, alive(3), lease.Wait},
			{5700 * ms, alive(4), lease.Wait},
			{7600 * ms, alive(4), lease.Wait},
			{9500 * ms, alive(4), lease.Wait},
			{9700 * ms, alive(4), lease.Take},
		}},
		"it stands still": {looks: []look{
			{0, alive(1), lease.Wait}, {1999 * ms, alive(1), lease.Wait}, {3999 * ms, alive(1), lease.Wait}, {4000 * ms, alive(1), lease.Take},
		}},
		"another one takes over": {looks: []look{
			{0, alive(1), lease.Wait},
			{2 * time.Second, alive(1), lease.Wait},
			{3999 * ms, alive(1), lease.Wait},
			{4100 * ms, held("c", "c-1", 8, 2), lease.Wait},
			{6 * time.Second, held("c", "c-1", 8, 2), lease.Wait},
			{8 * time.Second, held("c", "c-1", 8, 2), lease.Wait},
			{8100 * ms, held("c", "c-1", 8, 2), lease.Take},
		}},
		// While the standby sees nothing, the leader may be unable to renew.
		"an outage of the database": {looks: []look{
			{0, alive(1), lease.Wait},
			{10 * time.Second, alive(1), lease.Wait},
			{12 * time.Second, alive(1), lease.Wait},
			{13999 * ms, alive(1), lease.Wait},
			{14 * time.Second, alive(1), lease.Take},
		}},
		"it is given back": {looks: []look{{0, alive(1), lease.Wait}, {250 * ms, free, lease.Take}}},
		"it was given back by this one": {notBefore: 4 * time.Second, looks: []look{
			{0, free, lease.Wait}, {2 * time.Second, free, lease.Wait}, {3999 * ms, free, lease.Wait}, {4 * time.Second, free, lease.Take},
		}},
		"this run has it and does not know": {looks: []look{{0, held("a", "a-1", 7, 1), lease.Take}}},
		"a run before it is known to have ended": {
			self: lease.Self{ID: "a", Instance: "a-1", Predecessor: "a-0"}, looks: []look{{0, mine(1), lease.Take}},
		},
		"a run before it may be alive": {looks: []look{
			{0, mine(1), lease.Wait}, {2 * time.Second, mine(1), lease.Wait}, {4 * time.Second, mine(1), lease.Take},
		}},
		// What a run that has died had sent may still arrive.
		"a run before it has just died": {looks: []look{
			{0, mine(1), lease.Wait},
			{250 * ms, mine(2), lease.Wait},
			{500 * ms, mine(3), lease.Wait},
			{2500 * ms, mine(3), lease.Wait},
			{4500 * ms, mine(3), lease.Take},
		}},
		"a twin leads": {looks: []look{
			{0, mine(1), lease.Wait},
			{time.Second, mine(2), lease.Wait},
			{2 * time.Second, mine(3), lease.Wait},
			{3 * time.Second, mine(4), lease.GiveWay},
		}},
		// Whoever leads in a lower epoch is taken for a leader of the past.
		"the table was put back": {looks: []look{
			{0, alive(9), lease.Wait},
			{time.Second, held("c", "c-1", 5, 1), lease.Wait},
			{2500 * ms, held("c", "c-1", 5, 2), lease.Wait},
			{4 * time.Second, held("c", "c-1", 5, 3), lease.Wait},
			{4999 * ms, held("c", "c-1", 5, 4), lease.Wait},
			{5 * time.Second, held("c", "c-1", 5, 4), lease.Take},
		}},
		"it was put back before this watch": {self: lease.Self{ID: "a", Instance: "a-1", Known: known}, looks: []look{
			{0, alive(1), lease.Wait},
			{2 * time.Second, alive(2), lease.Wait},
			{3999 * ms, alive(3), lease.Wait},
			{4 * time.Second, alive(4), lease.Take},
		}},
		"a node of the database lags for a moment": {looks: []look{
			{0, alive(9), lease.Wait},
			{time.Second, held("c", "c-1", 5, 1), lease.Wait},
			{2 * time.Second, alive(10), lease.Wait},
			{3 * time.Second, held("c", "c-1", 5, 2), lease.Wait},
			{4500 * ms, held("c", "c-1", 5, 3), lease.Wait},
			{6 * time.Second, held("c", "c-1", 5, 4), lease.Wait},
		}},
		"another database": {looks: []look{
			{0, alive(9), lease.Wait},
			{time.Second, member.Lease{StoreID: "t", Holder: "c", Instance: "c-1", Epoch: 1, Renewal: 1}, lease.Wait},
			{3 * time.Second, member.Lease{StoreID: "t", Holder: "c", Instance: "c-1", Epoch: 1, Renewal: 2}, lease.Wait},
			{5 * time.Second, member.Lease{StoreID: "t", Holder: "c", Instance: "c-1", Epoch: 1, Renewal: 3}, lease.Wait},
		}},
		"a twin, looked at between its renewals": {looks: []look{
			{0, mine(1), lease.Wait},
			{500 * ms, mine(1), lease.Wait},
			{1000 * ms, mine(2), lease.Wait},
			{1500 * ms, mine(2), lease.Wait},
			{2000 * ms, mine(3), lease.Wait},
			{2500 * ms, mine(3), lease.Wait},
			{3000 * ms, mine(4), lease.GiveWay},
		}},
		"renewals of its own that come late": {looks: []look{
			{0, held("a", "a-1", 7, 1), lease.Take},
			{500 * ms, held("a", "a-1", 7, 2), lease.Take},
			{1000 * ms, held("a", "a-1", 7, 3), lease.Take},
			{1500 * ms, held("a", "a-1", 7, 4), lease.Take},
		}},
		"a run that is not known, to one that knows of none before": {looks: []look{{0, held("b", "", 7, 1), lease.Wait}}},
		"a twin of old": {looks: []look{
			{0, mine(1), lease.Wait},
			{time.Second, mine(2), lease.Wait},
			{2 * time.Second, mine(3), lease.Wait},
			{3 * time.Second, held("b", "b-1", 8, 4), lease.Wait},
			{4 * time.Second, mine(5), lease.Wait},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.self == (lease.Self{}) {
				c.self = lease.Self{ID: "a", Instance: "a-1"}
			}
			notBefore := time.Time{}
			if c.notBefore > 0 {
				notBefore = start.Add(c.notBefore)
			}
			w := lease.NewWatch(c.self, notBefore)
			for _, l := range c.looks {
				at := start.Add(l.at)
				if got := w.See(lease.Look{Asked: at, Answered: at, Lease: l.lease}); got != l.want {
					t.Fatalf("at %s: %v, want %v", l.at, got, l.want)
				}
			}
		})
	}
}

// TestClaimsAreAboveAllThatWasSeen, of the same database.
func TestClaimsAreAboveAllThatWasSeen(t *testing.T) {
	t.Parallel()
	w := lease.NewWatch(lease.Self{ID: "a", Instance: "a-1"}, time.Time{})
	see := func(l member.Lease) member.Epoch {
		w.See(lease.Look{Asked: start, Answered: start, Lease: l})
		known := w.Known()
		return known.Epoch()
	}
	see(held("b", "b-1", 7, 1))
	if got := see(held("b", "b-1", 5, 1)); got != 7 {
		t.Errorf("after epoch 7 and then 5 the highest is %d", got)
	}
	if got := see(member.Lease{StoreID: "t", Epoch: 2}); got != 2 {
		t.Errorf("of another database the highest is %d", got)
	}
}

// TestStandingStillIsCountedBetweenAnswers: the lease was seen to stand still from
// the first answer to the last question, whatever came before and after.
func TestStandingStillIsCountedBetweenAnswers(t *testing.T) {
	t.Parallel()
	w := lease.NewWatch(lease.Self{ID: "a", Instance: "a-1"}, time.Time{})
	see := func(asked, answered time.Duration) lease.Step {
		return w.See(lease.Look{Asked: start.Add(asked), Answered: start.Add(answered), Lease: held("b", "b-1", 7, 1)})
	}
	see(0, 900*ms)
	see(2*time.Second, 2900*ms)
	if got := see(4800*ms, 4899*ms); got != lease.Wait {
		t.Errorf("asked 3.9 s after the first answer: %v", got)
	}
	if got := see(4900*ms, 5*time.Second); got != lease.Take {
		t.Errorf("asked 4 s after the first answer: %v", got)
	}
}

// TestLookIsTimedForTheEndOfALease: polls are a little longer apart than said, so
// that the last of them would come just too early, and the next one late.
func TestLookIsTimedForTheEndOfALease(t *testing.T) {
	t.Parallel()
	w := lease.NewWatch(lease.Self{ID: "a", Instance: "a-1"}, time.Time{})
	if got := w.NextLook(start); !got.Equal(start.Add(lease.PollEvery)) {
		t.Errorf("before anything was seen: %s", got.Sub(start))
	}
	asked, first := start, start.Add(3*ms)
	for {
		answered := asked.Add(3 * ms)
		if w.See(lease.Look{Asked: asked, Answered: answered, Lease: held("b", "b-1", 7, 1)}) == lease.Take {
			break
		}
		asked = w.NextLook(answered)
	}
	if took := asked.Sub(first); took != lease.Life {
		t.Errorf("taken after it was seen to stand still for %s", took)
	}
	later := asked.Add(ms)
	if got := w.NextLook(later); !got.Equal(later.Add(lease.PollEvery)) {
		t.Errorf("once it is over, the next look is after %s", got.Sub(later))
	}
}

func TestWhoIsNamedAsLeader(t *testing.T) {
	t.Parallel()
	w := lease.NewWatch(lease.Self{ID: "a", Instance: "a-1"}, time.Time{})
	if w.Sight().Alive(start) {
		t.Error("somebody leads before anything was seen")
	}
	see := func(at time.Duration, l member.Lease) {
		w.See(lease.Look{Asked: start.Add(at), Answered: start.Add(at), Lease: l})
	}
	see(0, held("b", "b-1", 7, 1))
	if !w.Sight().Alive(start) {
		t.Error("who is seen for the first time is not named")
	}
	see(2*time.Second, held("b", "b-1", 7, 2))
	see(4*time.Second, held("b", "b-1", 7, 2))
	for at, want := range map[time.Duration]bool{4 * time.Second: true, 4499 * ms: true, 4500 * ms: false} {
		if got := w.Sight().Alive(start.Add(at)); got != want {
			t.Errorf("alive at %s: %v", at, got)
		}
	}
	see(4100*ms, member.Lease{StoreID: "s", Epoch: 7, Renewal: 3})
	if w.Sight().Alive(start.Add(4100 * ms)) {
		t.Error("the leader that has given the lead back is named")
	}
}

func TestUntilWhenALeaderProposes(t *testing.T) {
	t.Parallel()
	var never lease.Tenure
	if never.MayPropose(start) {
		t.Error("a lease that was never had lets propose")
	}
	var l lease.Tenure
	l.Renewed(start.Add(time.Second))
	l.Renewed(start) // an answer that comes late
	for at, want := range map[time.Duration]bool{time.Second: true, 3999 * ms: true, 4 * time.Second: false, time.Minute: false} {
		if got := l.MayPropose(start.Add(at)); got != want {
			t.Errorf("%s after the renewal at 1s: %v", at, got)
		}
	}
	l.Renewed(start.Add(time.Minute))
	if !l.MayPropose(start.Add(time.Minute)) {
		t.Error("it does not go on after the next renewal")
	}
}

// TestNobodyProposesWhenAnotherMayTakeOver: a leader has stopped before the
// earliest time at which a standby tries, whenever that has looked.
func TestNobodyProposesWhenAnotherMayTakeOver(t *testing.T) {
	t.Parallel()
	for sawAfter := time.Duration(0); sawAfter <= lease.PollEvery; sawAfter += 10 * ms {
		var leader lease.Tenure
		leader.Renewed(start)
		w := lease.NewWatch(lease.Self{ID: "a", Instance: "a-1"}, time.Time{})
		for at := start.Add(sawAfter); ; at = at.Add(lease.PollEvery) {
			if w.See(lease.Look{Asked: at, Answered: at, Lease: held("b", "b-1", 7, 1)}) == lease.Take {
				if leader.MayPropose(at) {
					t.Errorf("seen first after %s, both act at %s", sawAfter, at.Sub(start))
				}
				break
			}
		}
	}
}

// A claim that got no answer is no blindness: had the lease moved, it would have
// been refused.
func TestFailedClaimGoesOnWithTheWatch(t *testing.T) {
	t.Parallel()
	row := held("b", "b-1", 7, 1)
	for _, tried := range []bool{true, false} {
		w := lease.NewWatch(lease.Self{ID: "a", Instance: "a-1"}, time.Time{})
		see := func(at time.Duration) lease.Step {
			return w.See(lease.Look{Asked: start.Add(at), Answered: start.Add(at), Lease: row})
		}
		for at := time.Duration(0); at < lease.Life; at += time.Second {
			if got := see(at); got != lease.Wait {
				t.Fatalf("after %s: %v", at, got)
			}
		}
		if got := see(lease.Life); got != lease.Take {
			t.Fatalf("after its life: %v", got)
		}
		if tried {
			w.Tried(start.Add(lease.Life + 1500*ms))
		}
		if got := see(lease.Life + lease.Blind + ms); (got == lease.Take) != tried {
			t.Errorf("after a claim (%v) that took long: %v", tried, got)
		}
	}
}
