package pool_test

import (
	"errors"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

// toldRemoved checks that a stream has ended with the news of a removal.
func toldRemoved(t *testing.T, p *peer, want member.RemovedError) {
	t.Helper()
	var removed *member.RemovedError
	if !errors.As(p.refused, &removed) || *removed != want {
		t.Fatalf("refused with %v, want %+v", p.refused, want)
	}
	is(t, p.refused, member.ErrStale)
}

func TestWhoIsRemovedIsTold(t *testing.T) {
	t.Parallel()
	t.Run("by an operator", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		p := d.byID["c"]
		d.remove("c")
		d.commitAll()
		toldRemoved(t, p, member.RemovedError{ID: "c", Incarnation: p.inc, Cause: member.CauseOperator})
	})
	t.Run("by verdict, with its stream silent", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		p := d.byID["c"]
		d.die("c")
		toldRemoved(t, p, member.RemovedError{ID: "c", Incarnation: p.inc, Cause: member.CauseCrashed})
	})
	t.Run("not who leaves", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		p := d.byID["c"]
		d.step(pool.Leave{Session: p.hello.Session, Incarnation: p.inc})
		d.commitAll()
		if p.refused != nil || p.left == nil || !p.left.Left {
			t.Fatalf("refused with %v", p.refused)
		}
	})
}

// Who was cut off while it was removed is told before it joins again.
func TestWhoWasRemovedMeanwhileIsTold(t *testing.T) {
	t.Parallel()
	gone := func(t *testing.T, how func(d *desk)) (*desk, pool.Hello) {
		d := five(t)
		p := d.byID["c"]
		d.close(p, false)
		how(d)
		d.commitAll()
		h := agent("c")
		h.Incarnation, h.TellRemoval = p.inc, true
		return d, h
	}
	crash := func(d *desk) { d.die("c") }
	t.Run("by verdict", func(t *testing.T) {
		t.Parallel()
		d, h := gone(t, crash)
		told := member.RemovedError{ID: "c", Incarnation: h.Incarnation, Cause: member.CauseCrashed}
		toldRemoved(t, d.hello(h), told)
		if d.flight != nil {
			t.Fatal("it joins before it knows")
		}
		// Another run joins under the name, and the first comes back once more.
		d.hello(reboot("c"))
		d.commitAll()
		toldRemoved(t, d.hello(h), told)
		h.Incarnation = 0
		d.close(d.byID["c"], true)
		p := d.hello(h)
		d.commitAll()
		if !p.welcomed {
			t.Fatalf("refused with %v", p.refused)
		}
	})
	t.Run("by an operator who bans it", func(t *testing.T) {
		t.Parallel()
		d, h := gone(t, func(d *desk) {
			d.intend("c", member.WishBanned)
			d.commitAll()
			d.remove("c")
		})
		toldRemoved(t, d.hello(h), member.RemovedError{ID: "c", Incarnation: h.Incarnation})
		h.Incarnation = 0
		is(t, d.hello(h).refused, member.ErrRefused)
	})
	t.Run("not who does not ask", func(t *testing.T) {
		t.Parallel()
		d, h := gone(t, crash)
		h.TellRemoval = false
		p := d.hello(h)
		d.commitAll()
		if !p.welcomed {
			t.Fatalf("refused with %v", p.refused)
		}
	})
	t.Run("not who is ahead of the history", func(t *testing.T) {
		t.Parallel()
		d, h := gone(t, crash)
		h.Incarnation += 1000
		p := d.hello(h)
		d.commitAll()
		if !p.welcomed {
			t.Fatalf("refused with %v", p.refused)
		}
	})
	t.Run("not who is adopted in its place", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		old := d.byID["c"]
		d.close(old, true)
		h := reboot("c")
		h.Incarnation, h.TellRemoval = old.inc, true
		p := d.hello(h)
		d.wait(time.Second)
		d.commitAll()
		if !p.welcomed || p.inc == old.inc {
			t.Fatalf("refused with %v", p.refused)
		}
		again := h
		again.InstanceID = "a third"
		d.close(p, true)
		if p := d.hello(again); p.refused != nil {
			t.Fatalf("refused with %v", p.refused)
		}
	})
}
