package demo

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/buddyring/buddyring/buddyctl/output"
	"github.com/buddyring/buddyring/buddyctl/ringview"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// pageWidth is the widest line, whatever the terminal.
const pageWidth = 80

// timeWidth is the column of times.
const timeWidth = 9

// page is what the run tells people, line by line. It is for one goroutine. A
// page that cannot be written is not told any further; the run goes on.
type page struct {
	w        io.Writer
	terminal output.Terminal
}

// line is a line with a time in front.
type line struct {
	at   time.Duration
	text string
	ink  output.Ink
}

func (p *page) print(ink output.Ink, indent int, s string) {
	for _, l := range output.Wrap(output.Line(s), pageWidth-indent) {
		p.put(strings.Repeat(" ", indent) + p.terminal.Paint(ink, l))
	}
}

func (p *page) put(s string) { _, _ = fmt.Fprintln(p.w, s) }

func (p *page) blank() { p.put("") }

// title heads the page.
func (p *page) title(s string) { p.print(output.Bold, 0, s) }

// chapter begins a part of the story.
func (p *page) chapter(n int, s string) {
	p.blank()
	p.print(output.Bold, 0, fmt.Sprintf("%d. %s", n, s))
	p.blank()
}

// text is a paragraph.
func (p *page) text(s string) { p.print(output.Plain, 2, s) }

// aside is a paragraph that can be skipped.
func (p *page) aside(s string) { p.print(output.Dim, 2, s) }

// since is a line with the seconds since the start.
func (p *page) since(start time.Duration, who, s string) {
	p.timed(fmt.Sprintf("%.1f s", start.Seconds()), line{text: fmt.Sprintf("%-12s %s", who, s)})
}

// lines are what happened, with milliseconds since the chapter's first event.
func (p *page) lines(lines []line) {
	for _, l := range lines {
		p.timed(fmt.Sprintf("%+d ms", l.at.Round(time.Millisecond).Milliseconds()), l)
	}
}

func (p *page) timed(at string, l line) {
	const indent = timeWidth + 2
	for i, s := range wrapKeeping(output.Line(l.text), pageWidth-indent) {
		if i > 0 {
			at = ""
		}
		p.put(fmt.Sprintf("%*s  ", timeWidth, at) + p.terminal.Paint(l.ink, s))
	}
}

// wrapKeeping is output.Wrap for lines whose own spacing matters if they fit.
func wrapKeeping(s string, width int) []string {
	if utf8.RuneCountInString(s) <= width {
		return []string{s}
	}
	return output.Wrap(s, width)
}

// ring draws the ring, without what ringview says around it.
func (p *page) ring(r *coordinatorv1.GetRingResponse) {
	var b strings.Builder
	_ = ringview.Write(&b, r, output.Terminal{Width: pageWidth - 2}) // a strings.Builder does not fail
	paragraphs := strings.Split(b.String(), "\n\n")
	for l := range strings.Lines(paragraphs[min(1, len(paragraphs)-1)]) {
		p.put("  " + strings.TrimRight(l, " \n"))
	}
}

// rows are the rows of the server table that have changed.
func (p *page) rows(rows []Row) {
	cells := [][3]string{{"rows changed", "first buddy", "second buddy"}}
	for _, r := range rows {
		cells = append(cells, [3]string{
			r.Server,
			column(r, func(b *Buddies) string { return b.First }),
			column(r, func(b *Buddies) string { return b.Second }),
		})
	}
	var wide [2]int
	for _, c := range cells {
		for i := range wide {
			wide[i] = max(wide[i], utf8.RuneCountInString(c[i]))
		}
	}
	for i, c := range cells {
		ink := output.Plain
		if i == 0 {
			ink = output.Dim
		}
		p.put("    " + p.terminal.Paint(ink, pad(c[0], wide[0])+"   "+pad(c[1], wide[1])+"   "+c[2]))
	}
}

func pad(s string, wide int) string {
	return s + strings.Repeat(" ", wide-utf8.RuneCountInString(s))
}

// column is one column of a row: "a → b", or "a" where it stayed.
func column(r Row, of func(*Buddies) string) string {
	switch {
	case r.Before == nil && r.After == nil:
		return ""
	case r.Before == nil:
		return "new: " + orNone(of(r.After))
	case r.After == nil:
		return "gone"
	case of(r.Before) == of(r.After):
		return orNone(of(r.After))
	}
	return orNone(of(r.Before)) + " → " + orNone(of(r.After))
}

func orNone(id string) string {
	if id == "" {
		return "none"
	}
	return id
}

// tally is what the client has met.
func (p *page) tally(c ClientFacts) {
	const layout = "    %-40s %9s %8s"
	p.put(p.terminal.Paint(output.Dim, fmt.Sprintf(layout, "phase", "requests", "failed")))
	row := func(name string, requests, failed int) {
		p.put(fmt.Sprintf(layout, name, strconv.Itoa(requests), strconv.Itoa(failed)))
	}
	for _, phase := range c.Phases {
		row(phase.Name, phase.Requests, phase.Failed)
	}
	row("total", c.Requests, c.Failed)
	p.blank()
	p.put(fmt.Sprintf("    %-40s %9d", "sent to a server after its removal", c.SentAfterRemoval))
}

// commands are lines to copy.
func (p *page) commands(lines ...string) {
	for _, l := range lines {
		p.put("    " + p.terminal.Paint(output.Bold, l))
	}
}

// count is a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// list joins words as a sentence does.
func list(words []string) string {
	switch n := len(words); n {
	case 0:
		return "nobody"
	case 1:
		return words[0]
	default:
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
}
