package demo

import (
	"fmt"
	"slices"
	"time"

	"github.com/buddyring/buddyring/buddyctl/output"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// timeline retells an explanation in plain words. Times count from origin; they
// agree because all clocks are this machine's. Who was asked in one go is one
// line, and of the answers of an observer only the last of a round is told.
func timeline(e *coordinatorv1.Explanation, origin time.Time) []line {
	offset := e.GetStarted().AsTime().Sub(origin)
	moments := e.GetTimeline()
	var lines []line
	for i, m := range moments {
		at := offset + m.GetAt().AsDuration()
		switch m.GetKind() {
		case "asked", "nonce":
			if i > 0 && together(moments[i-1], m) {
				continue
			}
			lines = append(lines, line{at: at, text: "the coordinator asks " + list(asked(e, moments[i:]))})
		case "answer":
			if !superseded(m, moments[i+1:]) {
				lines = append(lines, line{at: at, text: answer(m, roleOf(m, moments)), ink: answerInk(m)})
			}
		default:
			if l, ok := moment(e, m); ok {
				l.at = at
				lines = append(lines, l)
			}
		}
	}
	return lines
}

// moment tells the kinds that stand for themselves.
func moment(e *coordinatorv1.Explanation, m *coordinatorv1.Moment) (line, bool) {
	subject := e.GetServerId()
	switch m.GetKind() {
	case "doubt":
		return line{text: fmt.Sprintf("%s%s pings %s and hears nothing", m.GetWho(), buddyOf(m), subject), ink: output.Yellow}, true
	case "cleared":
		if m.GetRole() != "buddy" {
			return line{text: subject + " is no longer suspect", ink: output.Green}, true
		}
		return line{text: fmt.Sprintf("%s hears %s again", m.GetWho(), subject), ink: output.Green}, true
	case "no_answer":
		return line{text: m.GetWho() + " does not answer the question"}, true
	case "nonce_echo":
		return line{text: subject + " itself answers over its stream: it is alive", ink: output.Green}, true
	case "stream_closed":
		return line{text: "the stream of the agent on " + subject + " is closed"}, true
	case "dial":
		return line{text: "the coordinator's own TCP connect: " + result(m)}, true
	case "suspect":
		return line{text: "SUSPECT: " + or(m.GetText(), "routers are told to prefer others"), ink: output.Yellow}, true
	case "verdict":
		return line{text: "VERDICT " + or(m.GetResult(), e.GetVerdict()) + ": " + or(m.GetText(), e.GetText()), ink: output.Bold}, true
	}
	return line{}, false
}

// asked are the observers asked together with the first of moments.
func asked(e *coordinatorv1.Explanation, moments []*coordinatorv1.Moment) []string {
	var who []string
	self := false
	for i, m := range moments {
		if i > 0 && !together(moments[i-1], m) {
			break
		}
		if m.GetKind() == "nonce" {
			self = true
		} else if !slices.Contains(who, m.GetWho()) {
			who = append(who, m.GetWho())
		}
	}
	if self {
		who = append(who, e.GetServerId()+" itself")
	}
	return who
}

// together reports whether two questions were asked in one go.
func together(a, b *coordinatorv1.Moment) bool {
	question := func(m *coordinatorv1.Moment) bool { return m.GetKind() == "asked" || m.GetKind() == "nonce" }
	return question(a) && question(b) && a.GetRound() == b.GetRound() &&
		b.GetAt().AsDuration()-a.GetAt().AsDuration() < 5*time.Millisecond
}

// superseded reports whether the same observer says the same once more later
// in the round.
func superseded(m *coordinatorv1.Moment, later []*coordinatorv1.Moment) bool {
	return slices.ContainsFunc(later, func(l *coordinatorv1.Moment) bool {
		return l.GetKind() == "answer" && l.GetRound() == m.GetRound() &&
			l.GetWho() == m.GetWho() && l.GetResult() == m.GetResult()
	})
}

// roleOf is the part that who answered was asked to play.
func roleOf(answer *coordinatorv1.Moment, moments []*coordinatorv1.Moment) string {
	for _, m := range moments {
		if m.GetKind() == "asked" && m.GetRound() == answer.GetRound() && m.GetWho() == answer.GetWho() {
			return m.GetRole()
		}
	}
	return answer.GetRole()
}

func answer(m *coordinatorv1.Moment, role string) string {
	who := m.GetWho()
	if role == "witness" {
		who += ", a witness,"
	}
	switch m.GetResult() {
	case "down":
		return fmt.Sprintf("%s confirms: %d of %s lost", who, m.GetLost(), count(int(m.GetSent()), "ping"))
	case "up":
		return who + " reaches it"
	}
	return who + " cannot tell"
}

func answerInk(m *coordinatorv1.Moment) output.Ink {
	switch m.GetResult() {
	case "down":
		return output.Red
	case "up":
		return output.Green
	}
	return output.Plain
}

// result is what came of a connect.
func result(m *coordinatorv1.Moment) string {
	switch m.GetResult() {
	case "up":
		return "answered"
	case "down":
		return "no answer"
	}
	return "it proves nothing"
}

func buddyOf(m *coordinatorv1.Moment) string {
	if m.GetRole() == "buddy" {
		return ", a buddy,"
	}
	return ""
}

func or(s, instead string) string {
	if s == "" {
		return instead
	}
	return s
}

// observers are the answers of a decision, as facts.
func observers(e *coordinatorv1.Explanation, origin time.Time) []Observer {
	offset := e.GetStarted().AsTime().Sub(origin)
	var all []Observer
	for i, m := range e.GetTimeline() {
		if m.GetKind() != "doubt" && (m.GetKind() != "answer" || superseded(m, e.GetTimeline()[i+1:])) {
			continue
		}
		result := m.GetResult()
		if m.GetKind() == "doubt" {
			result = "doubt"
		}
		all = append(all, Observer{
			Who: m.GetWho(), Role: roleOf(m, e.GetTimeline()), Result: result,
			Sent: m.GetSent(), Lost: m.GetLost(), AtMS: ms(offset + m.GetAt().AsDuration()),
		})
	}
	return all
}

// firstOf returns when a kind of moment was first, counted from origin.
func firstOf(e *coordinatorv1.Explanation, kind string, origin time.Time) (time.Duration, bool) {
	for _, m := range e.GetTimeline() {
		if m.GetKind() == kind {
			return e.GetStarted().AsTime().Sub(origin) + m.GetAt().AsDuration(), true
		}
	}
	return 0, false
}
