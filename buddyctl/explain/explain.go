// Package explain writes ExplainServer's answer so that a tired person
// understands it: first the answer in a sentence, then what happened in
// milliseconds, then what changed. It adds no judgement of its own.
package explain

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buddyring/buddyring/buddyctl/output"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// maxWidth keeps lines readable on wide terminals.
const maxWidth = 80

// maxEvents is how many of the newest events follow the decisions.
const maxEvents = 5

// View says how to write.
type View struct {
	// Terminal is what it is written to. Without a width, paragraphs are 80
	// characters wide.
	Terminal output.Terminal
	// Now is what ages are relative to, in the zone that times are shown in.
	Now time.Time
	// All shows every decision in full, not only the newest.
	All bool
}

// Write writes what is known of a server. Lines are at most 80 characters, but
// for those of events and earlier decisions where no terminal would break them.
func Write(w io.Writer, id string, r *coordinatorv1.ExplainServerResponse, v View) error {
	p := &page{View: v, width: maxWidth}
	if v.Terminal.Width > 0 {
		p.width = max(40, min(maxWidth, v.Terminal.Width))
	}
	p.answer(id, r)
	decisions := r.GetDecisions()
	full := min(1, len(decisions))
	if v.All {
		full = len(decisions)
	}
	for _, d := range decisions[:full] {
		p.decision(d)
	}
	p.earlier(id, decisions[full:])
	p.events(r.GetEvents())
	if _, err := io.WriteString(w, p.b.String()); err != nil {
		return fmt.Errorf("write explanation: %w", err)
	}
	return nil
}

// page collects lines.
type page struct {
	View
	width   int
	summary string
	b       strings.Builder
}

func (p *page) line(ink output.Ink, s string) {
	p.b.WriteString(p.Terminal.Paint(ink, output.Truncate(s, p.width)))
	p.b.WriteByte('\n')
}

// row writes a line that is cut only where a terminal would break it.
func (p *page) row(s string) {
	if p.Terminal.Width == 0 {
		p.b.WriteString(s + "\n")
		return
	}
	p.line(output.Plain, s)
}

// text writes a paragraph; its lines after the first are indented.
func (p *page) text(ink output.Ink, s string, indent int) {
	for i, l := range output.Wrap(output.Line(s), p.width-indent) {
		if i > 0 {
			l = strings.Repeat(" ", indent) + l
		}
		p.line(ink, l)
	}
}

func (p *page) heading(s string) {
	p.b.WriteByte('\n')
	p.line(output.Bold, s)
}

func (p *page) answer(id string, r *coordinatorv1.ExplainServerResponse) {
	p.summary = output.Line(r.GetSummary())
	p.text(output.Bold, or(p.summary, "Nothing is said about "+id+"."), 0)
	if s := r.GetServer(); s != nil {
		p.text(output.Dim, p.standing(s), 0)
	} else if hold := r.GetDeparture().GetHoldDown().AsDuration(); hold > 0 {
		p.text(output.Dim, fmt.Sprintf("When it comes back after a reboot, it is held for %s (flap score %.1f).",
			output.Age(hold), r.GetDeparture().GetFlapScore()), 0)
	}
	if len(r.GetDecisions()) == 0 {
		p.text(output.Plain, "No decision about it is on record.", 0)
	}
}

// standing is what the summary leaves out of a member's row.
func (p *page) standing(s *coordinatorv1.Server) string {
	phase := fmt.Sprintf("%s for %s", output.Name(s.GetPhase()), output.Since(p.Now, s.GetPhaseSince()))
	if s.GetHeldUntil() != nil {
		phase += ", " + output.Until(p.Now, s.GetHeldUntil()) + " to go"
	}
	return fmt.Sprintf("%s · incarnation %d", phase, s.GetIncarnation())
}

func (p *page) decision(d *coordinatorv1.Decision) {
	e := d.GetExplanation()
	p.b.WriteByte('\n')
	head := []string{strings.ToUpper(strings.ReplaceAll(e.GetVerdict(), "_", " "))}
	if e.GetRevision() != 0 {
		head = append(head, fmt.Sprintf("revision %d", e.GetRevision()))
	}
	head = append(head, p.clock(decided(e).AsTime())+", "+output.Since(p.Now, decided(e))+" ago",
		fmt.Sprintf("incarnation %d", e.GetIncarnation()))
	p.text(inkOf(e), strings.Join(head, " · "), 2)
	if text := output.Line(e.GetText()); !strings.Contains(p.summary, text) {
		p.text(output.Plain, text, 0)
	}
	if e.GetRule() != "" {
		p.text(output.Plain, "Rule: "+e.GetRule(), 6)
	}
	if e.GetSafetyBefore() != nil {
		p.text(output.Plain, around(e.GetSafetyBefore(), e.GetSafetyAfter()), 7)
	}
	p.timeline(e, d.GetRouters())
	p.rows(e.GetRows())
	p.missing(e, d.GetRouters())
}

func inkOf(e *coordinatorv1.Explanation) output.Ink {
	if e.GetRevision() != 0 {
		return output.Red
	}
	return output.Green
}

// clock is the time of day, with the date when it is another day than now.
func (p *page) clock(t time.Time) string {
	t = t.In(p.Now.Location())
	if t.Format(time.DateOnly) == p.Now.Format(time.DateOnly) {
		return t.Format("15:04:05.000 MST")
	}
	return t.Format("2006-01-02 15:04:05.000 MST")
}

func (p *page) rows(rows []*coordinatorv1.RowChange) {
	if len(rows) == 0 {
		return
	}
	p.heading("Rows of the server table, before → after")
	cells := [][3]string{{"server", "first_buddy", "second_buddy"}}
	for _, r := range rows {
		cells = append(cells, [3]string{
			r.GetServerId(),
			change(r, (*coordinatorv1.Buddies).GetFirstBuddy),
			change(r, (*coordinatorv1.Buddies).GetSecondBuddy),
		})
	}
	var wide [2]int
	for _, c := range cells {
		for i := range wide {
			wide[i] = max(wide[i], len([]rune(c[i])))
		}
	}
	for _, c := range cells {
		p.line(output.Plain, fmt.Sprintf("  %-*s  %-*s  %s", wide[0], c[0], wide[1], c[1], c[2]))
	}
}

// change is one column of a row: "a → b", or "a" when it stayed.
func change(r *coordinatorv1.RowChange, column func(*coordinatorv1.Buddies) string) string {
	before, after := "(new)", "(gone)"
	if r.GetBefore() != nil {
		before = orNone(column(r.GetBefore()))
	}
	if r.GetAfter() != nil {
		after = orNone(column(r.GetAfter()))
	}
	if before == after {
		return before
	}
	return before + " → " + after
}

func orNone(id string) string {
	if id == "" {
		return "(none)"
	}
	return id
}

// missing names the routers that have not confirmed a change.
func (p *page) missing(e *coordinatorv1.Explanation, routers []*coordinatorv1.RouterProgress) {
	if e.GetRevision() == 0 {
		return
	}
	var ids []string
	for _, r := range routers {
		if r.GetAppliedAt() == nil {
			ids = append(ids, r.GetRouterId())
		}
	}
	if len(ids) > 0 {
		p.b.WriteByte('\n')
		p.text(output.Yellow, "Not confirmed to this coordinator by: "+strings.Join(ids, ", "), 2)
	}
}

func (p *page) earlier(id string, decisions []*coordinatorv1.Decision) {
	if len(decisions) == 0 {
		return
	}
	p.heading(fmt.Sprintf("Earlier decisions (in full: buddyctl explain %s --all)", id))
	for _, d := range decisions {
		e := d.GetExplanation()
		p.row(output.Line(fmt.Sprintf("  %4s ago  %-12s %s",
			output.Since(p.Now, decided(e)), e.GetVerdict(), e.GetText())))
	}
}

func (p *page) events(events []*coordinatorv1.Event) {
	if len(events) == 0 {
		return
	}
	p.heading("Newest events")
	newest := slices.Clone(events[:min(maxEvents, len(events))])
	slices.Reverse(newest)
	for _, e := range newest {
		p.row(output.Line(fmt.Sprintf("  %4s ago  revision %-5d %-12s %s",
			output.Since(p.Now, e.GetAt()), e.GetRevision(), e.GetKind(), e.GetText())))
	}
}

// decided is when a decision was made, or at least when its incident began.
func decided(e *coordinatorv1.Explanation) *timestamppb.Timestamp {
	if at := e.GetDecided(); at != nil {
		return at
	}
	return e.GetStarted()
}
