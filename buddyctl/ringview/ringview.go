// Package ringview draws the ring of a pool: a picture where it fits into 80
// columns, a table where it does not.
package ringview

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/buddyring/buddyring/buddyctl/output"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// pictureWidth is the widest picture drawn.
const pictureWidth = 80

// Write draws a ring. Tables are cut to the terminal's width, if it has one.
func Write(w io.Writer, r *coordinatorv1.GetRingResponse, t output.Terminal) error {
	if _, err := fmt.Fprintf(w, "%s, revision %d, epoch %d\n\n",
		count(len(r.GetMembers())), r.GetRevision(), r.GetEpoch()); err != nil {
		return fmt.Errorf("write ring: %w", err)
	}
	lines := picture(r.GetMembers())
	if lines == nil {
		return table(r.GetMembers()).Write(w, t.Width)
	}
	lines = append(lines, notes(r.GetMembers())...)
	for _, l := range lines {
		if _, err := fmt.Fprintln(w, strings.TrimRight(l, " ")); err != nil {
			return fmt.Errorf("write ring: %w", err)
		}
	}
	return nil
}

func count(n int) string {
	if n == 1 {
		return "1 server"
	}
	return strconv.Itoa(n) + " servers"
}

// picture returns the lines of a picture, or nil when it would be too wide.
func picture(members []*coordinatorv1.RingMember) []string {
	switch len(members) {
	case 0:
		return []string{"The pool is empty."}
	case 1:
		return []string{"  " + cell(members[0]), "", "It is alone: nobody watches it, and it watches nobody."}
	case 2:
		return []string{"  " + cell(members[0]) + " ◀──▶ " + cell(members[1]), "", "They are each other's first and second buddy."}
	}
	top := (len(members) + 1) / 2
	upper, lower := make([]string, top), make([]string, top)
	for i := range top {
		upper[i] = cell(members[i])
		if j := len(members) - 1 - i; j >= top {
			lower[i] = cell(members[j])
		}
	}
	first, second := loop(upper, lower)
	if utf8.RuneCountInString(first) > pictureWidth || utf8.RuneCountInString(second) > pictureWidth {
		return nil
	}
	return []string{first, second, "", "An arrow leads to a server's first buddy. Neighbours watch each other."}
}

// loop joins the upper row, read to the right, and the lower row, read to the
// left, into a closed loop. With an odd number of servers the last place of the
// lower row is empty and the line runs through it.
func loop(upper, lower []string) (string, string) {
	var first, second strings.Builder
	first.WriteString("  ┌─▶ ")
	second.WriteString("  └── ")
	for i := range upper {
		above, below := utf8.RuneCountInString(upper[i]), utf8.RuneCountInString(lower[i])
		wide := max(above, below)
		first.WriteString(upper[i] + " " + dashes(wide-above))
		if lower[i] == "" {
			second.WriteString(dashes(wide + 2))
		} else {
			second.WriteString(lower[i] + " ◀" + dashes(wide-below))
		}
		switch {
		case i == len(upper)-1:
			first.WriteString("─┐")
			second.WriteString("┘")
		case lower[i+1] == "":
			first.WriteString("─▶ ")
			second.WriteString("──")
		default:
			first.WriteString("─▶ ")
			second.WriteString("─ ")
		}
	}
	return first.String(), second.String()
}

func dashes(n int) string { return strings.Repeat("─", n) }

// cell is a server and what is special about it.
func cell(m *coordinatorv1.RingMember) string {
	var marks []string
	if m.GetPhase() != coordinatorv1.Phase_PHASE_ACTIVE {
		marks = append(marks, output.Name(m.GetPhase()))
	}
	if m.GetSuspect() {
		marks = append(marks, "suspect")
	}
	if len(marks) == 0 {
		return m.GetServerId()
	}
	return m.GetServerId() + "(" + strings.Join(marks, ",") + ")"
}

func notes(members []*coordinatorv1.RingMember) []string {
	var lines []string
	for _, m := range members {
		if t := m.GetTemporaryWatchers(); len(t) > 0 {
			lines = append(lines, m.GetServerId()+" is watched by "+strings.Join(t, ", ")+" too, for the time being.")
		}
	}
	return lines
}

func table(members []*coordinatorv1.RingMember) *output.Grid {
	g := output.NewGrid("PLACE", "SERVER", "FIRST_BUDDY", "SECOND_BUDDY", "STATE", "ZONE/RACK", "ALSO_WATCHED_BY")
	for i, m := range members {
		state := output.Name(m.GetPhase())
		if m.GetSuspect() {
			state += "+suspect"
		}
		g.Add(strconv.Itoa(i+1), m.GetServerId(), m.GetFirstBuddy(), m.GetSecondBuddy(), state,
			strings.TrimSuffix(m.GetZone()+"/"+m.GetRack(), "/"), strings.Join(m.GetTemporaryWatchers(), ","))
	}
	return g
}
