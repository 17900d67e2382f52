package layout_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// list runs go list in the root of the module.
func list(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...)
	cmd.Dir = "../.."
	var failure bytes.Buffer
	cmd.Stderr = &failure
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v\n%s", args, err, &failure)
	}
	return strings.Fields(string(out))
}

// databases are the packages that only the coordinator may link.
func databases() []string {
	return []string{
		"github.com/go-sql-driver/mysql", "modernc.org/sqlite", "github.com/pressly/goose/v3",
		module + "sql", module + "coordinator/store",
	}
}

func TestOnlyTheCoordinatorLinksADatabase(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"./agent", "./router", "./buddyctl", "./client"} {
		if _, err := os.Stat(filepath.Join("../..", program)); os.IsNotExist(err) {
			continue
		}
		for _, dep := range list(t, "-deps", program) {
			if slices.Contains(databases(), dep) {
				t.Errorf("%s links %s", program, dep)
			}
		}
	}
	// The names above are right: the coordinator does link them.
	linked := list(t, "-deps", "./coordinator")
	for _, pkg := range databases() {
		if !slices.Contains(linked, pkg) {
			t.Errorf("the coordinator does not link %s", pkg)
		}
	}
}

// xDS is several megabytes: only the router serves it, and its client, which would
// as well be a part of whoever imports it, is for measuring.
func TestOnlyTheRouterLinksXDS(t *testing.T) {
	t.Parallel()
	const server, client = "github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3", "google.golang.org/grpc/xds"
	for _, program := range []string{"./agent", "./coordinator", "./buddyctl", "./client"} {
		if _, err := os.Stat(filepath.Join("../..", program)); os.IsNotExist(err) {
			continue
		}
		for _, dep := range list(t, "-deps", program) {
			if strings.HasPrefix(dep, "github.com/envoyproxy/") || dep == client {
				t.Errorf("%s links %s", program, dep)
			}
		}
	}
	linked := list(t, "-deps", "./router")
	if !slices.Contains(linked, server) {
		t.Errorf("the router does not link %s", server)
	}
	if slices.Contains(linked, client) {
		t.Errorf("the router links %s", client)
	}
}

// TestTheClientLibraryIsSmall: what it imports is linked into programs of others.
func TestTheClientLibraryIsSmall(t *testing.T) {
	t.Parallel()
	own := []string{"client", "internal/connect", "internal/member", "internal/statedir", "proto/buddyring/router/v1", "router/view"}
	others := []string{"google.golang.org/grpc", "google.golang.org/protobuf", "google.golang.org/genproto", "golang.org/x"}
	for _, dep := range list(t, "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./client") {
		if path, ok := strings.CutPrefix(dep, module); ok {
			if !slices.Contains(own, path) {
				t.Errorf("client links %s", dep)
			}
			continue
		}
		known := slices.ContainsFunc(others, func(m string) bool { return dep == m || strings.HasPrefix(dep, m+"/") })
		if !known || strings.HasPrefix(dep, "google.golang.org/grpc/xds") || dep == "google.golang.org/grpc/reflection" {
			t.Errorf("client links %s", dep)
		}
	}
}

// components meet only in proto.
func components() []string { return []string{"coordinator", "agent", "router", "client", "buddyctl"} }

// component is the one that an import path belongs to, or "".
func component(path string) string {
	rest, ok := strings.CutPrefix(path, module)
	if !ok {
		return ""
	}
	first, _, _ := strings.Cut(rest, "/")
	if !slices.Contains(components(), first) {
		return ""
	}
	return first
}

func TestComponentsDoNotImportOneAnother(t *testing.T) {
	t.Parallel()
	for _, line := range list(t, "-f", `{{$p := .ImportPath}}{{range .Imports}}{{$p}}:{{.}}{{"\n"}}{{end}}`, "./...") {
		from, to, _ := strings.Cut(line, ":")
		a, b := component(from), component(to)
		// The router and the client library choose with the same pure functions.
		shared := a == "client" && to == module+"router/view"
		if b != "" && a != "" && a != b && !shared {
			t.Errorf("%s imports %s", from, to)
		}
	}
}

const maxMainLines = 60

func TestMainsAreThin(t *testing.T) {
	t.Parallel()
	const files = `{{if eq .Name "main"}}{{$d := .Dir}}{{range .GoFiles}}{{$d}}/{{.}}{{"\n"}}{{end}}{{end}}`
	for _, path := range list(t, "-f", files, "./coordinator", "./agent", "./router", "./buddyctl") {
		if filepath.Base(path) != "main.go" {
			t.Errorf("%s: logic of a program belongs in a package", path)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(data, []byte("\n")); n > maxMainLines {
			t.Errorf("%s has %d lines; at most %d are allowed", path, n, maxMainLines)
		}
	}
}
