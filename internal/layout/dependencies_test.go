package layout_test

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// imported are the modules that the project's own code imports, with its tests.
func imported(t *testing.T) []string {
	t.Helper()
	const each = `{{range .Imports}}{{.}}{{"\n"}}{{end}}{{range .TestImports}}{{.}}{{"\n"}}{{end}}` +
		`{{range .XTestImports}}{{.}}{{"\n"}}{{end}}`
	paths := list(t, "-tags", "lab,mariadb", "-f", each, "./...")
	slices.Sort(paths)
	paths = slices.DeleteFunc(slices.Compact(paths), func(path string) bool {
		return strings.HasPrefix(path, module) || path == "C"
	})
	modules := list(t, append([]string{"-f", "{{with .Module}}{{.Path}}{{end}}"}, paths...)...)
	slices.Sort(modules)
	return slices.Compact(modules)
}

func TestDependenciesHaveAReason(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	used := imported(t)
	for _, path := range used {
		if !strings.Contains(string(text), "`"+path+"`") {
			t.Errorf("docs/dependencies.md does not say why there is %s", path)
		}
	}
	for line := range strings.Lines(string(text)) {
		cell, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " |")
		for name := range strings.SplitSeq(cell, ", ") {
			path := strings.Trim(name, "`")
			host, _, _ := strings.Cut(path, "/")
			if path != name && strings.Contains(host, ".") && !slices.Contains(used, path) {
				t.Errorf("docs/dependencies.md has a reason for %s, which nothing imports", path)
			}
		}
	}
}
