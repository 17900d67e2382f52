package server_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/server"
)

func validate(args ...string) (string, error) {
	cmd := server.Command()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(append([]string{"validate"}, args...))
	err := cmd.Execute()
	return out.String(), err
}

func TestCommand_NamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	for field, args := range map[string][]string{
		"id":          {"--id", "Router_1"},
		"coordinator": {"--id", "r1", "--coordinator", "c1.test"},
		"listen":      {"--id", "r1", "--listen", "7500"},
		"http-listen": {"--id", "r1", "--http-listen", "nowhere"},
		"tls-key":     {"--id", "r1", "--tls-cert", "cert.pem"},
		"log-format":  {"--id", "r1", "--log-format", "xml"},
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
