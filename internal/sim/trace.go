package sim

import (
	"bufio"
	"fmt"
	"io"
	"time"

	"github.com/buddyring/buddyring/agent/detector"
	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// trace follows a run: always as a hash of everything that the coordinator
// hears and does, and as text where there is a Log.
type trace struct {
	hash uint64
	log  *Log
}

// Log keeps what happened around the first failure of a run, or the end of a run
// without one.
type Log struct {
	lines []string
	// oldest is the index of the oldest line once the log is full.
	oldest   int
	failedAt time.Duration
	faults   []done
}

// done is a fault that was done, or that is over.
type done struct {
	at    time.Duration
	fault *Fault
	host  *host
	over  bool
}

// The log keeps logLines lines, and those until logAfter after a failure.
const (
	logLines = 20_000
	logAfter = 3 * time.Second
)

// Write writes the lines.
func (l *Log) Write(w io.Writer) error {
	b := bufio.NewWriter(w)
	for i := range l.lines {
		// The error stays with b until Flush.
		_, _ = b.WriteString(l.lines[(l.oldest+i)%len(l.lines)] + "\n")
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write trace: %w", err)
	}
	return nil
}

func (t *trace) line(s *Sim, format string, args ...any) {
	l := t.log
	if l == nil || l.failedAt > 0 && s.now > l.failedAt+logAfter {
		return
	}
	text := fmt.Sprintf("%10.4f  ", (s.now-s.options.Settle).Seconds()) + fmt.Sprintf(format, args...)
	if len(l.lines) < logLines {
		l.lines = append(l.lines, text)
		return
	}
	l.lines[l.oldest] = text
	l.oldest = (l.oldest + 1) % logLines
}

// failed notes that a healthy server has been removed.
func (t *trace) failed(s *Sim) {
	if t.log != nil && t.log.failedAt == 0 {
		t.log.failedAt = s.now
		t.line(s, "this is wrong")
	}
}

func (t *trace) fault(s *Sim, f *Fault, h *host, suffix string) {
	t.mix(uint64(s.now), uint64(f.Kind), uint64(h.index), uint64(len(suffix)))
	if t.log != nil {
		t.log.faults = append(t.log.faults, done{s.now - s.options.Settle, f, h, suffix != ""})
	}
	t.line(s, "FAULT %s: %s %s", h.id, f, suffix)
}

// report is a detector's change of mind.
func (t *trace) report(s *Sim, h *host, r detector.Report) {
	t.line(s, "%s sees %s %s, lost %d of %d, %d of ten; %s", h.id, r.ID, verdict.Sight(r.Evidence.Sight), r.Evidence.Lost, r.Evidence.Sent, r.LostOfTen, r.Evidence.Trouble)
}

// mix takes numbers into the hash (FNV-1a, by words).
func (t *trace) mix(words ...uint64) {
	if t.hash == 0 {
		t.hash = 14695981039346656037
	}
	for _, w := range words {
		t.hash = (t.hash ^ w) * 1099511628211
	}
}

func (t *trace) text(s string) {
	for i := range len(s) {
		t.mix(uint64(s[i]))
	}
}

// inputs is what the coordinator hears.
func (t *trace) inputs(s *Sim, inputs []pool.Input) {
	t.mix(uint64(s.now))
	for _, in := range inputs {
		switch in := in.(type) {
		case pool.Hello:
			t.mix(1, uint64(in.Session))
			t.line(s, "hello %s, incarnation %d", in.ID, in.Incarnation)
		case pool.Closed:
			t.mix(2, uint64(in.Session))
			t.line(s, "the stream of %s has ended, by its kernel %v", s.speaker(in.Session), in.ByPeer)
		case pool.Report:
			t.mix(3, uint64(in.Session), uint64(in.Evidence.Sight), uint64(in.Evidence.FirstLostAge))
			t.text(string(in.Subject))
		case pool.Digest:
			t.mix(4, uint64(in.Session), uint64(len(in.Subjects)), uint64(in.SelfScore))
		case pool.Answer:
			t.mix(5, uint64(in.Session), in.Round, uint64(in.Evidence.Sight))
			t.line(s, "%s answers about %s in round %d: %s, lost %d of %d, final %v, self %d; %s", s.speaker(in.Session), in.Subject, in.Round,
				in.Evidence.Sight, in.Evidence.Lost, in.Evidence.Sent, in.Final, in.SelfScore, in.Evidence.Trouble)
		case pool.Echo:
			t.mix(6, uint64(in.Session), in.Nonce)
			t.line(s, "%s echoes", s.speaker(in.Session))
		case pool.Dialed:
			t.mix(7, in.Round)
			t.line(s, "the coordinator's connect in round %d: answered %v", in.Round, in.Answered)
		case pool.Rejected:
			t.mix(8)
			t.line(s, "the commit was rejected")
		case pool.Tick, pool.Committed, pool.AssignmentAck, pool.Input:
		}
	}
}

// speaker is whose session it is.
func (s *Sim) speaker(id pool.SessionID) member.ID {
	if st := s.coordinator.streams[id]; st != nil {
		return st.host.id
	}
	return "somebody"
}

// effect is what the coordinator does.
func (t *trace) effect(s *Sim, effect pool.Effect) {
	switch e := effect.(type) {
	case pool.Publish:
		t.mix(20, uint64(e.Change.Revision()), uint64(len(e.Change.Put)))
		for _, ev := range e.Change.Events {
			t.text(string(ev.Kind))
			t.text(string(ev.ID))
			t.line(s, "r%d %s %s: %s", ev.Revision, ev.Kind, ev.ID, ev.Text)
			t.timeline(s, ev)
		}
	case pool.PublishMark:
		t.mix(21, e.Mark.Seq)
		t.text(string(e.Mark.ID))
		t.line(s, "mark %s: suspect %v, service down %v", e.Mark.ID, e.Mark.Suspect, e.Mark.ServiceDown)
	case pool.Ask:
		t.mix(22, uint64(e.Session), e.Round)
		t.line(s, "%s is asked about %s in round %d: %d probes over %v", s.speaker(e.Session), e.Subject.ID, e.Round, e.Probes, e.Over)
	case pool.Challenge:
		t.mix(23, uint64(e.Session), e.Nonce)
		t.line(s, "%s is challenged", s.speaker(e.Session))
	case pool.Welcome:
		t.mix(24, uint64(e.Session), uint64(e.Incarnation))
		t.line(s, "welcome %s, resumed %v", s.speaker(e.Session), e.Resumed)
	case pool.Refuse:
		t.mix(25, uint64(e.Session))
		t.line(s, "refuse %s: %v", s.speaker(e.Session), e.Err)
	case pool.Raise:
		t.mix(26)
		t.line(s, "alarm %s %s: %s", e.Alarm.Name, e.Alarm.Subject, e.Alarm.Text)
	case pool.Clear:
		t.mix(27)
		t.line(s, "alarm over %s %s", e.Key.Name, e.Key.Subject)
	case pool.Assign:
		t.mix(28, uint64(e.Session), e.Assignment.Seq)
	}
}

// timeline tells how a removal came about.
func (t *trace) timeline(s *Sim, e member.Event) {
	if t.log == nil || e.Kind != member.EventRemoved || e.Explanation == nil {
		return
	}
	for _, m := range e.Explanation.Timeline {
		t.line(s, "    %+.4f %s %s %s %s %d/%d lost, round %d %s", m.At.Seconds(), m.Kind, m.Who, m.Role, m.Result, m.Lost, m.Sent, m.Round, m.Text)
	}
}
