package command

import (
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/buddyring/buddyring/buddyctl/output"
)

// show writes an answer: the message itself as JSON or YAML, else what table
// writes.
func (a *app) show(m proto.Message, table func(io.Writer) error) error {
	switch a.format {
	case output.JSON:
		return output.WriteJSON(a.Stdout, m)
	case output.YAML:
		return output.WriteYAML(a.Stdout, m)
	case output.Table:
	}
	return table(a.Stdout)
}

// showGrid is show with a table that may be empty.
func (a *app) showGrid(m proto.Message, g *output.Grid, empty string) error {
	return a.show(m, func(w io.Writer) error {
		if g.Len() == 0 {
			return say(w, "%s", empty)
		}
		return g.Write(w, a.Terminal.Width)
	})
}

// say writes one line.
func say(w io.Writer, format string, args ...any) error {
	if _, err := fmt.Fprintln(w, output.Line(fmt.Sprintf(format, args...))); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
