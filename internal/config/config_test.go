package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/buddyring/buddyring/internal/config"
	"github.com/buddyring/buddyring/internal/member"
)

// settings are the flags of the program under test.
type settings struct {
	ID        string
	Interval  time.Duration
	Weight    uint32
	Local     bool
	Endpoints []string
	Zones     []string
	Sub       string
}

// run runs a program with a root and a sub-command "do" and returns what it
// was configured with. env is set by the caller.
func run(t *testing.T, args ...string) (settings, string, error) {
	t.Helper()
	var got settings
	ran := false
	var out strings.Builder
	root := &cobra.Command{
		Use: "prog", SilenceErrors: true, SilenceUsage: true, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { ran = true; return nil },
	}
	f := root.PersistentFlags()
	f.StringVar(&got.ID, "id", "default-id", "")
	f.DurationVar(&got.Interval, "probe-interval", 500*time.Millisecond, "")
	f.Uint32Var(&got.Weight, "weight", 100, "")
	f.BoolVar(&got.Local, "allow-local", false, "")
	f.StringArrayVar(&got.Endpoints, "endpoint", nil, "")
	f.StringSliceVar(&got.Zones, "zone", []string{"z0"}, "")
	do := &cobra.Command{Use: "do", RunE: func(*cobra.Command, []string) error { ran = true; return nil }}
	do.Flags().StringVar(&got.Sub, "reason", "", "")
	root.AddCommand(do, config.ValidateCommand(func() error {
		ran = true
		if got.Weight > 1000 {
			return member.Invalid("weight", "%d is too much", got.Weight)
		}
		return nil
	}))
	config.Bind(root, "TESTPROG")
	root.SetArgs(args)
	root.SetOut(&out)
	err := root.Execute()
	if err == nil && !ran {
		t.Fatal("nothing ran")
	}
	return got, out.String(), err
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrecedence(t *testing.T) {
	path := file(t, "# who\nid: of-file\nprobe-interval: 2s\nweight: 7\nallow-local: true\n"+
		"endpoint: [\"a=1:1\", b=2:2]\nzone:\n  - z1\n  - z2\nreason: unused here\n")
	t.Setenv("TESTPROG_PROBE_INTERVAL", "3s")
	t.Setenv("TESTPROG_WEIGHT", "8")
	t.Setenv("TESTPROG_ENDPOINT", `c=3:3,"d=4,4"`)
	t.Setenv("TESTPROG_ID", "")
	got, _, err := run(t, "--config", path, "--weight", "9", "--zone", "z3")
	if err != nil {
		t.Fatal(err)
	}
	want := settings{
		ID: "of-file", Interval: 3 * time.Second, Weight: 9, Local: true,
		Endpoints: []string{"c=3:3", "d=4,4"}, Zones: []string{"z3"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	got, _, err := run(t)
	if err != nil {
		t.Fatal(err)
	}
	want := settings{ID: "default-id", Interval: 500 * time.Millisecond, Weight: 100, Zones: []string{"z0"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestFileReachesSubCommands(t *testing.T) {
	path := file(t, "id: of-file\nreason: because\n")
	t.Setenv("TESTPROG_CONFIG", path)
	got, _, err := run(t, "do")
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != "of-file" || got.Sub != "because" {
		t.Errorf("got %+v", got)
	}
}

func TestScalarsMeanWhatTheyMeanOnTheCommandLine(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"id: 0755": "0755", "id: 1_000": "1_000", "id: yes": "yes", "id: true": "true", "id: 1.50": "1.50",
		`id: "quoted: \"x\""`: `quoted: "x"`, "id: 'it''s'": "it's", "id: |\n  a\n  b\n": "a\nb\n",
		"id: plain # comment": "plain", "{id: flow}": "flow", "---\nid: doc\n": "doc", "id: \"\"": "",
		"id: 2026-11-23": "2026-11-23", "id: .inf": ".inf",
	} {
		got, _, err := run(t, "--config", file(t, text))
		if err != nil || got.ID != want {
			t.Errorf("%q: got %q, %v, want %q", text, got.ID, err, want)
		}
	}
}

func TestEmptyFileIsNoSettings(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "\n", "# only a comment\n", "---\n"} {
		if got, _, err := run(t, "--config", file(t, text)); err != nil || got.ID != "default-id" {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

func TestBadFileNamesLineAndColumn(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ text, at, says string }{
		"unknown key":      {"id: a\n\nwieght: 7\n", ":3:1", `unknown setting "wieght"`},
		"indented unknown": {"id: a\nzone:\n  - a\nprobe_interval: 1s\n", ":4:1", `unknown setting "probe_interval"`},
		"bad value":        {"id: a\nweight: heavy\n", ":2:1", "weight"},
		"out of range":     {"weight: 5000000000\n", ":1:1", "weight"},
		"bad duration":     {"probe-interval: 500\n", ":1:1", "probe-interval"},
		"list for one":     {"id: [a, b]\n", ":1:1", "id: takes one value"},
		"empty list":       {"id: []\n", ":1:1", "id: takes one value"},
		"mapping":          {"id:\n  a: b\n", ":2:4", "id: a plain value"},
		"nested list":      {"zone: [[a]]\n", ":1:8", "zone: a plain value"},
		"no value":         {"id:\n", ":1:", "id: a plain value"},
		"null in a list":   {"zone: [a, null]\n", ":1:11", "zone: a plain value"},
		"anchor":           {"id: &x a\n", ":1:5", "id: a plain value"},
		"alias":            {"zone: [&x a, *x]\n", ":1:8", "zone: a plain value"},
		"tag":              {"id: !!str a\n", ":1:5", "id: a plain value"},
		"twice":            {"id: a\nid: b\n", ":2:1", "id"},
		"a list":           {"- id\n", ":1:1", "NAME: VALUE"},
		"a word":           {"id\n", ":1:1", "NAME: VALUE"},
		"two documents":    {"id: a\n---\nid: b\n", ":3", "one document"},
		"syntax":           {"id: [a\n", ":1:5", ""},
		"tab":              {"id: a\n\tzone: b\n", ":2:", ""},
		"itself":           {"config: x\n", ":1:1", `unknown setting "config"`},
		"help":             {"help: true\n", ":1:1", `unknown setting "help"`},
		"another's value":  {"reason: [a]\nbogus: 1\n", ":2:1", "bogus"},
	} {
		path := file(t, tt.text)
		_, _, err := run(t, "--config", path)
		if !errors.Is(err, member.ErrInvalid) || !strings.Contains(err.Error(), path+tt.at) ||
			!strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: got %v, want %s%s %s", name, err, path, tt.at, tt.says)
		}
	}
}

func TestGarbageNeverPanics(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"\x00", "\xff\xfe", "{", "}", "a: b: c", "? x", "&", "*", "|", ">", "%", "@", "`", "<<: {id: a}",
		"? {a: b}\n: c", ": x", "-", "[", "[]", "1", "id: {", strings.Repeat("[", 1000),
	} {
		if _, _, err := run(t, "--config", file(t, text)); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestMissingAndHugeFiles(t *testing.T) {
	t.Parallel()
	_, _, err := run(t, "--config", "/nonexistent/x.yaml")
	if !errors.Is(err, member.ErrInvalid) || !strings.Contains(err.Error(), "/nonexistent/x.yaml") {
		t.Errorf("got %v", err)
	}
	if _, _, err := run(t, "--config", file(t, "#"+strings.Repeat("x", 2<<20))); !errors.Is(err, member.ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

func TestBadVariableIsNamed(t *testing.T) {
	for name, value := range map[string]string{
		"TESTPROG_WEIGHT": "heavy", "TESTPROG_PROBE_INTERVAL": "fast", "TESTPROG_ALLOW_LOCAL": "maybe",
		"TESTPROG_ZONE": "\"open",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			if _, _, err := run(t); !errors.Is(err, member.ErrInvalid) || !strings.Contains(err.Error(), name) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestBadFlagIsNamed(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--weight", "heavy"}, {"--wieght", "7"}} {
		if _, _, err := run(t, args...); !errors.Is(err, member.ErrInvalid) || !strings.Contains(err.Error(), args[0]) {
			t.Errorf("got %v", err)
		}
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	_, out, err := run(t, "validate", "--config", file(t, "weight: 7\n"))
	if err != nil || out != "configuration is valid\n" {
		t.Errorf("got %q, %v", out, err)
	}
	_, out, err = run(t, "validate", "--config", file(t, "weight: 7000\n"))
	if !errors.Is(err, member.ErrInvalid) || out != "" {
		t.Errorf("got %q, %v", out, err)
	}
}

func FuzzFile(f *testing.F) {
	f.Add("id: a\nzone: [a, b]\n")
	f.Add("id: {a: b}\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, _, err := run(t, "--config", file(t, text))
		if err == nil && got.Weight > 100 && !strings.Contains(text, "weight") {
			t.Errorf("%q set the weight to %d", text, got.Weight)
		}
	})
}

func TestUnknownCommandIsWrongUsage(t *testing.T) {
	t.Parallel()
	cmd := &cobra.Command{Use: "buddyring-thing", Args: config.NoArgs}
	var wrong *member.FieldError
	if err := cmd.ValidateArgs([]string{"start"}); !errors.As(err, &wrong) || !strings.Contains(err.Error(), `"start"`) {
		t.Errorf("got %v", err)
	}
	if err := cmd.ValidateArgs(nil); err != nil {
		t.Errorf("without arguments: %v", err)
	}
}
