package docs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The Go of clients.md is that of the examples, which are run as tests.
func TestGoOfClientsIsAnExample(t *testing.T) {
	t.Parallel()
	examples, err := os.ReadFile(filepath.Join(root, "client/example_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, d := range documents(t) {
		if d.path != "docs/clients.md" {
			continue
		}
		for _, b := range d.blocks() {
			if b.info != "go" {
				continue
			}
			n++
			var indented strings.Builder
			for line := range strings.Lines(b.text) {
				if line != "\n" {
					indented.WriteString("\t")
				}
				indented.WriteString(line)
			}
			if !strings.Contains(string(examples), indented.String()) {
				t.Errorf("not in client/example_test.go:\n%s", b.text)
			}
		}
	}
	if n == 0 {
		t.Error("there is no Go in docs/clients.md")
	}
}
