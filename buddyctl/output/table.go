package output

import (
	"io"
	"strings"
	"text/tabwriter"
	"unicode/utf8"
)

// Grid is a table for people. Its zero value is an empty table.
type Grid struct {
	header []string
	rows   [][]string
}

// NewGrid returns a table with these column titles.
func NewGrid(header ...string) *Grid { return &Grid{header: header} }

// Add adds a row. Empty cells are written as "-"; line breaks and tabs inside
// a cell as spaces.
func (g *Grid) Add(cells ...string) { g.rows = append(g.rows, cells) }

// Len returns the number of rows.
func (g *Grid) Len() int { return len(g.rows) }

// Write writes the table with aligned columns. With width > 0, longer lines
// end in "…" at that many characters.
func (g *Grid) Write(w io.Writer, width int) error {
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{g.header}, g.rows...) {
		for i, cell := range row {
			if i > 0 {
				_, _ = io.WriteString(tw, "\t") // a strings.Builder does not fail
			}
			_, _ = io.WriteString(tw, clean(cell))
		}
		_, _ = io.WriteString(tw, "\n")
	}
	_ = tw.Flush()
	var out strings.Builder
	for line := range strings.Lines(b.String()) {
		out.WriteString(Truncate(strings.TrimRight(line, " \n"), width))
		out.WriteByte('\n')
	}
	return write(w, []byte(out.String()))
}

// Truncate cuts a line to width characters, the last of them "…". A width of 0
// or less cuts nothing.
func Truncate(s string, width int) string {
	if width <= 0 || utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
}

func clean(cell string) string {
	if cell == "" {
		return "-"
	}
	return Line(cell)
}

// Line returns text that came from elsewhere as one line that cannot steer a
// terminal: control characters are spaces.
func Line(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}
