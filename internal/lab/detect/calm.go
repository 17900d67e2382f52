package detect

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// CalmReport is what faults have done that must not remove anybody.
type CalmReport struct {
	Setting
	Faults []FaultReport `json:"faults"`
}

// FaultReport is what one fault has done. Times are in seconds.
type FaultReport struct {
	Fault string `json:"fault"`
	Text  string `json:"text"`
	// Victims were hit at once, Times often, for Lasted at most.
	Victims int     `json:"victims"`
	Times   int     `json:"times"`
	Lasted  float64 `json:"lasted_s"`
	// Removed are servers with the reason of their removal.
	Removed []string `json:"removed"`
	// Suspects is how many servers were marked, LongestSuspect how long one of
	// them was.
	Suspects       int     `json:"suspects"`
	LongestSuspect float64 `json:"longest_suspect_s"`
	// Normal is how long after its end all was as before, at most.
	Normal float64 `json:"normal_s"`
	// FewestNamed is how many servers a router named at least, Unanswered how
	// often one did not answer.
	FewestNamed int `json:"fewest_named"`
	Unanswered  int `json:"unanswered"`
	// Alarms are those that it raised.
	Alarms []AlarmCount `json:"alarms"`
	Strain Strain       `json:"strain"`
}

// AlarmCount is how many alarms of a name there were at once, at most.
type AlarmCount struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
}

// Write writes the report for people, as Markdown.
func (r CalmReport) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", r.text("Faults that must not remove anybody."))
	rows := [][]string{{
		"fault", "servers", "times", "lasted", "removed", "ever suspect", "longest", "normal after",
		"a router named", "alarms", "busy", "timers late",
	}}
	for _, f := range r.Faults {
		var alarms []string
		for _, a := range f.Alarms {
			alarms = append(alarms, fmt.Sprintf("%s %d", a.Name, a.Count))
		}
		named := fmt.Sprintf("≥ %d of %d", f.FewestNamed, r.Servers)
		if f.Unanswered > 0 {
			named += fmt.Sprintf(", %d unanswered", f.Unanswered)
		}
		rows = append(rows, []string{
			f.Text, strconv.Itoa(f.Victims), strconv.Itoa(f.Times), fmt.Sprintf("%.1f s", f.Lasted), strconv.Itoa(len(f.Removed)),
			strconv.Itoa(f.Suspects), fmt.Sprintf("%.1f s", f.LongestSuspect), fmt.Sprintf("%.1f s", f.Normal),
			named, strings.Join(alarms, ", "), fmt.Sprintf("%.0f %%", f.Strain.Busy), ms(f.Strain.Late.Max),
		})
	}
	b.WriteString(table(rows))
	for _, f := range r.Faults {
		for _, text := range f.Removed {
			fmt.Fprintf(&b, "\nRemoved during %q: %s\n", f.Fault, text)
		}
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
