package pool_test

import (
	"testing"
	"time"

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
