package detector

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/buddyring/buddyring/internal/member"
)

// TestScripts runs testdata/*.txt. A script is a sequence of blocks: one command
// per line, a line of four hyphens, and the output expected from them, ended by
// an empty line. UPDATE_SCRIPTS=1 writes the outputs instead.
//
//	watch [period=D] ID[@OFFSET]...  assign these subjects (incarnation 1)
//	link ID rtt=D|lost|unsendable [rtt=D answers=N]  what happens to its probes from
//	                                 now on, but for every Nth, which is answered
//	loopback rtt=D|lost              the same for probes of the own host
//	tcp ID rtt=D|lost|unsendable     what happens to connects from now on
//	run D                            let the time pass
//	freeze D                         the time passes and the agent stands still
//	clock D                          the wall clock jumps, the monotonic one does not
//	examine ID probes=N over=D timeout=D [connect=ADDRESS] [exhaustive]  answer a question
//	show                             print all views
//	trace on|off                     print probes too
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("find scripts: %v, %d files", err, len(files))
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(t, string(raw))
			if os.Getenv("UPDATE_SCRIPTS") != "" {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := gocmp.Diff(string(raw), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
		})
	}
}

func runScript(t *testing.T, script string) string {
	w := newWorld()
	var out strings.Builder
	expecting := false
	for line := range strings.Lines(script) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case expecting:
			if line != "" {
				continue
			}
			expecting = false
			out.WriteString("\n")
		case line == "----":
			expecting = true
			out.WriteString("----\n" + w.take())
		case line == "" || strings.HasPrefix(line, "#"):
			out.WriteString(line + "\n")
		default:
			out.WriteString(line + "\n")
			if err := w.command(strings.Fields(line)); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
		}
	}
	return out.String()
}

// world is a shell around a Detector with a simulated network and clock.
type world struct {
	detector *Detector
	exams    map[string]*Examination
	// start is the beginning of time, now what has passed since on the
	// monotonic clock, wall how far the wall clock is ahead of that.
	start     time.Time
	now, wall time.Duration
	links     map[string]*link
	events    []event
	trace     bool
	out       strings.Builder
}

type link struct {
	rtt              time.Duration
	lost, unsendable bool
	// answers is how rarely a probe is answered all the same, or 0; probes counts.
	answers, probes int
}

type event struct {
	at time.Duration
	do func()
}

func newWorld() *world {
	return &world{
		detector: New(), exams: map[string]*Examination{},
		start: time.Unix(1_700_000_000, 0), links: map[string]*link{},
	}
}

// time is what the detector is told. Without a monotonic reading in these
// times, a jump of the wall clock is seen as a stall; the difference between the
// two clocks has its own test.
func (w *world) time() time.Time { return w.start.Add(w.now + w.wall) }

func (w *world) take() string {
	s := w.out.String()
	w.out.Reset()
	return s
}

func (w *world) printf(format string, args ...any) {
	fmt.Fprintf(&w.out, "%8.3f  %s\n", w.now.Seconds(), fmt.Sprintf(format, args...))
}

func (w *world) command(f []string) error {
	switch f[0] {
	case "watch":
		return w.watch(f[1:])
	case "link":
		return w.link(f[1], f[2:])
	case "loopback":
		return w.link("loopback", f[1:])
	case "tcp":
		return w.link("tcp "+f[1], f[2:])
	case "run":
		d, err := time.ParseDuration(f[1])
		w.run(w.now + d)
		return err
	case "freeze":
		d, err := time.ParseDuration(f[1])
		w.now += d
		w.tick()
		return err
	case "clock":
		d, err := time.ParseDuration(f[1])
		w.wall += d
		return err
	case "examine":
		return w.examine(f[1:])
	case "show":
		w.show()
		return nil
	case "trace":
		w.trace = f[1] == "on"
		return nil
	}
	return fmt.Errorf("unknown command %q", f[0])
}

func (w *world) watch(args []string) error {
	period := 500 * time.Millisecond
	var subjects []Subject
	for _, a := range args {
		if v, ok := strings.CutPrefix(a, "period="); ok {
			d, err := time.ParseDuration(v)
			if err != nil {
				return err
			}
			period = d
			continue
		}
		id, offset, _ := strings.Cut(a, "@")
		d, err := time.ParseDuration(cmp.Or(offset, "0s"))
		if err != nil {
			return err
		}
		subjects = append(subjects, subject(id, d))
	}
	w.apply(w.detector.Assign(w.time(), period, subjects))
	return nil
}

func subject(id string, offset time.Duration) Subject {
	return Subject{
		Key:       Key{ID: member.ID(id), Incarnation: 1},
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, PhaseOffset: offset,
	}
}

func (w *world) link(id string, state []string) error {
	l := &link{lost: state[0] == "lost", unsendable: state[0] == "unsendable"}
	for _, f := range state {
		name, value, _ := strings.Cut(f, "=")
		var err error
		switch name {
		case "rtt":
			l.rtt, err = time.ParseDuration(value)
		case "answers":
			l.answers, err = strconv.Atoi(value)
		}
		if err != nil {
			return err
		}
	}
	w.links[id] = l
	return nil
}

// fate is what becomes of the next probe, or connect, on a link.
func (w *world) fate(id string) link {
	l := w.links[id]
	if l == nil {
		return link{}
	}
	l.probes++
	if l.answers > 0 && l.probes%l.answers == 0 {
		return link{rtt: l.rtt}
	}
	return *l
}

func (w *world) examine(args []string) error {
	q := Question{Subject: subject(args[0], 0)}
	for _, a := range args[1:] {
		name, value, _ := strings.Cut(a, "=")
		var err error
		switch name {
		case "probes":
			q.Probes, err = strconv.Atoi(value)
		case "over":
			q.Over, err = time.ParseDuration(value)
		case "timeout":
			q.Timeout, err = time.ParseDuration(value)
		case "connect":
			var to netip.AddrPort
			to, err = netip.ParseAddrPort(value)
			q.Connect = append(q.Connect, to)
		case "exhaustive":
			q.Exhaustive = true
		}
		if err != nil {
			return err
		}
	}
	for _, v := range w.detector.Views(w.time()) {
		if v.Key == q.Subject.Key && v.Timeout > 0 {
			q.Timeout = v.Timeout
		}
	}
	e := Examine(w.time(), q)
	w.exams[args[0]] = e
	w.findings(args[0], e, e.Tick(w.time()))
	return nil
}

// run lets time pass until the given moment, one input after the other.
func (w *world) run(until time.Duration) {
	for {
		next := w.detector.Wake(w.time()).Sub(w.time()) + w.now
		for _, e := range w.exams {
			next = min(next, e.Wake().Sub(w.time())+w.now)
		}
		slices.SortStableFunc(w.events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
		if len(w.events) > 0 && w.events[0].at <= next {
			if w.events[0].at > until {
				break
			}
			e := w.events[0]
			w.events = w.events[1:]
			w.now = max(w.now, e.at)
			e.do()
			continue
		}
		if next > until {
			break
		}
		w.now = next
		w.tick()
	}
	w.now = until
}

func (w *world) tick() {
	w.apply(w.detector.Tick(w.time()))
	for id, e := range w.exams {
		w.findings(id, e, e.Tick(w.time()))
	}
}

func (w *world) apply(out Output) {
	for _, p := range out.Probes {
		w.send(p, func(o Outcome) { w.apply(w.detector.Outcome(w.time(), o)) })
	}
	for _, r := range out.Reports {
		w.printf("report %s lost=%d/10 %s", r.ID, r.LostOfTen, w.describe(r.Evidence))
	}
}

func (w *world) findings(id string, e *Examination, f Findings) {
	for _, p := range f.Probes {
		w.send(p, func(o Outcome) { w.findings(id, e, e.Outcome(w.time(), o)) })
	}
	if len(f.Dial.To) > 0 {
		w.dial(id, e, f.Dial)
	}
	for _, a := range f.Answers {
		w.printf("answer %s final=%v %s", id, a.Final, w.describe(a.Evidence))
	}
	if e.Done() {
		delete(w.exams, id)
	}
}

func (w *world) send(p Probe, done func(Outcome)) {
	id := string(p.Subject.ID)
	if p.Loopback {
		id = "loopback"
	}
	if w.trace {
		w.printf("probe %s timeout=%v", id, p.Timeout)
	}
	l, o, after := w.fate(id), Outcome{Probe: p.ID}, time.Duration(0)
	switch {
	case l.unsendable:
		o.Result, o.Trouble = NotSent, "no route to host"
	case l.lost || l.rtt > p.Timeout:
		o.Result, after = Lost, p.Timeout
	default:
		o.Result, o.RTT, after = Replied, l.rtt, l.rtt
	}
	w.events = append(w.events, event{at: w.now + after, do: func() { done(o) }})
}

func (w *world) dial(id string, e *Examination, d Dial) {
	if w.trace {
		w.printf("connect %v timeout=%v", d.To, d.Timeout)
	}
	l, c, after := w.fate("tcp "+id), ConnectAnswered, time.Duration(0)
	switch {
	case l.unsendable:
		c = ConnectNotSent
	case l.lost || l.rtt > d.Timeout:
		c, after = ConnectUnanswered, d.Timeout
	default:
		after = l.rtt
	}
	w.events = append(w.events, event{at: w.now + after, do: func() { w.findings(id, e, e.Connected(c)) }})
}

func (w *world) show() {
	for _, v := range w.detector.Views(w.time()) {
		w.printf("%s %s jitter=%v lost=%d/10 timeout=%v", v.ID, w.describe(v.Evidence), v.Jitter, v.LostOfTen, v.Timeout)
	}
	score, trouble := w.detector.Self(w.time())
	w.printf("self score=%d %s", score, trouble)
}

func (w *world) describe(e Evidence) string {
	s := fmt.Sprintf("%s sent=%d lost=%d", [...]string{"unknown", "up", "down", "cannot-judge"}[e.Sight], e.Sent, e.Lost)
	if e.RTT > 0 {
		s += fmt.Sprintf(" rtt=%v", e.RTT)
	}
	if !e.FirstLost.IsZero() {
		s += fmt.Sprintf(" first_lost=-%v", w.time().Sub(e.FirstLost))
	}
	if !e.LastReply.IsZero() {
		s += fmt.Sprintf(" last_reply=-%v", w.time().Sub(e.LastReply))
	}
	if e.Connect != ConnectNone {
		s += " connect=" + [...]string{"", "answered", "unanswered", "not-sent"}[e.Connect]
	}
	if e.Trouble != "" {
		s += fmt.Sprintf(" (%s)", e.Trouble)
	}
	return s
}
