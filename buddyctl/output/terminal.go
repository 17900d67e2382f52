package output

import (
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// Terminal is what the output goes to.
type Terminal struct {
	// Width is the number of columns, or 0 when the output is not a terminal.
	Width int
	// Colour says whether colours may be used.
	Colour bool
}

// Detect asks what w is. Colours are for terminals only, unless NO_COLOR is
// set to anything or TERM is dumb.
func Detect(w io.Writer, getenv func(string) string) Terminal {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return Terminal{}
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 {
		width = 80
	}
	return Terminal{Width: width, Colour: getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"}
}

// Ink is a way to make text stand out.
type Ink string

// The inks, as SGR parameters.
const (
	Plain  Ink = ""
	Bold   Ink = "1"
	Dim    Ink = "2"
	Red    Ink = "31"
	Green  Ink = "32"
	Yellow Ink = "33"
)

// Paint returns s in an ink where colours may be used, and s otherwise.
func (t Terminal) Paint(ink Ink, s string) string {
	if !t.Colour || ink == Plain || s == "" {
		return s
	}
	return "\x1b[" + string(ink) + "m" + s + "\x1b[0m"
}

// Wrap breaks text at spaces into lines of at most width characters; a longer
// word is broken. It returns at least one line.
func Wrap(s string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(s) {
		for runes := []rune(word); len(runes) > width; runes = []rune(word) {
			if line != "" {
				lines = append(lines, line)
				line = ""
			}
			lines = append(lines, string(runes[:width]))
			word = string(runes[width:])
		}
		switch {
		case line == "":
			line = word
		case len([]rune(line))+1+len([]rune(word)) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return append(lines, line)
}
