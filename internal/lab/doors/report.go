// Package doors makes experiments with a pool of real servers that clients use by
// every door at the same time: the Go library, grpc-go's own xDS client, HAProxy
// over DNS, and plain Pick. While they ask all the time, servers are restarted,
// and servers, routers and the coordinator are killed; the requests that fail are
// counted.
//
// It judges nothing but that an experiment took place as it was meant to: its
// figures are compared with their aims by people, and by a test.
package doors

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// The doors, as reports call them.
const (
	GoGRPC  = "Go library, gRPC"
	GoHTTP  = "Go library, HTTP"
	XDS     = "grpc-go, xDS"
	HAProxy = "HAProxy, DNS"
	Pick    = "Pick"
)

// Report is what the experiments have shown.
type Report struct {
	Date    string `json:"date"`
	Machine string `json:"machine"`
	Servers int    `json:"servers"`
	Routers int    `json:"routers"`
	// DNS says whether the routers answered DNS.
	DNS bool `json:"dns"`
	// Callers is how many ask by each door.
	Callers     int          `json:"callers"`
	Experiments []Experiment `json:"experiments"`
}

// Experiment is one kind of trouble under load.
type Experiment struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
	// Crash says that a server has crashed: what was sent there may fail until
	// Suspect, counted from the crash, when the coordinator marked it.
	Crash   bool          `json:"crash"`
	Suspect time.Duration `json:"suspect_ns,omitempty"`
	Doors   []Outcome     `json:"doors"`
}

// Outcome is what an experiment has cost those who used one door.
type Outcome struct {
	Door   string `json:"door"`
	Asked  int64  `json:"asked"`
	Failed int    `json:"failed"`
	// Last is when the last request that failed had chosen its server, as far as
	// the client knows, from the beginning of the experiment on.
	Last time.Duration `json:"last_ns,omitempty"`
	// Errors are the first few.
	Errors []string `json:"errors,omitempty"`
}

// text says it in a few words.
func (o Outcome) text(crash bool) string {
	text := fmt.Sprintf("%d of %d", o.Failed, o.Asked)
	if crash && o.Failed > 0 {
		text += fmt.Sprintf(", the last chosen after %d ms", o.Last.Milliseconds())
	}
	return text
}

// Write writes the report for people, as Markdown.
func (r *Report) Write(w io.Writer) error {
	var b strings.Builder
	dns := "with"
	if !r.DNS {
		dns = "without"
	}
	fmt.Fprintf(&b, "Requests that failed. Pool of %d, %d routers %s DNS, %d callers by each door. %s, %s.\n\n",
		r.Servers, r.Routers, dns, r.Callers, r.Date, r.Machine)
	t := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	line := func(cells []string) {
		_, _ = fmt.Fprintf(t, "| %s\t|\n", strings.Join(cells, "\t| ")) // a Builder takes everything
	}
	for i, e := range r.Experiments {
		if i == 0 {
			head := []string{"experiment"}
			for _, o := range e.Doors {
				head = append(head, o.Door)
			}
			line(head)
			_, _ = fmt.Fprintf(t, "|%s\n", strings.Repeat(" ---\t|", len(head)))
		}
		name := fmt.Sprintf("%s (%.1f s)", e.Name, e.Seconds)
		if e.Crash {
			name += fmt.Sprintf(", suspect after %d ms", e.Suspect.Milliseconds())
		}
		cells := []string{name}
		for _, o := range e.Doors {
			cells = append(cells, o.text(e.Crash))
		}
		line(cells)
	}
	_ = t.Flush()
	for _, e := range r.Experiments {
		for _, o := range e.Doors {
			for _, text := range o.Errors {
				fmt.Fprintf(&b, "\n%s, %s: %s", e.Name, o.Door, text)
			}
		}
	}
	b.WriteString("\n")
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
