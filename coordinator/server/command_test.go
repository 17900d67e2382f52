package server_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/buddyring/buddyring/coordinator/server"
	"github.com/buddyring/buddyring/internal/member"
)

// run runs the program with arguments and returns what it prints.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := server.Command(args, nil)
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&bytes.Buffer{})
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestBadFlags(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	noPEM := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(noPEM, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		field string
		args  []string
	}{
		"id":                  {"id", []string{"--id", "C 1"}},
		"listen":              {"listen", []string{"--listen", "7400"}},
		"command":             {"command line", []string{"status"}},
		"plaintext":           {"admin-listen", []string{"--admin-listen", "0.0.0.0:7401"}},
		"admin-listen":        {"admin-listen", []string{"--admin-listen", "x"}},
		"http-listen":         {"http-listen", []string{"--http-listen", "x"}},
		"advertise":           {"advertise", []string{"--advertise", "0.0.0.0:7400"}},
		"advertise, no port":  {"advertise", []string{"--advertise", "c1.example.com"}},
		"store":               {"store", []string{"--store", "postgres://x"}},
		"store, password":     {"store", []string{"--store", "mysql://u:p@h/db"}},
		"store, memory":       {"store", []string{"--store", "sqlite::memory:"}},
		"store-password-file": {"store-password-file", []string{"--store", "mysql://u@h/db", "--store-password-file", "/nowhere"}},
		"store-tls-ca":        {"store-tls-ca", []string{"--store", "mysql://u@h/db", "--store-tls-ca", noPEM}},
		"store-tls-ca absent": {"store-tls-ca", []string{"--store", "mysql://u@h/db", "--store-tls-ca", "/nowhere"}},
		"migrate":             {"migrate", []string{"--migrate", "perhaps"}},
		"tls":                 {"tls-key", []string{"--tls-cert", "/nowhere"}},
		"log-level":           {"log-level", []string{"--log-level", "loud"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"validate", "--id", "c1", "--state-dir", dir}, c.args...)
			_, err := run(t, args...)
			var wrong *member.FieldError
			if !errors.As(err, &wrong) || wrong.Field != c.field {
				t.Errorf("error is %v, not about %s", err, c.field)
			}
		})
	}
}

func TestValidateChangesNothing(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	if _, err := run(t, "validate", "--id", "c1", "--state-dir", dir); err != nil {
		t.Fatalf("validate: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the state directory: %v", err)
	}
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	first, err := run(t, "migrate", "--id", "c1", "--state-dir", dir)
	if err != nil || !strings.HasPrefix(first, "schema was 0, is ") {
		t.Fatalf("migrate: %q, %v", first, err)
	}
	second, err := run(t, "migrate", "--id", "c1", "--state-dir", dir)
	if err != nil || strings.HasPrefix(second, "schema was 0") {
		t.Errorf("migrate again: %q, %v", second, err)
	}
}

// A database that cannot be opened is an error at once, not a flag's fault.
func TestRunWithoutDatabase(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("not a database, but longer than a header of one would be............"+
		strings.Repeat(".", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := run(t, "--id", "c1", "--store", "sqlite:"+file)
	if err == nil || errors.Is(err, member.ErrInvalid) {
		t.Errorf("error is %v", err)
	}
}

// lines is a log of which a test can wait for a line.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

func (l lines) await(what string) {
	for line := range l {
		if strings.Contains(line, what) {
			return
		}
	}
}

// The program runs, takes the log level over at SIGHUP, nothing of a file that
// is wrong, and ends well.
func TestRunAndHangup(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "coordinator.yaml")
	write := func(content string) {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("id: c1\nlog-level: info\n")
	hangups, log := make(chan os.Signal), make(lines, 1000)
	cmd := server.Command([]string{
		"--config", file, "--state-dir", filepath.Join(dir, "state"),
		"--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0",
	}, hangups)
	cmd.SetErr(log)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- cmd.ExecuteContext(ctx) }()
	log.await("coordinator listens")

	// At level warn a reload is not told; what is wrong always is.
	write("id: c1\nlog-level: loud\n")
	hangups <- syscall.SIGHUP
	log.await("configuration not reloaded")
	write("id: c1\nlog-level: warn\n")
	hangups <- syscall.SIGHUP
	write("id: c1\nlog-level: info\n")
	hangups <- syscall.SIGHUP
	log.await("configuration reloaded")
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}
}
