package pool_test

import (
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

// busy is a pool of three whose change under way keeps everything waiting.
func busy(t *testing.T) *desk {
	t.Helper()
	d := newDesk(t)
	d.pool("a", "b", "c")
	d.intend("zebra", member.WishDrain)
	return d
}

func TestRepliesFollowCommits(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a", "b", "c")
	c := d.remove("b")
	if c.reply != nil {
		t.Fatal("answered before it is durable")
	}
	d.commit()
	if c.reply == nil || c.reply.Err != nil || c.reply.Revision != d.table.at.Revision || !d.removed("b") {
		t.Fatalf("reply %+v", c.reply)
	}
	c = d.remove("c")
	d.reject()
	is(t, c.reply.Err, member.ErrUnavailable)
	if d.removed("c") {
		t.Fatal("removed")
	}
}

// Wishes for one server take effect in the order in which they were given, also
// within one change.
func TestTheLastWishCounts(t *testing.T) {
	t.Parallel()
	for name, wishes := range map[string][]member.Wish{
		"drain, then active": {member.WishDrain, member.WishActive},
		"active, then drain": {member.WishActive, member.WishDrain},
		"to and fro":         {member.WishDrain, member.WishActive, member.WishMaintenance, member.WishActive, member.WishDrain},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := busy(t)
			for _, w := range wishes {
				d.intend("b", w)
			}
			d.commit()
			d.commit()
			last := wishes[len(wishes)-1]
			i, kept := d.table.intents["b"]
			if kept != (last != member.WishActive) || kept && i.Wish != last {
				t.Errorf("the table has %v", i.Wish)
			}
			if drains := d.table.rows["b"].Phase == member.PhaseDraining; drains != (last == member.WishDrain) {
				t.Errorf("b is %s", d.table.rows["b"].Phase)
			}
		})
	}
}

// A wish that is given while its server joins or is activated counts.
func TestWishesMeetJoins(t *testing.T) {
	t.Parallel()
	t.Run("drain, then join", func(t *testing.T) {
		t.Parallel()
		d := busy(t)
		d.intend("d", member.WishDrain)
		d.hello(agent("d"))
		d.commitAll()
		d.report(d.table.rows["d"].First, "d", up)
		d.commitAll()
		if p := d.table.rows["d"].Phase; p != member.PhaseDraining {
			t.Errorf("d is %s", p)
		}
	})
	t.Run("drain and first good probe", func(t *testing.T) {
		t.Parallel()
		d := busy(t)
		d.commitAll()
		d.hello(agent("d"))
		d.commitAll()
		d.intend("zebra", member.WishActive)
		d.intend("d", member.WishDrain)
		d.report(d.table.rows["d"].First, "d", up)
		d.commitAll()
		if p := d.table.rows["d"].Phase; p != member.PhaseDraining {
			t.Errorf("d is %s", p)
		}
	})
	t.Run("drain before the only server joins", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		d.intend("zebra", member.WishDrain)
		d.intend("a", member.WishDrain)
		d.hello(agent("a"))
		d.commitAll()
		if p := d.table.rows["a"].Phase; p != member.PhaseDraining {
			t.Errorf("a is %s", p)
		}
	})
	t.Run("ban, then join", func(t *testing.T) {
		t.Parallel()
		d := busy(t)
		d.intend("d", member.WishBanned)
		p := d.hello(agent("d"))
		d.commitAll()
		is(t, p.refused, member.ErrRefused)
		if !d.removed("d") {
			t.Error("d is a member")
		}
	})
	t.Run("join, then ban", func(t *testing.T) {
		t.Parallel()
		d := busy(t)
		p := d.hello(agent("d"))
		c := d.intend("d", member.WishBanned)
		d.commitAll()
		if !d.removed("d") || c.reply.Err != nil || p.refused == nil {
			t.Errorf("d is %s, reply %+v, refused %v", d.table.rows["d"].Phase, c.reply, p.refused)
		}
		is(t, d.hello(agent("d")).refused, member.ErrRefused)
	})
}

func TestBanTakesOut(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a", "b", "c")
	d.intend("b", member.WishBanned)
	d.commitAll()
	if !d.removed("b") {
		t.Fatal("b is a member")
	}
	is(t, d.byID["b"].refused, member.ErrStale)
	is(t, d.hello(agent("b")).refused, member.ErrRefused)
	d.intend("b", member.WishActive)
	d.commitAll()
	if p := d.hello(agent("b")); p.refused != nil {
		t.Fatalf("refused after the ban: %v", p.refused)
	}
}

func TestWishesExpire(t *testing.T) {
	t.Parallel()
	brief := func(c pool.Call) pool.Input {
		return pool.SetIntent{Call: c, ID: "b", Wish: member.WishDrain, ExpiresIn: 10 * time.Second}
	}
	t.Run("in time", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		d.pool("a", "b", "c")
		d.call(brief, pool.Call{})
		d.commit()
		d.live(9 * time.Second)
		if d.flight != nil || d.table.rows["b"].Phase != member.PhaseDraining {
			t.Fatal("over too early, or never")
		}
		d.wait(time.Second)
		d.reject() // is tried again
		d.wait(time.Second)
		d.commitAll()
		if _, kept := d.table.intents["b"]; kept || d.table.rows["b"].Phase != member.PhaseActive {
			t.Fatalf("intent kept %v, b is %s", kept, d.table.rows["b"].Phase)
		}
	})
	t.Run("while the coordinator is away", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		d.pool("a", "b", "c")
		d.call(brief, pool.Call{})
		d.commit()
		d.now = d.now.Add(time.Minute)
		d.table.at.Epoch++
		d.boot()
		d.commitAll()
		if _, kept := d.table.intents["b"]; kept || d.table.rows["b"].Phase != member.PhaseActive {
			t.Fatalf("intent kept %v, b is %s", kept, d.table.rows["b"].Phase)
		}
	})
	t.Run("renewed at the last moment", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		d.pool("a", "b", "c")
		d.call(brief, pool.Call{})
		d.commit()
		d.live(9 * time.Second)
		d.intend("zebra", member.WishDrain)
		d.call(brief, pool.Call{})
		d.wait(2 * time.Second)
		d.commitAll()
		if i := d.table.intents["b"]; i.Wish != member.WishDrain || d.table.rows["b"].Phase != member.PhaseDraining {
			t.Fatalf("intent %v, b is %s", i.Wish, d.table.rows["b"].Phase)
		}
	})
	t.Run("negative", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		c := d.call(func(c pool.Call) pool.Input {
			return pool.SetIntent{Call: c, ID: "b", Wish: member.WishDrain, ExpiresIn: -1}
		}, pool.Call{})
		is(t, c.reply.Err, member.ErrInvalid)
	})
}

func TestRequestsAreAnsweredOnce(t *testing.T) {
	t.Parallel()
	d := busy(t)
	drain := func(c pool.Call) pool.Input { return pool.SetIntent{Call: c, ID: "b", Wish: member.WishDrain} }
	first := d.call(drain, pool.Call{RequestID: "r", Hash: "h"})
	d.commit() // the change before it
	repeated := d.call(drain, pool.Call{RequestID: "r", Hash: "h"})
	other := d.call(drain, pool.Call{RequestID: "r", Hash: "i"})
	d.reject()
	is(t, first.reply.Err, member.ErrUnavailable)
	if repeated.reply != nil {
		t.Fatal("answered by a change that has not happened")
	}
	d.wait(time.Second)
	d.commit()
	revision := d.table.at.Revision
	if repeated.reply.Err != nil || repeated.reply.Revision != revision {
		t.Fatalf("reply %+v", repeated.reply)
	}
	is(t, other.reply.Err, member.ErrInvalid)
	d.intend("c", member.WishDrain)
	d.commit()
	again := d.call(drain, pool.Call{RequestID: "r", Hash: "h"})
	if d.flight != nil || again.reply.Revision != revision {
		t.Fatalf("the request is carried out again: %+v", again.reply)
	}
	d.table.at.Epoch++
	d.boot()
	again = d.call(drain, pool.Call{RequestID: "r", Hash: "h"})
	if d.flight != nil || again.reply.Revision != revision {
		t.Fatalf("the request is carried out again after a restart: %+v", again.reply)
	}
	d.wait(time.Hour)
	d.commitAll()
	delete(d.table.requests, "r") // as the store does
	if again = d.call(drain, pool.Call{RequestID: "r", Hash: "h"}); again.reply != nil {
		t.Fatal("remembered for more than an hour")
	}
}

// The table may show a change of this leader that is not durable yet, and then is lost:
// it answers nothing, also when another change has got its revision.
func TestRequestThatIsNotDurableIsNoAnswer(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a", "b", "c")
	d.table.at.Epoch++
	d.boot()
	drain := func(c pool.Call) pool.Input { return pool.SetIntent{Call: c, ID: "b", Wish: member.WishDrain} }
	loaded := d.table.at.Revision
	lost := member.Request{ID: "r", Hash: "h", Revision: loaded + 1, At: d.now}
	d.intend("c", member.WishDrain)
	d.commit()
	c := d.call(drain, pool.Call{RequestID: "r", Hash: "h", Earlier: &lost})
	if c.reply != nil || d.flight == nil {
		t.Fatalf("answered by a change that is lost: %+v", c.reply)
	}
	d.commit()
	if c.reply == nil || c.reply.Revision != loaded+2 {
		t.Errorf("reply %+v", c.reply)
	}
	early := lost
	early.ID, early.Revision = "s", loaded
	if c := d.call(drain, pool.Call{RequestID: "s", Hash: "h", Earlier: &early}); d.flight != nil || c.reply == nil || c.reply.Revision != loaded {
		t.Errorf("what was durable before is not the answer: %+v", c.reply)
	}
}

func TestExpectedRevision(t *testing.T) {
	t.Parallel()
	d := busy(t)
	now, next := d.table.at.Revision, d.table.at.Revision+1
	drain := func(c pool.Call) pool.Input { return pool.SetIntent{Call: c, ID: "b", Wish: member.WishDrain} }
	stale := d.call(drain, pool.Call{ExpectedRevision: &now})
	right := d.call(drain, pool.Call{ExpectedRevision: &next})
	second := d.call(drain, pool.Call{ExpectedRevision: &next})
	d.commit()
	is(t, stale.reply.Err, member.ErrStale)
	d.commit()
	if right.reply.Err != nil {
		t.Fatalf("refused: %v", right.reply.Err)
	}
	is(t, second.reply.Err, member.ErrStale)
}

func TestValidateOnlyChangesNothing(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a", "b", "c")
	for name, in := range map[string]func(pool.Call) pool.Input{
		"remove": func(c pool.Call) pool.Input { return pool.RemoveServer{Call: c, ID: "b"} },
		"intent": func(c pool.Call) pool.Input { return pool.SetIntent{Call: c, ID: "b", Wish: member.WishBanned} },
		"update": func(c pool.Call) pool.Input {
			return pool.UpdateServer{Call: c, ID: "b", Edit: func(s member.Spec) (member.Spec, error) { return s, nil }}
		},
		"settings": func(c pool.Call) pool.Input {
			return pool.UpdateSettings{Call: c, Edit: func(s member.Settings) (member.Settings, error) { return s, nil }}
		},
	} {
		c := d.call(in, pool.Call{ValidateOnly: true, RequestID: name})
		if d.flight != nil || c.reply == nil || c.reply.Err != nil {
			t.Errorf("%s: reply %+v, change %+v", name, c.reply, d.flight)
		}
	}
	c := d.call(func(c pool.Call) pool.Input { return pool.RemoveServer{Call: c, ID: "x"} }, pool.Call{ValidateOnly: true})
	is(t, c.reply.Err, member.ErrNotFound)
}

func TestCommandsAreChecked(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a", "b", "c")
	errEdit := member.Invalid("spec.weight", "no")
	for name, test := range map[string]struct {
		in   func(pool.Call) pool.Input
		want error
	}{
		"remove a stranger": {func(c pool.Call) pool.Input { return pool.RemoveServer{Call: c, ID: "x"} }, member.ErrNotFound},
		"remove another incarnation": {func(c pool.Call) pool.Input {
			return pool.RemoveServer{Call: c, ID: "b", Incarnation: 77}
		}, member.ErrStale},
		"update a stranger": {func(c pool.Call) pool.Input { return pool.UpdateServer{Call: c, ID: "x"} }, member.ErrNotFound},
		"an edit that fails": {func(c pool.Call) pool.Input {
			return pool.UpdateServer{Call: c, ID: "b", Edit: func(s member.Spec) (member.Spec, error) { return s, errEdit }}
		}, errEdit},
		"an edit to something invalid": {func(c pool.Call) pool.Input {
			return pool.UpdateServer{Call: c, ID: "b", Edit: func(s member.Spec) (member.Spec, error) {
				s.ProbeAddresses = nil
				return s, nil
			}}
		}, member.ErrInvalid},
		"invalid settings": {func(c pool.Call) pool.Input {
			return pool.UpdateSettings{Call: c, Edit: func(s member.Settings) (member.Settings, error) {
				s.HoldDown = time.Hour
				return s, nil
			}}
		}, member.ErrInvalid},
	} {
		c := d.call(test.in, pool.Call{})
		if d.flight != nil || c.reply == nil {
			t.Fatalf("%s: not refused", name)
		}
		is(t, c.reply.Err, test.want)
	}
}

func TestRemoveTwice(t *testing.T) {
	t.Parallel()
	d := busy(t)
	first, second := d.remove("b"), d.remove("b")
	d.commit()
	if second.reply != nil {
		t.Fatal("told that b is gone before it is")
	}
	d.reject()
	is(t, first.reply.Err, member.ErrUnavailable)
	d.wait(time.Second)
	d.commit()
	if second.reply.Err != nil || !d.removed("b") {
		t.Fatalf("reply %+v", second.reply)
	}
	third := d.remove("b")
	is(t, third.reply.Err, member.ErrNotFound)
}

// An operator's edit reaches the watchers.
func TestUpdateReachesTheWatchers(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a", "b", "c")
	d.call(func(c pool.Call) pool.Input {
		return pool.UpdateServer{Call: c, ID: "b", Edit: func(s member.Spec) (member.Spec, error) {
			s.Probe = member.Probe{Method: member.ProbeTCP, Port: 80}
			return s, nil
		}}
	}, pool.Call{})
	d.commit() // the desk checks the assignments
	if d.table.rows["b"].Spec.Probe.Port != 80 {
		t.Fatalf("row %+v", d.table.rows["b"])
	}
}

// Settings that change the period reach everybody.
func TestSettingsReachTheWatchers(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a", "b")
	d.set(func(s *member.Settings) { s.ProbeInterval = time.Second })
	d.commit()
	if got := d.byID["a"].assigned.Interval; got != 500*time.Millisecond {
		t.Fatalf("the period of a pair is %v", got)
	}
}
