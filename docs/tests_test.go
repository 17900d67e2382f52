package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// testFunction is the beginning of a test; namedTest is the name of one in a
// document, perhaps with that of a part.
var (
	testFunction = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	namedTest    = regexp.MustCompile(`^(Test[A-Z]\w*)(/.*)?$`)
)

// A test that a document names exists: what it shows would be shown no longer.
func TestNamedTestsExist(t *testing.T) {
	t.Parallel()
	there, found := testFunctions(t), 0
	for _, d := range documents(t) {
		for _, m := range inline.FindAllStringSubmatch(d.prose(), -1) {
			name := namedTest.FindStringSubmatch(m[1])
			if name == nil {
				continue
			}
			found++
			if !there[name[1]] {
				t.Errorf("%s names %s, which does not exist", d.path, name[1])
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d tests were found in all documents", found)
	}
}

func testFunctions(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range testFunction.FindAllSubmatch(text, -1) {
			all[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
