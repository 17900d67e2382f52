package pool_test

import (
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

// Each test here is about one rule of the sweep and fails without it.

// Two suspects within half a second make one sweep.
func TestSweepsHaveAPause(t *testing.T) {
	t.Parallel()
	for after, want := range map[time.Duration]bool{499 * time.Millisecond: false, 500 * time.Millisecond: true} {
		d := letters(t, 12)
		one, other := d.table.order[0], d.table.order[6]
		bystander := d.byID[d.table.order[3]]
		d.miss(one)
		first := bystander.nonce
		d.wait(after) // they echo
		d.miss(other)
		if got := bystander.nonce != first; got != want {
			t.Errorf("a second sweep %v after the first: %v, want %v", after, got, want)
		}
	}
}

// silent lets some not echo a sweep that begins now.
func (d *desk) silent(ids ...member.ID) {
	for _, id := range ids {
		d.said[[2]member.ID{"nobody", id}] = down
	}
}

// Nearly half that do not echo are looked into at once: it takes more for the
// coordinator to be slow.
func TestHalfASweep(t *testing.T) {
	t.Parallel()
	for silent, want := range map[int]bool{6: true, 7: false} {
		d := letters(t, 12)
		d.silent(d.table.order[2 : 2+silent]...)
		d.miss(d.table.order[0])
		d.echoSweep()
		d.said[[2]member.ID{"nobody", d.table.order[0]}] = up
		d.echo(d.table.order[0])
		d.wait(200 * time.Millisecond)
		if got := d.notary.newest[d.table.order[4]] != nil; got != want {
			t.Errorf("%d of 12 silent: looked into %v, want %v", silent, got, want)
		}
	}
}

// A late echo is no lost probe: a round for which only the sweep speaks reaches over
// all of the stall tolerance.
func TestSweepGivesNoCredit(t *testing.T) {
	t.Parallel()
	d := letters(t, 12)
	mute := d.table.order[6]
	d.silent(mute)
	d.miss(d.table.order[0])
	d.wait(200 * time.Millisecond)
	asked := d.observers(mute)
	if len(asked) == 0 {
		t.Fatal("not looked into")
	}
	for _, id := range asked {
		asks := d.byID[id].asks
		if over, want := asks[len(asks)-1].Over, d.table.settings.StallTolerance; over != want {
			t.Errorf("%s probes over %v, want %v", id, over, want)
		}
	}
}

// Nobody is looked into who is not judged, nor in a pool of three.
func TestSweepLooksIntoTheJudgedOnly(t *testing.T) {
	t.Parallel()
	d := letters(t, 12)
	left, judged := d.table.order[4], d.table.order[6]
	d.intend(left, member.WishMaintenance)
	d.commitAll()
	d.silent(left, judged)
	d.miss(d.table.order[0])
	d.wait(200 * time.Millisecond)
	if d.notary.newest[left] != nil || d.notary.newest[judged] == nil {
		t.Fatalf("looked into the one in maintenance %v, into the other %v", d.notary.newest[left] != nil, d.notary.newest[judged] != nil)
	}
}

// A pool of up to 2,000 is swept whole. In a larger one 64 to each side of the suspect
// are asked, and more only where some of them are silent: so a long run of neighbours
// that die together is found at once all the same.
func TestSweepOfALargePool(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ n, dead, least, most int }{
		"two thousand":            {2000, 1, 2001, 2001},
		"more":                    {2001, 1, 129, 129},
		"more, with a run of 200": {2001, 200, 500, 1500},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newMass(t, test.n, func(int) (string, string) { return "", "" })
			w.step(pool.UpdateSettings{Call: pool.Call{Token: 1}, Edit: func(s member.Settings) (member.Settings, error) {
				off(&s)
				return s, nil
			}})
			w.run(time.Second)
			var dead []member.ID
			for i := range test.dead {
				dead = append(dead, numbered(700+i))
			}
			w.challenged = 0
			w.lose(dead)
			w.run(1500 * time.Millisecond)
			if w.removed != test.dead {
				t.Errorf("%d of %d are removed", w.removed, test.dead)
			}
			if w.challenged < test.least || w.challenged > test.most {
				t.Errorf("%d streams are asked, want %d to %d", w.challenged, test.least, test.most)
			}
		})
	}
}
