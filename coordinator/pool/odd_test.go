package pool_test

import (
	"slices"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// Each test here is about one rule on who is to be believed, and fails without it.

// letters is a pool of the first n letters in which all is well.
func letters(t *testing.T, n int) *desk {
	t.Helper()
	d := newDesk(t)
	ids := make([]member.ID, n)
	for i := range ids {
		ids[i] = serverID(i)
	}
	d.pool(ids...)
	d.wait(time.Second)
	return d
}

// answerWith answers the newest round about a server as each observer sees it: a
// reply or a first lost probe at once, and the loss of all at the end.
func (d *desk) answerWith(subject member.ID, see func(member.ID) pool.Evidence) {
	d.t.Helper()
	r := d.notary.newest[subject]
	say := func(id member.ID, e pool.Evidence, final bool) {
		in := d.answerOf(id, subject, e.Sight, final)
		in.Evidence, in.Round = e, r.id
		d.step(in)
	}
	for i := 0; i < len(r.observers); i++ {
		e := see(r.observers[i])
		final := e.Sight != down
		if !final {
			e.Connect = verdict.ConnectNone
		}
		say(r.observers[i], e, final)
	}
	d.wait(max(0, r.lastProbe.Sub(d.now)))
	for _, id := range r.observers {
		if e := see(id); e.Sight == down {
			say(id, e, true)
		}
	}
}

// but is what everybody sees except one.
func but(odd member.ID, seen pool.Sight, others pool.Sight) func(member.ID) pool.Evidence {
	return func(id member.ID) pool.Evidence {
		if id == odd {
			return evidence(seen)
		}
		return evidence(others)
	}
}

// One observer that reaches a dead server keeps it only until others have looked.
func TestOneLiarKeepsNoDeadServer(t *testing.T) {
	t.Parallel()
	d := letters(t, 8)
	liar := d.table.rows["c"].First
	since := d.now
	d.report(d.table.rows["c"].Second, "c", down)
	round := d.notary.newest["c"]
	d.answerWith("c", but(liar, up, down))
	if d.removes("c") {
		t.Fatal("removed although an observer reaches it, and nobody else was asked")
	}
	first := round.observers
	second := d.observers("c")
	if len(second) < 3 || slices.ContainsFunc(second, func(id member.ID) bool { return id != liar && slices.Contains(first, id) }) {
		t.Fatalf("%v are asked after %v", second, first)
	}
	// It goes on lying meanwhile, by all means that it has.
	d.report(liar, "c", up)
	d.answerWith("c", but(liar, up, down))
	if !d.removes("c") || d.now.Sub(since) > 3*time.Second {
		t.Fatalf("kept by %s after %v", d.rule("c"), d.now.Sub(since))
	}
	if !d.alarm("OBSERVER_MUTED", liar) {
		t.Error("the liar is not muted")
	}
}

// If one of the others reaches it, too, the server stays, and nobody is muted.
func TestSecondRoundAcquits(t *testing.T) {
	t.Parallel()
	d := letters(t, 8)
	honest := d.table.rows["c"].First
	d.report(d.table.rows["c"].Second, "c", down)
	d.answerWith("c", but(honest, up, down))
	other := slices.DeleteFunc(slices.Clone(d.observers("c")), func(id member.ID) bool { return id == honest })[0]
	d.answerWith("c", func(id member.ID) pool.Evidence {
		if id == honest || id == other {
			return evidence(up)
		}
		return evidence(down)
	})
	if d.removes("c") || d.alarm("OBSERVER_MUTED", honest) {
		t.Fatalf("removed %v, muted %v", d.removes("c"), d.alarm("OBSERVER_MUTED", honest))
	}
}

// The silence of others does not outvote the one who reaches it: at least half of those
// asked must miss it, and two.
func TestSilenceDoesNotOutvoteTheOdd(t *testing.T) {
	t.Parallel()
	for name, most := range map[string]bool{"less than half": false, "half": true} {
		d := letters(t, 24)
		odd := d.table.rows["c"].First
		d.report(d.table.rows["c"].Second, "c", down)
		d.answerWith("c", but(odd, up, down))
		d.toLastProbe("c")
		d.answer(d.observers("c")[1], "c", down, true) // and silent ones are replaced
		asked := slices.DeleteFunc(slices.Clone(d.observers("c")), func(id member.ID) bool { return id == odd })
		answering := (len(asked) + 1) / 2
		if answering <= verdict.FreshNeeded {
			t.Fatalf("asked %v", asked)
		}
		if !most {
			answering--
		}
		for _, id := range asked[1:answering] {
			d.answer(id, "c", down, true)
		}
		d.wait(400 * time.Millisecond)
		if d.removes("c") != most {
			t.Errorf("%s, %d of %d, miss it: removed %v by %q", name, answering, len(asked), d.removes("c"), d.rule("c"))
		}
	}
}

// Who had a reply just before the server died is no liar.
func TestEarlyReplyIsNoLie(t *testing.T) {
	t.Parallel()
	d := letters(t, 8)
	early := d.table.rows["c"].First
	d.report(d.table.rows["c"].Second, "c", down)
	d.answerWith("c", but(early, up, down))
	d.report(early, "c", down)
	d.answerWith("c", but("", up, down))
	if !d.removes("c") || d.alarm("OBSERVER_MUTED", early) {
		t.Fatalf("removed %v, muted %v", d.removes("c"), d.alarm("OBSERVER_MUTED", early))
	}
}

// The TCP acquittal: a connect that is answered keeps a server that no probe
// reaches, also one without an agent.
func TestConnectAcquits(t *testing.T) {
	t.Parallel()
	for name, connect := range map[string]verdict.Connect{"answered": verdict.ConnectAnswered, "unanswered": verdict.ConnectUnanswered} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := letters(t, 8)
			d.close(d.byID["c"], false)
			d.miss("c")
			d.answerWith("c", func(member.ID) pool.Evidence {
				e := evidence(down)
				e.Connect = connect
				return e
			})
			d.wait(time.Second)
			if kept := connect == verdict.ConnectAnswered; kept == d.removes("c") || kept != d.alarm("ICMP_FILTERED", "") {
				t.Fatalf("removed %v by %s, alarms %v", d.removes("c"), d.rule("c"), d.alarms)
			}
			if _, suspect := d.marks["c"]; suspect && connect == verdict.ConnectAnswered {
				t.Error("suspect behind the filter")
			}
		})
	}
}

// A server that answers its stream only is removed when nobody can connect to it
// in two rounds, and has an endpoint to which that would matter: one over TCP.
func TestUnreachableTakesTwoRounds(t *testing.T) {
	t.Parallel()
	deadEnd := func(member.ID) pool.Evidence {
		e := evidence(down)
		e.Connect = verdict.ConnectUnanswered
		return e
	}
	for name, test := range map[string]struct {
		endpoints []member.Endpoint
		removed   bool
	}{
		"with an endpoint": {[]member.Endpoint{{Address: "10.0.0.9:80"}}, true},
		"without":          {nil, false},
		"of UDP":           {[]member.Endpoint{{Address: "10.0.0.9:27015", Protocol: "udp"}}, false},
		"of UDP and TCP":   {[]member.Endpoint{{Name: "play", Address: "10.0.0.9:27015", Protocol: "udp"}, {Name: "admin", Address: "10.0.0.9:80", Protocol: "http"}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := letters(t, 8)
			d.call(func(c pool.Call) pool.Input {
				return pool.UpdateServer{Call: c, ID: "c", Edit: func(s member.Spec) (member.Spec, error) {
					s.Endpoints = test.endpoints
					return s, nil
				}}
			}, pool.Call{})
			d.commitAll()
			d.miss("c")
			d.echo("c")
			d.answerWith("c", deadEnd)
			d.commitAll()
			d.staysAfterRound("c", "stream_answers")
			d.nextRound("c")
			d.echo("c")
			d.answerWith("c", deadEnd)
			if d.removes("c") != test.removed {
				t.Fatalf("removed %v by %s", d.removes("c"), d.rule("c"))
			}
			if d.removes("c") && d.flight.Remove[0].Cause != member.CauseUnreachable {
				t.Errorf("as %s", d.flight.Remove[0].Cause)
			}
		})
	}
}

// A server whose stream has just answered is not suspect for two lost probes, but
// when two observers have missed it to the end.
func TestEchoOutweighsFirstLosses(t *testing.T) {
	t.Parallel()
	d := letters(t, 8)
	d.report(d.table.rows["c"].Second, "c", down)
	d.echo("c")
	d.report(d.table.rows["c"].First, "c", down)
	for _, id := range d.observers("c") {
		d.answer(id, "c", down, false)
	}
	if _, suspect := d.marks["c"]; suspect {
		t.Fatal("suspect")
	}
	d.toLastProbe("c")
	for _, id := range d.observers("c")[:2] {
		d.answer(id, "c", down, true)
	}
	if _, suspect := d.marks["c"]; !suspect {
		t.Fatal("not suspect although two miss it to the end")
	}
}

// A deaf observer is muted, its subjects get others, and it makes nobody suspect.
func TestDeafIsMuted(t *testing.T) {
	t.Parallel()
	d := letters(t, 8)
	deaf := member.ID("c")
	subjects := []member.ID{d.table.rows[deaf].First, d.table.rows[deaf].Second}
	for range 4 {
		for _, id := range subjects {
			if d.said[[2]member.ID{deaf, id}] != down {
				d.report(deaf, id, down)
			}
			d.echo(id)
			d.answerWith(id, but(deaf, down, up))
		}
		d.live(2 * time.Second)
	}
	if !d.alarm("OBSERVER_MUTED", deaf) || len(d.marks) > 0 {
		t.Fatalf("alarms %v, marks %v", d.alarms, d.marks)
	}
	for _, id := range subjects {
		if st, _ := d.m.Server(id); len(st.Temporary) != 1 {
			t.Errorf("%s is watched by %v in the place of %s", id, st.Temporary, deaf)
		}
	}
	// It is heard again when it reaches them.
	for _, id := range subjects {
		d.report(deaf, id, up)
	}
	d.live(time.Minute)
	if d.alarm("OBSERVER_MUTED", deaf) {
		t.Error("muted for ever")
	}
}

// A link that stays broken between two buddies is given up after a minute.
func TestBrokenLinkMovesTheRing(t *testing.T) {
	t.Parallel()
	d := letters(t, 8)
	buddy := d.table.rows["c"].First
	d.report(buddy, "c", down)
	for range 40 {
		d.echo("c")
		d.answerWith("c", but(buddy, down, up))
		d.commitAll()
		if row := d.table.rows["c"]; row.First != buddy && row.Second != buddy {
			return
		}
		d.nextRound("c")
	}
	t.Fatalf("c stays beside %s: %+v", buddy, d.table.rows["c"])
}

// Who does not echo a sweep is looked into, by those who do; silence alone removes
// nobody.
func TestSweep(t *testing.T) {
	t.Parallel()
	d := letters(t, 12)
	row := d.table.rows["c"]
	dead := row.First
	d.said[[2]member.ID{"nobody", dead}] = down // it will not echo
	d.report(row.Second, "c", down)
	d.report(dead, "c", down)
	d.wait(200 * time.Millisecond)
	if d.notary.newest[dead] == nil {
		t.Fatalf("%s is silent, and nobody looks", dead)
	}
	for _, id := range d.table.order {
		if id != "c" && id != dead && d.notary.newest[id] != nil {
			t.Errorf("%s has echoed, and is looked into", id)
		}
	}
	d.answerAll(dead, up)
	if d.removes(dead) {
		t.Error("removed for its silence")
	}
}

// A positive that comes after the quorum, and before the commit, saves the server.
func TestLateReplySaves(t *testing.T) {
	t.Parallel()
	d := letters(t, 14)
	d.intend("zebra", member.WishDrain) // is under way
	d.miss("c")
	for _, id := range d.observers("c") {
		d.answer(id, "c", down, false)
	}
	all := slices.Clone(d.observers("c"))
	late := d.answerOf(all[len(all)-1], "c", up, true)
	d.toLastProbe("c")
	for _, id := range all[:len(all)-1] {
		d.answer(id, "c", down, true)
	}
	d.wait(110 * time.Millisecond)
	if d.rule("c") != "" {
		t.Fatalf("kept by %s: there is no verdict to save it from", d.rule("c"))
	}
	d.step(late)
	d.commit()
	if d.removes("c") {
		t.Fatal("removed")
	}
}

// Where the coordinator has stood still during a sweep, the sweep waits again for the
// echoes: nobody else is asked about.
func TestStandstillInASweep(t *testing.T) {
	t.Parallel()
	d := letters(t, 20)
	d.close(d.byID["c"], false)
	d.miss("c")
	for _, id := range d.observers("c") {
		d.answer(id, "c", down, false)
	}
	before := d.counts[pool.CountRound]
	d.now = d.now.Add(1300 * time.Millisecond)
	d.step(pool.Tick{})
	if n := d.counts[pool.CountRound] - before; n > 2 {
		t.Fatalf("%d rounds are opened at once", n)
	}
}
