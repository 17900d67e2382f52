package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/buddyring/buddyring/buddyctl/output"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// entry is one line of a timeline.
type entry struct {
	at    time.Duration
	label string
	text  string
	ink   output.Ink
}

// timeline writes what was seen, asked and answered, and when the routers had
// applied the change, in milliseconds since the first doubt.
func (p *page) timeline(e *coordinatorv1.Explanation, routers []*coordinatorv1.RouterProgress) {
	entries := append(moments(e), applied(e, routers)...)
	if len(entries) == 0 {
		return
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return int(a.at - b.at) })
	p.b.WriteByte('\n')
	const indent = 24
	for _, l := range entries {
		lines := output.Wrap(output.Line(l.text), p.width-indent)
		fmt.Fprintf(&p.b, "%8s  ", fmt.Sprintf("%d ms", l.at.Milliseconds()))
		p.b.WriteString(p.Terminal.Paint(l.ink, fmt.Sprintf("%-13s", l.label)))
		p.b.WriteString(" " + lines[0] + "\n")
		for _, more := range lines[1:] {
			p.b.WriteString(strings.Repeat(" ", indent) + more + "\n")
		}
	}
}

// moments turns an explanation's timeline into lines; whom a round asked in
// one go is one line.
func moments(e *coordinatorv1.Explanation) []entry {
	var entries []entry
	several := rounds(e) > 1
	parts := map[string]string{}
	timeline := e.GetTimeline()
	for i := 0; i < len(timeline); i++ {
		m := timeline[i]
		l := entry{at: m.GetAt().AsDuration(), label: strings.ReplaceAll(m.GetKind(), "_", " "), ink: momentInk(m)}
		if m.GetKind() == "asked" {
			end := i + 1
			for end < len(timeline) && together(m, timeline[end]) {
				end++
			}
			l.text = asked(timeline[i:end], parts) + more(m)
			i = end - 1
		} else {
			l.text = sentence(e, m, parts)
		}
		switch {
		case m.GetKind() == "round":
			l.label = fmt.Sprintf("round %d", m.GetRound())
		case several && m.GetRound() != 0:
			l.text = fmt.Sprintf("[%d] %s", m.GetRound(), l.text)
		}
		entries = append(entries, l)
	}
	return entries
}

// asked names who was asked by the parts they play, which it notes in parts.
func asked(moments []*coordinatorv1.Moment, parts map[string]string) string {
	var order []string
	byPart := map[string][]string{}
	for _, m := range moments {
		part := strings.ReplaceAll(m.GetRole(), "_", " ")
		parts[m.GetWho()] = part
		if _, known := byPart[part]; !known {
			order = append(order, part)
		}
		byPart[part] = append(byPart[part], m.GetWho())
	}
	groups := make([]string, len(order))
	for i, part := range order {
		groups[i] = strings.TrimSpace(plural(part, len(byPart[part])) + " " + strings.Join(byPart[part], ", "))
	}
	return strings.Join(groups, "; ")
}

func plural(part string, n int) string {
	switch {
	case n == 1 || part == "":
		return part
	case part == "buddy":
		return "buddies"
	case part == "witness":
		return "witnesses"
	case part == "temporary":
		return part
	}
	return part + "s"
}

func together(a, b *coordinatorv1.Moment) bool {
	return a.GetKind() == b.GetKind() && a.GetRound() == b.GetRound() && a.GetText() == b.GetText() &&
		a.GetAt().AsDuration().Milliseconds() == b.GetAt().AsDuration().Milliseconds()
}

func rounds(e *coordinatorv1.Explanation) int {
	seen := map[uint64]bool{}
	for _, m := range e.GetTimeline() {
		if m.GetRound() != 0 {
			seen[m.GetRound()] = true
		}
	}
	return len(seen)
}

// sentence says in words what a moment is. parts are those of who was asked.
func sentence(e *coordinatorv1.Explanation, m *coordinatorv1.Moment, parts map[string]string) string {
	subject := e.GetServerId()
	observer := observer(m, parts)
	switch m.GetKind() {
	case "doubt":
		return observer + " misses " + subject + probes(m) + more(m)
	case "cleared":
		if m.GetRole() == "" {
			return or(m.GetText(), subject+" is well again")
		}
		return observer + " reaches " + subject + " again" + probes(m) + more(m)
	case "round":
		return or(m.GetText(), "about "+subject)
	case "answer":
		return observer + ": " + verdictOf(m) + probes(m) + more(m)
	case "no_answer":
		return observer + ": no answer in time" + more(m)
	case "nonce":
		return subject + " itself is asked over its stream" + more(m)
	case "nonce_echo":
		return subject + " answers over its stream: its host and agent are alive" + more(m)
	case "stream_closed":
		return "the stream of " + subject + "'s agent ended" + more(m)
	case "dial":
		return "the coordinator's TCP connect: " + verdictOf(m) + more(m)
	case "suspect":
		return or(m.GetText(), "routers are told to prefer others")
	case "verdict":
		if strings.Contains(e.GetText(), m.GetText()) {
			return or(m.GetResult(), e.GetVerdict())
		}
		return strings.Join(nonEmpty(m.GetResult(), m.GetText()), ": ")
	case "committed":
		return or(m.GetText(), "the change") + " is durable"
	case "published":
		return or(m.GetText(), "the change") + " goes out to routers and agents"
	case "acked":
		return observer + " has applied it" + more(m)
	}
	return strings.TrimPrefix(strings.Join(nonEmpty(observer, m.GetResult(), m.GetText()), ": ")+probes(m), ", ")
}

// observer is who observed, with the part it played.
func observer(m *coordinatorv1.Moment, parts map[string]string) string {
	part := or(strings.ReplaceAll(m.GetRole(), "_", " "), parts[m.GetWho()])
	if part == "" || part == "coordinator" {
		return or(m.GetWho(), part)
	}
	return m.GetWho() + " (" + part + ")"
}

func verdictOf(m *coordinatorv1.Moment) string {
	return strings.ReplaceAll(or(m.GetResult(), "unknown"), "_", " ")
}

// interim is the text of an answer before the end of the probes; it says it all.
const interim = "first probe lost"

func probes(m *coordinatorv1.Moment) string {
	var b strings.Builder
	if m.GetSent() > 0 && m.GetText() != interim {
		fmt.Fprintf(&b, ", %d of %d probes lost", m.GetLost(), m.GetSent())
	}
	if m.GetRtt() != nil {
		fmt.Fprintf(&b, ", reply after %s", output.RTT(m.GetRtt()))
	}
	if age := m.GetAge().AsDuration(); age > 0 {
		first := "sent"
		if m.GetLost() > 1 {
			first = "the first of them sent"
		}
		fmt.Fprintf(&b, ", %s %s before", first, output.Milliseconds(age.Round(time.Millisecond)))
	}
	return b.String()
}

func more(m *coordinatorv1.Moment) string {
	if m.GetText() == "" {
		return ""
	}
	return "; " + m.GetText()
}

func momentInk(m *coordinatorv1.Moment) output.Ink {
	switch m.GetKind() {
	case "doubt", "suspect", "no_answer", "stream_closed":
		return output.Yellow
	case "verdict":
		return output.Bold
	case "cleared", "nonce_echo":
		return output.Green
	case "answer", "dial":
		switch m.GetResult() {
		case "up":
			return output.Green
		case "down":
			return output.Red
		}
		return output.Yellow
	}
	return output.Dim
}

// applied adds the routers that confirmed the change to the coordinator, unless
// the timeline has them already.
func applied(e *coordinatorv1.Explanation, routers []*coordinatorv1.RouterProgress) []entry {
	known := map[string]bool{}
	for _, m := range e.GetTimeline() {
		if m.GetKind() == "acked" {
			known[strings.TrimPrefix(m.GetWho(), "router/")] = true
		}
	}
	var entries []entry
	for _, r := range routers {
		if r.GetAppliedAt() == nil || known[r.GetRouterId()] || e.GetRevision() == 0 {
			continue
		}
		entries = append(entries, entry{
			at:    r.GetAppliedAt().AsTime().Sub(e.GetStarted().AsTime()),
			label: "applied",
			text:  "router " + r.GetRouterId() + " has it and has told its clients",
			ink:   output.Dim,
		})
	}
	return entries
}

func or(s, instead string) string {
	if s == "" {
		return instead
	}
	return s
}

func nonEmpty(parts ...string) []string {
	return slices.DeleteFunc(parts, func(s string) bool { return s == "" })
}
