package verdict_test

import (
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// echoes are those of n measurements, of which some are late and some absent; the stream
// answers after usual.
func echoes(n, late, absent int, usual time.Duration) []time.Duration {
	all := make([]time.Duration, n)
	for i := range all {
		switch {
		case i < late && i%2 == 0:
			all[i] = verdict.EchoMissing
		case i < late:
			all[i] = usual + 201*time.Millisecond // one segment was lost
		case i < late+absent:
			all[i] = verdict.StreamMissing
		default:
			all[i] = usual + time.Duration(i)*time.Millisecond
		}
	}
	return all
}

// Three observers must see the loss, a watcher and a witness among them, nobody may
// see the server clean, and it must have lasted, been answered now and then, and
// not spare the stream.
func TestJudgeLoss(t *testing.T) {
	t.Parallel()
	for watchers := range 4 {
		for witnesses := range 4 {
			for i := range 64 {
				late, measured, absent := 3+3*(i>>2&1), 10-i>>4&1, i>>5&1
				l := verdict.Loss{
					Watchers: watchers, Witnesses: witnesses, Clean: i % 2, Replied: i&2 != 0, Lasted: verdict.LossyFor,
					Echoes: echoes(measured, late, absent, 0),
				}
				if i&8 != 0 {
					l.Lasted--
				}
				got := verdict.JudgeLoss(l)
				short := measured < 10 || l.Lasted < verdict.LossyFor
				seen := watchers >= 1 && witnesses >= 1 && watchers+witnesses >= 3 && l.Clean == 0
				want := seen && l.Replied && late > 3 && !short
				if (got.Verdict == verdict.Lossy) != want || got.Rule == "" || got.Reason == "" {
					t.Errorf("%+v: %+v, want a removal: %v", l, got, want)
				}
				limited := seen && l.Replied && late <= 3 && !short && absent == 0
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

// How often the stream must be late, wherever the coordinator is.
func TestLateStream(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		measured, late, absent int
		rule                   string
	}{
		{10, 0, 0, verdict.ICMPLimited},
		{10, 3, 0, verdict.ICMPLimited},
		{10, 3, 1, verdict.NoStream},
		{10, 4, 0, verdict.LossTooShort},
		{10, 5, 0, verdict.LossTooShort},
		{10, 6, 0, "lossy"},
		{10, 9, 0, "lossy"},
		{19, 9, 0, verdict.LossTooShort},
		{19, 10, 0, "lossy"},
		{20, 10, 0, verdict.ICMPLimited},
		{20, 10, 1, verdict.NoStream},
		{20, 11, 0, "lossy"},
		{20, 11, 8, "lossy"},
	} {
		for _, usual := range []time.Duration{0, 90 * time.Millisecond, 250 * time.Millisecond} {
			l := verdict.Loss{Watchers: 2, Witnesses: 3, Replied: true, Lasted: verdict.LossyFor, Echoes: echoes(c.measured, c.late, c.absent, usual)}
			if got := verdict.JudgeLoss(l); got.Rule != c.rule {
				t.Errorf("%d of %d late, %d absent, else after %v: %+v, want %s", c.late, c.measured, c.absent, usual, got, c.rule)
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
