package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var metric = regexp.MustCompile(`\bbuddyring_[a-z0-9_]+`)

// Every metric that the documents name is made somewhere.
func TestMetricsExist(t *testing.T) {
	t.Parallel()
	source := sources(t)
	for _, d := range documents(t) {
		for _, name := range metric.FindAllString(d.text, -1) {
			if !made(source, name) {
				t.Errorf("%s names the metric %s", d.path, name)
			}
		}
	}
}

// made reports whether the source makes a metric: under its whole name, or under the
// part that follows a prefix.
func made(source, name string) bool {
	if strings.Contains(source, `"`+name+`"`) {
		return true
	}
	for rest := name; ; {
		_, after, ok := strings.Cut(rest, "_")
		if !ok || !strings.Contains(after, "_") {
			return false
		}
		if strings.Contains(source, `"`+after+`"`) {
			return true
		}
		rest = after
	}
}

// sources are all Go files but tests.
func sources(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, folder := range []string{"coordinator", "agent", "router", "internal"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			all.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}
