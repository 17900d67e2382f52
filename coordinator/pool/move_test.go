package pool_test

import (
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// Each test here is about one rule on when the ring moves, and fails without it.

// broken is a link that one buddy cannot use, though all others reach its subject.
type broken struct{ observer, subject member.ID }

// moves breaks links for a while and returns when each of their subjects was moved away
// from its observer.
func (d *desk) moves(span time.Duration, links ...broken) map[member.ID]time.Duration {
	d.t.Helper()
	moved := map[member.ID]time.Duration{}
	for begun := d.now; d.now.Sub(begun) < span; d.live(time.Second) {
		for _, l := range links {
			row := d.table.rows[l.subject]
			if row.First != l.observer && row.Second != l.observer {
				if _, known := moved[l.subject]; !known {
					moved[l.subject] = d.now.Sub(begun)
				}
				continue
			}
			d.missesOnly(l.observer, l.subject)
			d.commitAll()
		}
	}
	return moved
}

// A minute after its first bad round a link is given up, in a pool in which there is
// another place.
func TestMoveTakesAMinute(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]bool{4: false, 5: true, 8: true} {
		d := letters(t, n)
		at, moved := d.moves(100*time.Second, broken{d.table.rows["c"].First, "c"})["c"]
		if moved != want || moved && (at < 60*time.Second || at > 72*time.Second) {
			t.Errorf("of %d: moved %v after %v", n, moved, at)
		}
	}
}

// Moves are ten seconds apart.
func TestMovesHaveAPause(t *testing.T) {
	t.Parallel()
	d := letters(t, 12)
	o := d.table.order
	one, other := broken{d.table.rows[o[0]].First, o[0]}, broken{d.table.rows[o[6]].First, o[6]}
	moved := d.moves(110*time.Second, one, other)
	apart := (moved[one.subject] - moved[other.subject]).Abs()
	if len(moved) != 2 || apart < 9*time.Second || apart > 14*time.Second {
		t.Errorf("moved after %v", moved)
	}
}

// The ring stays for the sake of an observer that is muted: the link is not what is
// broken.
func TestNobodyMovesForTheMuted(t *testing.T) {
	t.Parallel()
	d, subjects := deaf(t, 8)
	moved := d.moves(100*time.Second, broken{"c", subjects[0]}, broken{"c", subjects[1]})
	if len(moved) > 0 {
		t.Errorf("moved after %v", moved)
	}
}

// A link that mends before the minute is over moves nobody.
func TestMendedLinkMovesNobody(t *testing.T) {
	t.Parallel()
	d := letters(t, 8)
	before := d.table.rows["c"]
	if moved := d.moves(50*time.Second, broken{before.First, "c"}); len(moved) > 0 {
		t.Fatalf("moved after %v", moved)
	}
	d.report(before.First, "c", up)
	d.live(2 * time.Minute)
	d.commitAll()
	if row := d.table.rows["c"]; row.First != before.First || row.Second != before.Second {
		t.Errorf("between %s and %s, was between %s and %s", row.First, row.Second, before.First, before.Second)
	}
}
