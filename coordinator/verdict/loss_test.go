package verdict_test

import (
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// Three observers must see the loss, a watcher and a witness among them, nobody may
// see the server clean, and it must have lasted, been answered now and then, and
// not spare the stream.
func TestJudgeLoss(t *testing.T) {
	t.Parallel()
	for watchers := range 4 {
		for witnesses := range 4 {
			for i := range 64 {
				l := verdict.Loss{Watchers: watchers, Witnesses: witnesses, Clean: i % 2, Replied: i&2 != 0, Late: 2 + i>>2&1, Measured: 10, Lasted: verdict.LossyFor}
				if i&8 != 0 {
					l.Lasted--
				}
				if i&16 != 0 {
					l.Measured = 9
				}
				if i&32 != 0 {
					l.Absent = 1
				}
				got := verdict.JudgeLoss(l)
				short := l.Measured < 10 || l.Lasted < verdict.LossyFor
				seen := watchers >= 1 && witnesses >= 1 && watchers+witnesses >= 3 && l.Clean == 0
				want := seen && l.Replied && l.Late > 2 && !short
				if (got.Verdict == verdict.Lossy) != want || got.Rule == "" || got.Reason == "" {
					t.Errorf("%+v: %+v, want a removal: %v", l, got, want)
				}
				limited := seen && l.Replied && l.Late <= 2 && !short && l.Absent == 0
				if (got.Rule == verdict.ICMPLimited) != limited {
					t.Errorf("%+v: %+v, want ICMP found limited: %v", l, got, limited)
				}
				if again := got.Rule == verdict.LossTooShort; again != (seen && short) {
					t.Errorf("%+v: %+v, to be measured again: %v", l, got, again)
				}
			}
		}
	}
}

func TestFindLoss(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		sent, lost int
		want       verdict.LossFinding
	}{
		{0, 0, verdict.LossUnknown},
		{10, 0, verdict.LossClean},
		{8, 0, verdict.LossClean},
		{8, 1, verdict.LossSome},
		{10, 3, verdict.LossSome},
		{10, 4, verdict.LossSome},
		{10, 5, verdict.LossHeavy},
		{8, 4, verdict.LossHeavy},
		{8, 8, verdict.LossHeavy},
	} {
		if got := verdict.FindLoss(c.sent, c.lost); got != c.want {
			t.Errorf("%d of %d lost: %v, want %v", c.lost, c.sent, got, c.want)
		}
	}
}

// Who sends one probe each 10 ms has lost those before the first reply, but for the
// round trip's own time.
func TestRoundLosing(t *testing.T) {
	t.Parallel()
	type up struct {
		sent int
		rtt  time.Duration
	}
	const spacing = 10 * time.Millisecond
	for name, c := range map[string]struct {
		ups  []up
		want bool
	}{
		"nobody reached it":   {},
		"all at once":         {[]up{{1, 0}, {1, 0}, {1, 0}}, false},
		"one lost one":        {[]up{{2, 0}, {1, 0}, {1, 0}}, false},
		"one lost two":        {[]up{{3, 0}, {1, 0}, {1, 0}}, true},
		"two lost one":        {[]up{{2, 0}, {2, 0}, {1, 0}}, true},
		"a long way":          {[]up{{4, 50 * time.Millisecond}, {4, 50 * time.Millisecond}}, false},
		"a long way and lost": {[]up{{8, 50 * time.Millisecond}, {8, 50 * time.Millisecond}}, true},
	} {
		r := verdict.Round{Subject: "s"}
		for i, u := range c.ups {
			id := members[i]
			r.Ask(id, time.Time{})
			r.Answer(id, verdict.Answer{Evidence: verdict.Evidence{Sight: verdict.SightUp, Sent: u.sent, RTT: u.rtt}, Final: true})
		}
		r.Ask("silent", time.Time{})
		if got := r.Losing(spacing); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

var members = []member.ID{"a", "b", "c", "d", "e"}
