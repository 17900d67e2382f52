package layout_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/buddyring/buddyring/"

// purePackages decide and do nothing else: no I/O, clock, goroutine, global
// randomness or log.
func purePackages() []string {
	return []string{"coordinator/ring", "coordinator/verdict", "coordinator/pool", "coordinator/lease", "agent/detector", "agent/health", "router/view", "router/dns/zone", "internal/history"}
}

// pureImports are all that a pure package may import; the linter says which one of
// them may import what.
func pureImports() []string {
	return []string{
		"cmp", "container/heap", "errors", "fmt", "hash/fnv", "iter", "maps", "math", "math/bits", "math/rand/v2",
		"net/netip", "slices", "sort", "strconv", "strings", "time",
		module + "internal/member", module + "coordinator/ring", module + "coordinator/verdict", module + "router/view",
		"github.com/miekg/dns",
	}
}

// mayImport says whether a pure package may import another. The view builds what
// only some requests need when it is first asked for, once: nobody can tell. A
// history is written down by many at once, and drawn for whoever asks.
func mayImport(dir, path string) bool {
	more := map[string][]string{
		"router/view":      {"sync", "sync/atomic"},
		"internal/history": {"io", "sync", "github.com/anishathalye/porcupine"},
	}
	return slices.Contains(pureImports(), path) || slices.Contains(more[dir], path)
}

// clock are the functions of package time that read it or wait for it.
func clock() []string {
	return []string{
		"Now", "Since", "Until", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Sleep",
	}
}

// seeded are the names of math/rand/v2 that do not use its global generator.
func seeded() []string {
	return []string{"Rand", "New", "PCG", "NewPCG", "ChaCha8", "NewChaCha8", "Source", "Zipf", "NewZipf"}
}

// impurities says what a file of a folder does that a pure package must not.
func impurities(dir string, fset *token.FileSet, file *ast.File) []string {
	var found []string
	report := func(n ast.Node, format string, args ...any) {
		found = append(found, fmt.Sprintf("%s: %s", fset.Position(n.Pos()), fmt.Sprintf(format, args...)))
	}
	for _, spec := range file.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil || !mayImport(dir, path) {
			report(spec, "imports %s", path)
		}
		if spec.Name != nil {
			report(spec, "renames %s, which hides what it calls", path)
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			report(n, "starts a goroutine")
		case *ast.SelectStmt, *ast.SendStmt, *ast.ChanType:
			report(n, "uses a channel")
		case *ast.FuncDecl:
			if n.Recv == nil && n.Name.Name == "init" {
				report(n, "has an init")
			}
		case *ast.SelectorExpr:
			name := n.Sel.Name
			switch p, _ := n.X.(*ast.Ident); {
			case p == nil || p.Obj != nil:
			case p.Name == "time" && slices.Contains(clock(), name):
				report(n, "reads the clock with time.%s", name)
			case p.Name == "rand" && !slices.Contains(seeded(), name):
				report(n, "draws from the global generator with rand.%s", name)
			case p.Name == "fmt" && strings.HasPrefix(name, "Print"):
				report(n, "prints")
			}
		}
		return true
	})
	return found
}

func TestPurePackagesArePure(t *testing.T) {
	t.Parallel()
	for _, dir := range purePackages() {
		paths, err := filepath.Glob(filepath.Join("../..", dir, "*.go"))
		if err != nil || len(paths) == 0 {
			t.Errorf("%s has no files: %v", dir, err)
		}
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, problem := range impurities(dir, fset, file) {
				t.Error(problem)
			}
		}
	}
}

func TestImpuritiesAreSeen(t *testing.T) {
	t.Parallel()
	for code, problem := range map[string]string{
		`import "os"`:                                     "imports os",
		`import "math/rand"`:                              "imports math/rand",
		`import "log/slog"`:                               "imports log/slog",
		`import "sync"`:                                   "imports sync",
		`import clock "time"`:                             "renames time",
		`import . "time"`:                                 "renames time",
		"func f() { go f() }":                             "starts a goroutine",
		"func f(c chan int) {}":                           "uses a channel",
		"func f() { select {} }":                          "uses a channel",
		"func init() {}":                                  "has an init",
		`import "time"; var now = time.Now()`:             "reads the clock",
		`import "time"; var now = time.Now`:               "reads the clock",
		`import "math/rand/v2"; var n = rand.IntN(3)`:     "draws from the global generator",
		`import "fmt"; func f() { fmt.Println("hello") }`: "prints",
	} {
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, "x.go", "package x; "+code, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(impurities("coordinator/pool", fset, file), "\n"); !strings.Contains(got, problem) {
			t.Errorf("%s: found %q, want %q", code, got, problem)
		}
	}
	fine := `package x; import ("math/rand/v2"; "time"); func f(r *rand.Rand, now time.Time) time.Time {
		return now.Add(time.Duration(rand.New(rand.NewPCG(1, 2)).IntN(3) + r.IntN(5)))
	}`
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "x.go", fine, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := impurities("coordinator/pool", fset, file); got != nil {
		t.Errorf("found %q in a pure file", got)
	}
}
