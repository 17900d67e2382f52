package pool_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

func TestTwinIsRefused(t *testing.T) {
	t.Parallel()
	d := five(t)
	twin := agent("c")
	twin.InstanceID, twin.BootID, twin.Spec.ProbeAddresses = "another", "another", []netip.Addr{netip.MustParseAddr("10.9.9.9")}
	p := d.hello(twin)
	if p.refused != nil || d.flight != nil {
		t.Fatal("decided before the holder could prove itself")
	}
	d.echo("c")
	is(t, p.refused, member.ErrAlreadyExists)
	if !d.byID["c"].open() {
		t.Fatal("the holder has lost its stream")
	}
}

// The same machine with another agent, or another boot, is no twin once the old
// one does not prove itself.
func TestSilentHolderIsReplaced(t *testing.T) {
	t.Parallel()
	d := five(t)
	again := agent("c")
	again.InstanceID, again.BootID = "another", "another"
	old := d.byID["c"]
	p := d.hello(again)
	d.wait(249 * time.Millisecond)
	if d.flight != nil {
		t.Fatal("too early")
	}
	d.wait(time.Millisecond)
	d.commit()
	if !p.welcomed || old.open() {
		t.Fatal("not replaced")
	}
	is(t, old.refused, member.ErrStale)
	if row := d.table.rows["c"]; row.BootID != "another" || row.Incarnation != p.inc {
		t.Fatalf("row %+v", row)
	}
}

// The holder's echo comes while the database keeps the other waiting.
func TestHolderProvesItselfWhileTheOtherWaits(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.intend("zebra", member.WishDrain)
	other := agent("c")
	other.InstanceID, other.BootID = "another", "another"
	p := d.hello(other)
	d.wait(time.Second)
	d.echo("c")
	d.commit()
	is(t, p.refused, member.ErrAlreadyExists)
}

// A stranger with another address gets the name only when the old address is
// found dead.
func TestClaimNeedsADeadAddress(t *testing.T) {
	t.Parallel()
	claim := func(d *desk) *peer {
		d.close(d.byID["c"], true)
		h := agent("c")
		h.InstanceID, h.BootID, h.Spec.ProbeAddresses = "another", "another", []netip.Addr{netip.MustParseAddr("10.9.9.9")}
		return d.hello(h)
	}
	t.Run("reached", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		p := claim(d)
		d.answerAll("c", up)
		d.step(pool.Dialed{Round: d.notary.newest["c"].id})
		is(t, p.refused, member.ErrAlreadyExists)
	})
	t.Run("one of four reaches it", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		p := claim(d)
		d.toLastProbe("c")
		for i, id := range d.observers("c") {
			d.answer(id, "c", map[bool]pool.Sight{true: up, false: down}[i == 0], true)
		}
		d.step(pool.Dialed{Round: d.notary.newest["c"].id})
		is(t, p.refused, member.ErrAlreadyExists)
	})
	t.Run("the connect is answered", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		p := claim(d)
		d.answerAll("c", down)
		d.step(pool.Dialed{Round: d.notary.newest["c"].id, Answered: true})
		is(t, p.refused, member.ErrAlreadyExists)
	})
	t.Run("missed by all", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		p := claim(d)
		d.answerAll("c", down)
		d.step(pool.Dialed{Round: d.notary.newest["c"].id})
		d.commit()
		if !p.welcomed || d.table.rows["c"].Phase != member.PhaseJoining {
			t.Fatalf("refused %v, row %+v", p.refused, d.table.rows["c"])
		}
	})
	t.Run("nobody could look", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		p := claim(d)
		d.wait(2 * time.Second)
		is(t, p.refused, member.ErrUnavailable)
	})
	t.Run("nobody is back yet after a restart", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.table.at.Epoch++
		d.boot()
		h := agent("c")
		h.InstanceID, h.BootID, h.Spec.ProbeAddresses = "another", "another", []netip.Addr{netip.MustParseAddr("10.9.9.9")}
		p := d.hello(h)
		for _, e := range d.effects {
			if dial, ok := e.(pool.Dial); ok {
				d.step(pool.Dialed{Round: dial.Round})
			}
		}
		d.wait(2 * time.Second)
		is(t, p.refused, member.ErrUnavailable)
		if d.flight != nil {
			t.Fatal("the name goes to somebody else because of the restart")
		}
	})
}

func TestJoinThatFailsIsRefused(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	p := d.hello(agent("a"))
	d.reject()
	is(t, p.refused, member.ErrUnavailable)
}

// The stream of a join breaks while the database is slow: the member is there
// all the same, and its agent goes on with it.
func TestStreamBreaksDuringItsJoin(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a", "b")
	p := d.hello(agent("c"))
	d.close(p, true)
	again := d.hello(agent("c"))
	d.commit()
	if !again.welcomed || d.table.rows["c"].Incarnation != again.inc || d.table.at.Revision != member.Revision(again.inc) {
		t.Fatalf("refused %v, row %+v", again.refused, d.table.rows["c"])
	}
	d.commitAll()
	if inc := d.table.rows["c"].Incarnation; inc != again.inc {
		t.Fatalf("joined twice, as %d and %d", again.inc, inc)
	}
}

// A new run takes the row over and is gone when that is durable: the stream of
// the run before is over all the same, and its agent says hello again.
func TestStreamBreaksDuringItsTakeover(t *testing.T) {
	t.Parallel()
	d := five(t)
	old := d.byID["c"]
	p := d.hello(reboot("c"))
	d.wait(time.Second)
	d.close(p, true)
	d.commit()
	is(t, old.refused, member.ErrStale)
	if d.removed("c") || d.table.rows["c"].InstanceID != "another" {
		t.Fatalf("row %+v", d.table.rows["c"])
	}
}

// The newer stream of a run takes the place of the older one wherever that is.
func TestNewerStreamReplacesOlder(t *testing.T) {
	t.Parallel()
	t.Run("in the queue", func(t *testing.T) {
		t.Parallel()
		d := busy(t)
		old := d.hello(agent("d"))
		newer := d.hello(agent("d"))
		is(t, old.refused, member.ErrStale)
		d.commitAll()
		if !newer.welcomed {
			t.Fatalf("refused %v", newer.refused)
		}
	})
	t.Run("in the change", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		d.pool("a")
		old := d.hello(agent("d"))
		newer := d.hello(agent("d"))
		d.commitAll()
		is(t, old.refused, member.ErrStale)
		if !newer.welcomed || newer.inc != d.table.rows["d"].Incarnation {
			t.Fatalf("refused %v", newer.refused)
		}
	})
	t.Run("in a change that fails", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		d.pool("a")
		old := d.hello(agent("d"))
		newer := d.hello(agent("d"))
		d.reject()
		is(t, old.refused, member.ErrUnavailable)
		is(t, newer.refused, member.ErrUnavailable)
	})
	t.Run("as a member", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		old := d.byID["c"]
		newer := d.hello(agent("c"))
		is(t, old.refused, member.ErrStale)
		if !newer.welcomed || newer.inc != old.inc || d.flight != nil {
			t.Fatal("not resumed")
		}
	})
	t.Run("as a claim", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.close(d.byID["c"], true)
		h := agent("c")
		h.InstanceID, h.BootID, h.Spec.ProbeAddresses = "another", "another", []netip.Addr{netip.MustParseAddr("10.9.9.9")}
		old := d.hello(h)
		newer := d.hello(h)
		is(t, old.refused, member.ErrStale)
		d.answerAll("c", up)
		d.step(pool.Dialed{Round: d.notary.newest["c"].id})
		is(t, newer.refused, member.ErrAlreadyExists)
	})
	t.Run("as a rival", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		h := agent("c")
		h.InstanceID = "another"
		old := d.hello(h)
		newer := d.hello(h)
		is(t, old.refused, member.ErrStale)
		d.echo("c")
		is(t, newer.refused, member.ErrAlreadyExists)
	})
}

// Two agents under one name: the one that waits already is heard first.
func TestSecondRivalIsRefused(t *testing.T) {
	t.Parallel()
	other := func(run string) pool.Hello {
		h := agent("c")
		h.InstanceID, h.BootID = run, run
		return h
	}
	t.Run("in the queue", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		d.pool("a", "b")
		d.intend("zebra", member.WishDrain)
		d.hello(agent("c"))
		is(t, d.hello(other("x")).refused, member.ErrAlreadyExists)
	})
	t.Run("in the change", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		d.pool("a", "b")
		d.hello(agent("c"))
		is(t, d.hello(other("x")).refused, member.ErrAlreadyExists)
	})
	t.Run("as a rival", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		first := d.hello(other("x"))
		is(t, d.hello(other("y")).refused, member.ErrAlreadyExists)
		d.close(first, true)
		if p := d.hello(other("y")); p.refused != nil {
			t.Fatalf("the rival has gone, and the next is refused: %v", p.refused)
		}
	})
	t.Run("as a claim", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.close(d.byID["c"], true)
		x, y := other("x"), other("y")
		x.Spec.ProbeAddresses = []netip.Addr{netip.MustParseAddr("10.9.9.8")}
		y.Spec.ProbeAddresses = []netip.Addr{netip.MustParseAddr("10.9.9.9")}
		d.hello(x)
		is(t, d.hello(y).refused, member.ErrAlreadyExists)
	})
}

// The holder of a name keeps it against a rival also over a new stream.
func TestHolderReconnectsWhileARivalWaits(t *testing.T) {
	t.Parallel()
	d := five(t)
	h := agent("c")
	h.InstanceID, h.BootID = "another", "another"
	rival := d.hello(h)
	d.hello(agent("c"))
	d.echo("c")
	d.wait(time.Second)
	is(t, rival.refused, member.ErrAlreadyExists)
	if d.flight != nil || !d.byID["c"].open() {
		t.Fatal("the rival has the name")
	}
}

func TestRivalIsHeardWhenTheHolderGoes(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*desk){
		"closes": func(d *desk) { d.close(d.byID["c"], true) },
		"leaves": func(d *desk) {
			d.step(pool.Leave{Session: d.byID["c"].hello.Session, Incarnation: d.byID["c"].inc})
			d.commit()
		},
		"is removed": func(d *desk) {
			d.remove("c")
			d.commit()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := five(t)
			h := agent("c")
			h.InstanceID, h.BootID = "another", "another"
			rival := d.hello(h)
			leave(d)
			d.wait(time.Second)
			d.commitAll()
			if !rival.welcomed || d.table.rows["c"].InstanceID != "another" {
				t.Fatalf("refused %v", rival.refused)
			}
		})
	}
}

// Whatever becomes of the row, a claim gets its answer.
func TestClaimIsAnsweredWhateverHappens(t *testing.T) {
	t.Parallel()
	claim := func(d *desk) *peer {
		h := agent("c")
		h.InstanceID, h.BootID, h.Spec.ProbeAddresses = "claimant", "claimant", []netip.Addr{netip.MustParseAddr("10.9.9.9")}
		return d.hello(h)
	}
	t.Run("the agent comes back without its state", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.close(d.byID["c"], true)
		p := claim(d)
		h := agent("c")
		h.InstanceID, h.BootID = "back", "back"
		back := d.hello(h)
		d.commitAll()
		if !back.welcomed {
			t.Fatalf("refused %v", back.refused)
		}
		d.echo("c")
		d.wait(time.Second)
		is(t, p.refused, member.ErrAlreadyExists)
	})
	t.Run("an operator removes the row", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.close(d.byID["c"], true)
		p := claim(d)
		d.remove("c")
		d.commitAll()
		if !p.welcomed {
			t.Fatalf("refused %v", p.refused)
		}
	})
	t.Run("its removal is under way", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.miss("c")
		d.answerAll("c", down)
		d.close(d.byID["c"], false)
		if !d.removes("c") {
			t.Fatalf("kept by %s", d.rule("c"))
		}
		p := claim(d)
		d.wait(2 * time.Second)
		d.commitAll()
		if !p.welcomed {
			t.Fatalf("refused %v", p.refused)
		}
	})
	t.Run("its removal is rejected", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.miss("c")
		d.answerAll("c", down)
		d.close(d.byID["c"], false)
		p := claim(d)
		d.wait(3 * time.Second)
		d.reject()
		d.answerAll("c", up)
		d.step(pool.Dialed{Round: d.notary.newest["c"].id})
		is(t, p.refused, member.ErrAlreadyExists)
	})
	t.Run("the verdict falls", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.intend("zebra", member.WishDrain)
		d.close(d.byID["c"], false)
		d.miss("c")
		d.answerAll("c", down)
		p := claim(d)
		d.report(d.table.rows["c"].First, "c", up)
		d.report(d.table.rows["c"].Second, "c", up)
		d.commit()
		if p.refused != nil {
			t.Fatalf("refused %v before anybody looked", p.refused)
		}
		d.answerAll("c", up)
		d.step(pool.Dialed{Round: d.notary.newest["c"].id})
		is(t, p.refused, member.ErrAlreadyExists)
	})
	t.Run("the claimant goes", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.close(d.byID["c"], false)
		d.miss("c")
		d.close(claim(d), true)
		d.answerAll("c", down)
		if !d.removes("c") {
			t.Fatalf("the claimant has gone, and the doubt with it: %s", d.rule("c"))
		}
	})
}

// An agent that was run without TLS comes back with a certificate for its id,
// on a new boot and without its state: the certificate proves more than the
// address it came by.
func TestCertificateTakesOverAPlainRow(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.close(d.byID["c"], true)
	h := agent("c")
	h.InstanceID, h.BootID, h.Identity = "another", "another", "spiffe://x/buddyring/agent/web/c"
	p := d.hello(h)
	d.commit()
	if !p.welcomed || d.table.rows["c"].Identity != h.Identity {
		t.Fatalf("refused %v, row %+v", p.refused, d.table.rows["c"])
	}
	// But nobody without one takes it back by saying the address.
	d.close(p, true)
	h.InstanceID, h.BootID, h.Identity = "third", "third", ""
	p = d.hello(h)
	d.answerAll("c", up)
	d.step(pool.Dialed{Round: d.notary.newest["c"].id})
	is(t, p.refused, member.ErrAlreadyExists)
}

// What an agent says anew of its server reaches the table, whatever fails on the
// way; what an operator has edited meanwhile stays when the agent says nothing
// new.
func TestNewsOfAResumedAgent(t *testing.T) {
	t.Parallel()
	reload := func(d *desk, weight uint32) *peer {
		h := agent("c")
		h.Spec.Weight = weight
		return d.hello(h)
	}
	weight := func(d *desk) uint32 { return d.table.rows["c"].Spec.Weight }
	t.Run("same run", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		reload(d, 7)
		d.commit()
		if weight(d) != 7 {
			t.Fatalf("weight %d", weight(d))
		}
	})
	t.Run("the change is rejected", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		reload(d, 7)
		d.reject()
		d.wait(time.Second)
		d.commit()
		if weight(d) != 7 {
			t.Fatalf("weight %d", weight(d))
		}
	})
	t.Run("the stream breaks before the change", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.intend("zebra", member.WishDrain)
		d.close(reload(d, 7), true)
		reload(d, 7)
		d.commitAll()
		if weight(d) != 7 {
			t.Fatalf("weight %d", weight(d))
		}
	})
	t.Run("nothing new", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.call(func(c pool.Call) pool.Input {
			return pool.UpdateServer{Call: c, ID: "c", Edit: func(s member.Spec) (member.Spec, error) {
				s.Weight = 9
				return s, nil
			}}
		}, pool.Call{})
		d.commit()
		reload(d, 100)
		if d.flight != nil || weight(d) != 9 {
			t.Fatalf("weight %d", weight(d))
		}
	})
	t.Run("a new run", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.close(d.byID["c"], true)
		h := agent("c")
		h.InstanceID, h.Incarnation = "another", d.byID["c"].inc
		p := d.hello(h)
		if !p.welcomed || p.inc != h.Incarnation {
			t.Fatal("not resumed")
		}
		d.commit()
		if d.table.rows["c"].InstanceID != "another" {
			t.Fatalf("row %+v", d.table.rows["c"])
		}
	})
}

// Evidence is about an address: what was seen of the former one says nothing of
// the new one.
func TestEvidenceOfAFormerAddress(t *testing.T) {
	t.Parallel()
	move := func(d *desk) {
		d.call(func(c pool.Call) pool.Input {
			return pool.UpdateServer{Call: c, ID: "c", Edit: func(s member.Spec) (member.Spec, error) {
				s.ProbeAddresses = []netip.Addr{netip.MustParseAddr("10.9.9.9")}
				return s, nil
			}}
		}, pool.Call{})
	}
	t.Run("in a round", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.close(d.byID["c"], false)
		d.miss("c")
		move(d)
		d.commit()
		if _, suspect := d.marks["c"]; suspect {
			t.Fatal("suspect")
		}
		d.answerAll("c", down)
		if d.removes("c") {
			t.Fatal("removed")
		}
	})
	t.Run("in a verdict", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.close(d.byID["c"], false)
		move(d)
		d.miss("c")
		d.answerAll("c", down)
		d.commit()
		if d.removes("c") {
			t.Fatal("removed")
		}
	})
}
