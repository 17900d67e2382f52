package pool_test

import (
	"errors"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

func (d *desk) releaseBrake(of pool.Call, ids ...member.ID) *call {
	d.t.Helper()
	c := d.call(func(c pool.Call) pool.Input { return pool.ReleaseBrake{Call: c, IDs: ids} }, of)
	if d.flight != nil {
		if !d.flight.MassChangeConfirmed {
			d.t.Error("routers are not told that it is confirmed")
		}
		d.commitAll()
	}
	return c
}

func TestReleaseBrake(t *testing.T) {
	t.Parallel()
	d := many(t, 31, nil)
	dead := d.apart(8)
	d.missAll(dead)
	if d.gone(dead) != 0 {
		t.Fatal("removed")
	}
	d.commitAll()
	// Checked only, nothing happens.
	if c := d.releaseBrake(pool.Call{ValidateOnly: true}); c.reply == nil || c.reply.Err != nil || !d.m.Status().Braked {
		t.Fatalf("%+v", c.reply)
	}
	c := d.releaseBrake(pool.Call{Actor: "ann", Reason: "the switch burned", RequestID: "r1", Hash: "h"})
	if c.reply == nil || c.reply.Err != nil {
		t.Fatalf("%+v", c.reply)
	}
	status := d.m.Brake()
	if len(status.Released) != 8 || len(status.Held) != 0 || d.m.Status().Braked || d.alarm("BRAKE", "") {
		t.Fatalf("%+v", status)
	}
	// Somebody else falls silent meanwhile: not confirmed, and few enough.
	confirmed := false
	for range 20 {
		d.nextRound(dead[0])
		d.answersOf(dead)
		d.wait(300 * time.Millisecond)
		if d.flight != nil && len(d.flight.Remove) > 0 {
			confirmed = d.flight.MassChangeConfirmed
			break
		}
	}
	d.commitAll()
	if got := d.gone(dead); got != 8 || !confirmed {
		t.Fatalf("%d are removed, confirmed to the routers: %v", got, confirmed)
	}
	if d.table.reference != 31-8 || d.m.Brake().Safety.Suspects != 0 || d.m.Brake().Safety.Lost != 0 {
		t.Errorf("reference size %d, %+v", d.table.reference, d.m.Brake().Safety)
	}
	// The same request again is answered alike.
	if again := d.releaseBrake(pool.Call{RequestID: "r1", Hash: "h"}); again.reply == nil || again.reply.Err != nil || again.reply.Revision != c.reply.Revision {
		t.Errorf("%+v", again.reply)
	}
}

func TestReleaseBrakeByName(t *testing.T) {
	t.Parallel()
	d := many(t, 31, nil)
	dead := d.apart(8)
	d.missAll(dead)
	if d.gone(dead) != 0 {
		t.Fatal("removed")
	}
	d.commitAll()
	well := d.table.order[1]
	for _, ids := range [][]member.ID{{well}, {dead[0], "nobody"}} {
		if c := d.releaseBrake(pool.Call{}, ids...); c.reply == nil {
			t.Fatal("no answer")
		} else if refused, ok := errors.AsType[*member.RefusedError](c.reply.Err); !ok || refused.Rule != "not_held" {
			t.Fatalf("%v", c.reply.Err)
		}
	}
	named := dead[:2]
	if c := d.releaseBrake(pool.Call{}, named...); c.reply == nil || c.reply.Err != nil {
		t.Fatalf("%+v", c.reply)
	}
	for range 10 {
		d.nextRound(dead[0])
		d.answersOf(dead)
		if d.gone(named) == 2 {
			break
		}
	}
	if got := d.gone(dead); got != 2 || !d.removed(dead[0]) || !d.removed(dead[1]) {
		t.Fatalf("%d are removed", got)
	}
	if !d.m.Status().Braked {
		t.Error("the others are not held any more")
	}
}

// What was confirmed holds for a minute, for those who were held then.
func TestReleaseIsOver(t *testing.T) {
	t.Parallel()
	d := many(t, 31, nil)
	dead := d.apart(8)
	d.missAll(dead)
	d.commitAll()
	d.releaseBrake(pool.Call{})
	d.live(61 * time.Second)
	d.commitAll()
	for range 3 {
		d.nextRound(dead[0])
		d.answersOf(dead)
	}
	if d.gone(dead) != 0 || d.rule(dead[0]) != "brake" {
		t.Fatalf("kept by %s", d.rule(dead[0]))
	}
	if n := d.m.Sizes()["released"]; n != 0 {
		t.Errorf("%d are released for ever", n)
	}
}

func TestReleaseOfNothing(t *testing.T) {
	t.Parallel()
	d := five(t)
	c := d.releaseBrake(pool.Call{})
	if refused, ok := errors.AsType[*member.RefusedError](c.reply.Err); !ok || refused.Rule != "not_held" {
		t.Fatalf("%+v", c.reply)
	}
	// Routers that keep removed servers are told all the same.
	c = d.call(func(c pool.Call) pool.Input { return pool.ReleaseBrake{Call: c, Kept: []member.ID{"gone"}} }, pool.Call{})
	if d.flight == nil || !d.flight.MassChangeConfirmed {
		t.Fatalf("%+v", c.reply)
	}
	d.commitAll()
	if c.reply.Err != nil {
		t.Fatal(c.reply.Err)
	}
}
