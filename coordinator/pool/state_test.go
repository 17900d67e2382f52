package pool_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

// say lets a member's agent say what it says of its disk.
func (d *desk) say(id member.ID, trouble string) {
	d.t.Helper()
	d.step(pool.Digest{Session: d.byID[id].hello.Session, StateTrouble: trouble})
}

func TestUnsavedState(t *testing.T) {
	t.Parallel()
	const name = "AGENT_STATE_UNSAVED"
	d := five(t)
	d.say("b", "no space left on device")
	d.say("b", "no space left on device")
	if !d.alarm(name, "b") || len(d.alarms) != 1 {
		t.Fatalf("alarms %v", d.alarms)
	}
	if text := d.m.Alarms()[0].Text; !strings.Contains(text, "no space left on device") {
		t.Errorf("it says %q", text)
	}
	// A lost stream says nothing about the disk.
	d.close(d.byID["b"], true)
	if !d.alarm(name, "b") {
		t.Error("the alarm ends with the stream")
	}
	d.hello(agent("b"))
	d.say("b", "")
	if d.alarm(name, "b") {
		t.Error("the alarm stays")
	}
	d.say("b", "read-only file system")
	d.remove("b")
	d.commitAll()
	if len(d.alarms) != 0 {
		t.Errorf("alarms of one that is gone: %v", d.alarms)
	}
}

// notes are the events of a change that are the coordinator's own.
func notes(c member.Change) []string {
	var texts []string
	for _, e := range c.Events {
		if e.Actor == "test" {
			texts = append(texts, e.Text)
		}
	}
	return texts
}

// What the coordinator notes is written with the next change, or by itself, once,
// and not lost when that fails.
func TestNote(t *testing.T) {
	t.Parallel()
	note := func(text string) pool.Input {
		return pool.Note{Event: member.Event{Kind: member.EventAlarmRaised, Actor: "test", Text: text}}
	}
	d := five(t)
	d.step(note("one"))
	if d.flight != nil {
		t.Fatal("it does not wait for company")
	}
	d.intend("a", member.WishDrain)
	if got := notes(*d.flight); !slices.Equal(got, []string{"one"}) {
		t.Fatalf("the next change has %q", got)
	}
	d.step(note("two"))
	d.reject()
	var written []string
	for range 20 {
		d.live(time.Second)
		if d.flight != nil {
			written = append(written, notes(*d.flight)...)
			d.commit()
		}
	}
	if !slices.Equal(written, []string{"one", "two"}) {
		t.Errorf("written: %q", written)
	}
}
