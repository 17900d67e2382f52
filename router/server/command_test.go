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

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/server"
)

func validate(args ...string) (string, error) {
	cmd := server.Command(append([]string{"validate"}, args...), nil)
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	err := cmd.Execute()
	return out.String(), err
}

func TestCommand_NamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	for field, args := range map[string][]string{
		"id":                         {"--id", "Router_1"},
		"coordinator":                {"--id", "r1", "--coordinator", "c1.test"},
		"listen":                     {"--id", "r1", "--listen", "7500"},
		"http-listen":                {"--id", "r1", "--http-listen", "nowhere"},
		"dns-listen":                 {"--id", "r1", "--dns-listen", "53"},
		"web-listen":                 {"--id", "r1", "--web-listen", "0.0.0.0:80"},
		"dns-zone":                   {"--id", "r1", "--dns-listen", "127.0.0.1:53", "--dns-zone", "a..b"},
		"max-connections":            {"--id", "r1", "--max-connections", "-1"},
		"max-connections-per-source": {"--id", "r1", "--max-connections-per-source", "-1"},
		"tls-key":                    {"--id", "r1", "--tls-cert", "cert.pem"},
		"log-format":                 {"--id", "r1", "--log-format", "xml"},
	} {
		t.Run(field, func(t *testing.T) {
			t.Parallel()
			_, err := validate(args...)
			var wrong *member.FieldError
			if !errors.As(err, &wrong) || wrong.Field != field {
				t.Errorf("%v, want one that names %s", err, field)
			}
		})
	}
	if _, err := validate("--id", "r1", "--coordinator", ""); err == nil {
		t.Error("no coordinator at all was taken")
	}
}

func TestCommand_ReadsFlagsEnvironmentAndFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "router.yaml")
	content := "coordinator: [c1.test:7400, c2.test:7400]\nid: Wrong_From_File\nstate-dir: /tmp/router\n"
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := validate("--config", file); err == nil || !strings.Contains(err.Error(), "Wrong_From_File") {
		t.Errorf("%v, want the id of the file to be refused", err)
	}
	t.Setenv("BUDDYRING_ROUTER_ID", "Wrong_From_Environment")
	if _, err := validate("--config", file); err == nil || !strings.Contains(err.Error(), "Wrong_From_Environment") {
		t.Errorf("%v, want the id of the environment to be refused", err)
	}
	if out, err := validate("--config", file, "--id", "r1"); err != nil || !strings.Contains(out, "valid") {
		t.Errorf("%q, %v; want the flag to win", out, err)
	}
}

// logged is a log of which a test can wait for a line.
type logged chan string

func (l logged) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

// TestCommand_HangupReloadsTheLogLevel: SIGHUP takes over what the file says now,
// and nothing of a file that is wrong. At level warn the router would not say that
// it has reloaded.
func TestCommand_HangupReloadsTheLogLevel(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "router.yaml")
	write := func(content string) {
		if err := errors.Join(os.WriteFile(file+".new", []byte(content), 0o600), os.Rename(file+".new", file)); err != nil {
			t.Fatal(err)
		}
	}
	write("id: r1\nlog-level: warn\n")
	hangups, log := make(chan os.Signal), make(logged, 1000)
	cmd := server.Command([]string{
		"--config", file, "--state-dir", dir, "--coordinator", "127.0.0.1:1",
		"--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0",
	}, hangups)
	cmd.SetErr(log)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- cmd.ExecuteContext(ctx) }()
	// hangup returns when the program has read the file: a signal is taken when the
	// one before has been dealt with.
	hangup := func() {
		for range 2 {
			select {
			case hangups <- syscall.SIGHUP:
			case err := <-done:
				t.Fatalf("the router has ended: %v", err)
			}
		}
	}
	hangup()
	for _, content := range []string{
		"id: r1\nlog-level: loud\n", "id: Wrong\nlog-level: info\n", "id: r1\nlog-level: info\ncolour: red\n",
	} {
		write(content)
		hangup()
	}
	for len(log) > 0 {
		if line := <-log; strings.Contains(line, "configuration reloaded") {
			t.Error(line)
		}
	}
	write("id: r1\nlog-level: info\n")
	hangup()
	for line := range log {
		if strings.Contains(line, "configuration reloaded") {
			break
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
