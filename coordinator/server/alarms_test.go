package server_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/buddyring/buddyring/coordinator/server"
)

// Every alarm that the coordinator or a machine can raise is in the list, and
// every one in the list has its entry in the runbook.
func TestAlarmsAreInTheRunbook(t *testing.T) {
	t.Parallel()
	names := server.AlarmNames()
	for _, dir := range []string{".", "../pool"} {
		for _, name := range alarmConstants(t, dir) {
			if !slices.Contains(names, name) {
				t.Errorf("%s of %s is not in AlarmNames", name, dir)
			}
		}
	}
	text, err := os.ReadFile("../../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	headings := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			headings[strings.Trim(strings.TrimSpace(strings.TrimLeft(line, "#")), "`")] = true
		}
	}
	for _, name := range names {
		if !headings[name] {
			t.Errorf("docs/runbook.md has no heading %s", name)
		}
	}
}

// alarmConstants returns the values of the constants whose names begin with
// "alarm".
func alarmConstants(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || !strings.HasPrefix(spec.Names[0].Name, "alarm") || len(spec.Values) == 0 {
				return true
			}
			if lit, ok := spec.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
				value, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				values = append(values, value)
			}
			return true
		})
	}
	if len(values) == 0 {
		t.Fatalf("no alarms found in %s", dir)
	}
	return values
}
