package pool_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

func (d *desk) replace(id, by member.ID, of pool.Call) *call {
	d.t.Helper()
	return d.call(func(c pool.Call) pool.Input { return pool.ReplaceServer{Call: c, ID: id, By: by} }, of)
}

// One change: who leaves is gone, the newcomer has its place, everybody else is
// where it was, and the size that the pool is meant to have is as before the
// newcomer.
func TestReplaceIsOneChange(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a", "b", "c", "d", "e")
	d.inOrder([]member.ID{"a", "b", "c", "d", "e"})
	d.lead()
	reference, before := d.table.reference, d.table.at.Revision
	c := d.replace("b", "d", pool.Call{RequestID: "r", Hash: "h", Reason: "old", Actor: "ann"})
	if c.reply != nil {
		t.Fatal("answered before it is durable")
	}
	d.commit()
	if diff := cmp.Diff([]member.ID{"a", "d", "c", "e"}, d.table.order); diff != "" || c.reply.Err != nil {
		t.Errorf("%v, order (-want +got):\n%s", c.reply.Err, diff)
	}
	if d.table.at.Revision != before+1 || d.table.reference != reference-1 {
		t.Errorf("revision %d after %d, reference %d after %d", d.table.at.Revision, before, d.table.reference, reference)
	}
	if i := d.table.intents["b"]; i.Wish != member.WishBanned || i.Reason != "b was replaced by d: old" || i.Actor != "ann" {
		t.Errorf("intent %+v", i)
	}
	is(t, d.hello(agent("b")).refused, member.ErrRefused)
	again := d.replace("b", "d", pool.Call{RequestID: "r", Hash: "h"})
	if again.reply.Err != nil || again.reply.Revision != c.reply.Revision || d.flight != nil {
		t.Errorf("repeated: %+v", again.reply)
	}
}

// lead lets everybody come back to a machine that has just started.
func (d *desk) lead() {
	d.t.Helper()
	for _, id := range d.table.order {
		h := agent(id)
		h.InstanceID = d.table.rows[id].InstanceID
		d.hello(h)
	}
	d.digests()
	d.commitAll()
}

func TestReplaceIsRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		in   pool.ReplaceServer
		do   func(d *desk)
		want error
		rule string
	}{
		"a stranger":          {in: pool.ReplaceServer{ID: "zebra", By: "a"}, want: member.ErrNotFound},
		"by a stranger":       {in: pool.ReplaceServer{ID: "a", By: "zebra"}, want: member.ErrNotFound},
		"another incarnation": {in: pool.ReplaceServer{ID: "a", By: "b", Incarnation: 99}, want: member.ErrStale},
		"another twin":        {in: pool.ReplaceServer{ID: "a", By: "a", Incarnation: 99}, want: member.ErrStale},
		"by one that joins":   {in: pool.ReplaceServer{ID: "a", By: "x"}, do: func(d *desk) { d.hello(agent("x")) }, rule: "not_ready"},
		"by one that drains":  {in: pool.ReplaceServer{ID: "a", By: "b"}, do: func(d *desk) { d.intend("b", member.WishDrain) }, rule: "not_ready"},
		"by a suspect":        {in: pool.ReplaceServer{ID: "a", By: "b"}, do: func(d *desk) { d.silent("b"); d.miss("b") }, rule: "not_ready"},
		"by one that is sick": {in: pool.ReplaceServer{ID: "a", By: "b"}, do: func(d *desk) { d.health("b", true) }, rule: "not_ready"},
		"while many are away": {in: pool.ReplaceServer{ID: "a", By: "b"}, do: func(d *desk) { d.intend("c", member.WishDrain); d.intend("d", member.WishDrain) }, rule: "floor"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ask := func(d *desk, force bool) *call {
				return d.call(func(c pool.Call) pool.Input {
					in := test.in
					in.Call, in.Force = c, force
					return in
				}, pool.Call{})
			}
			d := newDesk(t)
			d.pool("a", "b", "c", "d")
			if test.do != nil {
				test.do(d)
				d.commitAll()
			}
			c := ask(d, false)
			if c.reply == nil {
				t.Fatal("not refused")
			}
			if test.rule == "" {
				is(t, c.reply.Err, test.want)
				return
			}
			if rule := refusedBy(c); rule != test.rule {
				t.Fatalf("refused by %q: %v", rule, c.reply.Err)
			}
			forced := ask(d, true)
			d.commitAll()
			if forced.reply == nil || forced.reply.Err != nil || !d.removed("a") {
				t.Errorf("by force: %+v", forced.reply)
			}
		})
	}
}

// refusedBy is the rule by which a call was refused, if one did.
func refusedBy(c *call) string {
	var refused *member.RefusedError
	if c.reply == nil || !errors.As(c.reply.Err, &refused) {
		return ""
	}
	return refused.Rule
}

// While the brake holds removals, nobody is replaced, but by force.
func TestReplaceIsBraked(t *testing.T) {
	t.Parallel()
	d := many(t, 20, nil)
	ids := d.apart(6)
	d.missAll(ids)
	d.wait(time.Second)
	by := d.table.rows[ids[0]].First
	if rule := refusedBy(d.replace(ids[0], by, pool.Call{})); rule != "brake" {
		t.Errorf("refused by %q", rule)
	}
	forced := d.call(func(c pool.Call) pool.Input {
		return pool.ReplaceServer{Call: c, ID: ids[0], By: by, Force: true}
	}, pool.Call{})
	d.commitAll()
	if forced.reply.Err != nil || !d.removed(ids[0]) {
		t.Errorf("by force: %+v", forced.reply)
	}
}

// Who comes or goes in the change that is being made is not put anywhere in it.
func TestReplaceMeetsOthers(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a", "b", "c", "d")
	calls := d.together(
		func(c pool.Call) pool.Input { return pool.RemoveServer{Call: c, ID: "b"} },
		func(c pool.Call) pool.Input { return pool.ReplaceServer{Call: c, ID: "a", By: "b", Force: true} },
		func(c pool.Call) pool.Input { return pool.ReplaceServer{Call: c, ID: "b", By: "c", Force: true} },
	)
	d.commitAll()
	is(t, calls[1].reply.Err, member.ErrNotFound)
	is(t, calls[2].reply.Err, member.ErrNotFound)
	if d.removed("a") || d.removed("c") || !d.removed("b") {
		t.Errorf("order %v", d.table.order)
	}
	c := d.replace("a", "c", pool.Call{})
	d.reject()
	is(t, c.reply.Err, member.ErrUnavailable)
	if d.removed("a") {
		t.Error("a change that failed has removed a")
	}
}

// While an operator lets it, a second machine takes a name from one that lives,
// and proves it: that is a new incarnation in the same place.
func TestYield(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a", "b", "c")
	order := slices.Clone(d.table.order)
	holder := d.byID["b"]
	twin := agent("b")
	twin.BootID, twin.InstanceID = "other boot", "other run"
	twin.Spec.ProbeAddresses = agent("z").Spec.ProbeAddresses
	refused := d.hello(twin)
	d.echo("b")
	is(t, refused.refused, member.ErrAlreadyExists)

	d.replace("b", "b", pool.Call{})
	d.commitAll()
	d.echo("b")
	// The same host is not another machine.
	same := agent("b")
	same.InstanceID = "third run"
	again := d.hello(same)
	d.echo("b")
	is(t, again.refused, member.ErrAlreadyExists)

	p := d.hello(twin)
	d.commitAll()
	if !p.welcomed || p.inc != d.table.rows["b"].Incarnation || d.table.rows["b"].Phase != member.PhaseJoining {
		t.Fatalf("welcome %v, row %+v", p.welcomed, d.table.rows["b"])
	}
	is(t, holder.refused, member.ErrStale)
	if diff := cmp.Diff(order, d.table.order); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	// Once: it is the holder now.
	back := d.hello(agent("b"))
	d.echo("b")
	is(t, back.refused, member.ErrAlreadyExists)
}

// What was allowed is over after a minute.
func TestYieldEnds(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a", "b", "c")
	d.replace("b", "b", pool.Call{})
	d.commitAll()
	d.live(time.Minute)
	twin := agent("b")
	twin.BootID, twin.InstanceID = "other boot", "other run"
	p := d.hello(twin)
	d.echo("b")
	is(t, p.refused, member.ErrAlreadyExists)
}
