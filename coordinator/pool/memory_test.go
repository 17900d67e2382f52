package pool_test

import (
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// Thousands of members that come at once leave no room behind for the looks at them.
func TestWakesGiveRoomBack(t *testing.T) {
	t.Parallel()
	const many, left = 50_000, 2000
	if room, inOrder := pool.RoomAfter(many, left); room > 4*left || !inOrder {
		t.Errorf("%d of %d are left, with room for %d; in order: %v", left, many, room, inOrder)
	}
}

// Each other test here is about how long the machine remembers something, and fails when it
// is much more or less.

// Two that have missed a server to the end of a round make it suspect for two seconds,
// when the next round is longer in coming: somebody reaches it.
func TestNegativesAreRememberedForTwoSeconds(t *testing.T) {
	t.Parallel()
	d := five(t)
	first, second := d.table.rows["c"].First, d.table.rows["c"].Second
	see := func(id member.ID) pool.Evidence {
		switch id {
		case first:
			return evidence(up)
		case second:
			return evidence(verdict.SightCannotJudge)
		}
		return evidence(down)
	}
	d.report(first, "c", down)
	for range 3 {
		d.answerWith("c", see)
		d.nextRound("c")
	}
	d.answerWith("c", see)
	d.report(first, "c", verdict.SightUnknown)
	ended := d.now
	for _, step := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {1900 * time.Millisecond, true}, {2100 * time.Millisecond, false}} {
		d.wait(step.after - d.now.Sub(ended)) // and nobody says anything
		if d.suspect("c") != step.want {
			t.Errorf("%v after the round: suspect %v", step.after, !step.want)
		}
	}
}

// What two have missed to the end of a round makes a server suspect until the next round
// has had time to say it again, and no longer. Its own stream answers.
func TestNextRoundHasTimeToRenewASuspicion(t *testing.T) {
	t.Parallel()
	for name, answers := range map[string]bool{"it does": true, "it does not": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := five(t)
			d.miss("c")
			d.echo("c")
			d.answerAll("c", down)
			d.staysAfterRound("c", "stream_answers")
			d.nextRound("c")
			d.echo("c")
			round := d.notary.newest["c"]
			for end, asked := round.lastProbe.Add(200*time.Millisecond), round.observers; d.now.Before(end); d.wait(time.Millisecond) {
				if !d.suspect("c") {
					t.Fatalf("not suspect %v before the end of the round", round.deadline.Sub(d.now))
				}
				if answers && d.now.Equal(round.lastProbe.Add(150*time.Millisecond)) {
					for _, id := range asked {
						d.answer(id, "c", down, true)
					}
				}
			}
			d.wait(400 * time.Millisecond)
			if d.suspect("c") != answers {
				t.Fatalf("suspect %v", d.suspect("c"))
			}
		})
	}
}

// A server whose round came to its removal counts for the brake for ten seconds, though
// its stream answers and no further round comes to that.
func TestCondemnedCountsForTenSeconds(t *testing.T) {
	t.Parallel()
	d := letters(t, 8)
	d.respec("c", func(s *member.Spec) { s.Endpoints = []member.Endpoint{{Address: "10.0.0.9:80"}} })
	d.set(func(s *member.Settings) { s.Mode = member.ModeShadow })
	d.commitAll()
	d.miss("c")
	round := func(connect verdict.Connect) {
		d.echo("c")
		d.answerWith("c", func(member.ID) pool.Evidence {
			e := evidence(down)
			e.Connect = connect
			return e
		})
		d.commitAll()
	}
	round(verdict.ConnectUnanswered)
	d.nextRound("c")
	round(verdict.ConnectUnanswered)
	d.staysAfterRound("c", "shadow_mode")
	for condemned, newest := d.now, d.notary.newest["c"]; d.now.Sub(condemned) < 13*time.Second; d.live(100 * time.Millisecond) {
		if d.notary.newest["c"] != newest {
			newest = d.notary.newest["c"]
			round(verdict.ConnectNone)
		}
		d.step(pool.Tick{})
		since, want := d.now.Sub(condemned), 0
		if since < 10*time.Second {
			want = 1
		}
		if got := d.m.Brake().Safety.Suspects; got != want || !d.suspect("c") {
			t.Fatalf("%v later %d count, want %d; suspect: %v", since, got, want, d.suspect("c"))
		}
	}
}

// Losses older than an hour, the longest window of a brake, are forgotten with the next
// one, and by a coordinator that starts; a loss within it counts.
func TestLossesAreKeptForAnHour(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]bool{"": false, "across a restart": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := letters(t, 12)
			d.set(func(s *member.Settings) { s.BrakeWindow = time.Hour })
			d.commitAll()
			dead := d.apart(4)
			d.die(dead[0])
			first := d.now
			d.live(30 * time.Minute)
			d.die(dead[1])
			again := func() {
				if restart {
					d.table.at.Epoch++
					d.boot()
					for _, id := range d.table.order {
						d.hello(agent(id))
					}
					d.digests()
				}
				d.commitAll()
			}
			d.live(59*time.Minute - d.now.Sub(first))
			again()
			if got := d.m.Sizes()["losses"]; got != 2 {
				t.Errorf("%d losses are known after 59 minutes, want 2", got)
			}
			d.live(61*time.Minute - d.now.Sub(first))
			again()
			d.die(dead[2])
			if got := d.m.Sizes()["losses"]; got != 2 {
				t.Errorf("%d losses are known after an hour and another one, want 2", got)
			}
		})
	}
}
