package pool_test

import (
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

// Each test here is about one gate between a verdict and the removal, and fails
// without it.

func TestModesGate(t *testing.T) {
	t.Parallel()
	for mode, rule := range map[member.Mode]string{member.ModeShadow: "shadow_mode", member.ModePaused: ""} {
		t.Run(mode.String()+" before", func(t *testing.T) {
			t.Parallel()
			d := five(t)
			d.set(func(s *member.Settings) { s.Mode = mode })
			d.commit()
			d.miss("c")
			if mode == member.ModePaused {
				if _, suspect := d.marks["c"]; suspect || d.counts[pool.CountRound] > 0 {
					t.Fatal("judged in spite of the pause")
				}
				return
			}
			d.answerAll("c", down)
			d.staysAfterRound("c", rule)
		})
		t.Run(mode.String()+" between verdict and proposal", func(t *testing.T) {
			t.Parallel()
			d := five(t)
			d.set(func(s *member.Settings) { s.Mode = mode })
			d.miss("c")
			d.answerAll("c", down)
			d.commit()
			if d.removes("c") {
				t.Fatal("removed")
			}
		})
	}
}

func TestMaintenanceGates(t *testing.T) {
	t.Parallel()
	t.Run("before", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.intend("c", member.WishMaintenance)
		d.commit()
		d.miss("c")
		if _, suspect := d.marks["c"]; suspect || d.counts[pool.CountRound] > 0 {
			t.Fatal("judged in spite of the maintenance")
		}
		d.intend("c", member.WishActive)
		d.commit()
		if d.counts[pool.CountRound] != 1 {
			t.Fatal("the doubt is not looked into when the maintenance is over")
		}
	})
	t.Run("between verdict and proposal", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.intend("c", member.WishMaintenance)
		d.miss("c")
		d.answerAll("c", down)
		d.commit()
		if d.removes("c") {
			t.Fatal("removed")
		}
		if _, suspect := d.marks["c"]; suspect {
			t.Fatal("suspect")
		}
	})
}

func TestJoiningIsNotJudged(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.hello(agent("f"))
	d.commit()
	d.miss("f")
	if _, suspect := d.marks["f"]; suspect || d.counts[pool.CountRound] > 0 {
		t.Fatal("judged while it joins")
	}
	if w := d.m.Servers()[5].WaitingFor; w == "" {
		t.Error("it does not say what it waits for")
	}
}

func TestRemovalGrace(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.set(func(s *member.Settings) { s.RemovalGrace = 5 * time.Second })
	d.commit()
	d.miss("c")
	since := d.now
	if d.marks["c"].Since != since {
		t.Fatal("the grace delays the mark")
	}
	for !d.removes("c") {
		d.commitAll()
		d.answerAll("c", down)
		if d.now.Sub(since) < 5*time.Second {
			d.staysAfterRound("c", "removal_grace")
			d.nextRound("c")
		}
	}
	if took := d.now.Sub(since); took < 5*time.Second || took > 5300*time.Millisecond {
		t.Errorf("removed after %v", took)
	}
}

func TestWarmUpRemovesNobody(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.table.at.Epoch++
	d.boot()
	for _, id := range []member.ID{"a", "b", "d", "e"} {
		d.hello(agent(id))
	}
	d.miss("c")
	if d.removed("c") {
		t.Fatal("removed")
	}
	for !d.removes("c") {
		d.commitAll()
		d.answerAll("c", down)
		if d.now.Sub(d.notary.started) < warmUp {
			d.staysAfterRound("c", "warm_up")
			d.nextRound("c")
		}
	}
	if took := d.now.Sub(d.notary.started); took < warmUp || took > warmUp+3*time.Second {
		t.Fatalf("removed %v after the start", took)
	}
}

// With nine in ten streams back the warm-up is over at once.
func TestWarmUpEndsWithTheStreams(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.table.at.Epoch++
	d.boot()
	for _, id := range d.table.order {
		if !d.m.Status().WarmingUp {
			t.Fatal("too early")
		}
		d.hello(agent(id))
	}
	if d.m.Status().WarmingUp {
		t.Fatal("still warming up")
	}
}
