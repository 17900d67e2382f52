package sim

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// Record makes a run again and keeps what happens around its first failure.
func Record(o Options) (*Log, error) {
	log := &Log{}
	if _, err := run(o, log); err != nil {
		return nil, err
	}
	return log, nil
}

// scriptServers is how many servers a scenario script may have.
const scriptServers = 250

// CheckScript says what a run does that a scenario script cannot say.
func CheckScript(o Options) error {
	if o.Servers > scriptServers {
		return member.Invalid("script", "a scenario script has at most %d servers, and this run has %d", scriptServers, o.Servers)
	}
	for i := range o.Faults {
		if _, err := scriptCommand(done{fault: &o.Faults[i], host: &host{}}); err != nil {
			return err
		}
	}
	return nil
}

// WriteScript writes the faults of the run up to its first failure as a scenario
// script of package pool, without expected output. A script has a network that
// loses nothing and makes a ring of its own; what it cannot say is an error.
func (l *Log) WriteScript(w io.Writer, o Options) error {
	if err := CheckScript(o); err != nil {
		return err
	}
	b := bufio.NewWriter(w)
	_, _ = fmt.Fprintf(b, "# %s\n", o.Command()) // errors stay with b until Flush
	for i := range o.Servers {
		h := newHost(i, &o)
		_, _ = fmt.Fprintf(b, "join %s%s%s\n", h.id, pair(" zone=", h.zone), pair(" rack=", h.rack))
	}
	l.writeSettings(b, o)
	_, _ = fmt.Fprintf(b, "run %v\n", o.Settle)
	if err := l.writeFaults(b, o); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(b, "show servers\nshow alarms\n----\n")
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write script: %w", err)
	}
	return nil
}

func pair(key, value string) string {
	if value == "" {
		return ""
	}
	return key + value
}

func (l *Log) writeSettings(w io.Writer, o Options) {
	usual := member.DefaultSettings()
	before, now := settingFields(&usual), settingFields(&o.Settings)
	names := make([]string, 0, len(now))
	for name := range now {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		value := reflect.ValueOf(now[name]).Elem().Interface()
		if value != reflect.ValueOf(before[name]).Elem().Interface() {
			_, _ = fmt.Fprintf(w, "set %s %v\n", name, value)
		}
	}
}

func (l *Log) writeFaults(w io.Writer, o Options) error {
	faults := slices.Clone(l.faults)
	slices.SortStableFunc(faults, func(a, b done) int { return cmp.Compare(a.at, b.at) })
	end := o.Duration
	if l.failedAt > 0 {
		end = min(end, l.failedAt-o.Settle+logAfter)
	}
	now := time.Duration(0)
	for _, d := range faults {
		if d.at > end {
			break
		}
		command, err := scriptCommand(d)
		if err != nil {
			return err
		}
		if d.at > now {
			_, _ = fmt.Fprintf(w, "run %v\n", d.at-now)
			now = d.at
		}
		_, _ = fmt.Fprintln(w, command)
	}
	if end > now {
		_, _ = fmt.Fprintf(w, "run %v\n", end-now)
	}
	return nil
}

// scriptCommand says a fault, or its end, in the language of the scripts.
func scriptCommand(d done) (string, error) {
	id := string(d.host.id)
	begin, end := "", ""
	switch d.fault.Kind {
	case Crash:
		begin, end = "crash "+id, "reboot "+id
	case Unplug:
		begin, end = "link "+id+" down", "link "+id+" up"
	case PauseAgent:
		begin, end = "pause "+id, "continue "+id
	case RestartAgent:
		begin, end = "kill "+id, "start "+id
	case Deafen:
		begin, end = "deaf "+id, "hear "+id
	case FilterICMP:
		begin, end = "icmp "+id+" off", "icmp "+id+" on"
	case MakeLiar:
		if d.fault.Lie != SaysAnything {
			begin, end = "lie "+id+" "+Lies()[d.fault.Lie-1], "lie "+id+" off"
		}
	case Suspend, StarveAgent, LoseIngress, LoseEgress, CutOff, Isolate, JumpClock, DriftClock, BreakEdge, LengthenBursts:
	}
	switch {
	case begin == "":
		return "", member.Invalid("script", "scenario scripts have no word for %s", strings.TrimSpace(d.fault.String()))
	case d.over:
		return end, nil
	}
	return begin, nil
}
