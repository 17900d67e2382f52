//go:build lab && linux

package lab_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// buddyctl prepares a buddyctl whose temporary files go into a folder of the
// test.
func buddyctl(t *testing.T, args ...string) (cmd *exec.Cmd, tmp string) {
	t.Helper()
	tmp = t.TempDir()
	cmd = exec.CommandContext(t.Context(), filepath.Join(os.Getenv(binEnv), "buddyctl"), args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp, markEnv+"="+t.Name())
	return cmd, tmp
}

// markEnv marks all processes of a demo.
const markEnv = "BUDDYCTL_LAB_MARK"

// nothingLeft checks that no process and no file of a demo is there.
func nothingLeft(t *testing.T, tmp string) {
	t.Helper()
	entries, err := os.ReadDir(tmp)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("left behind: %s", e.Name())
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err == nil && bytes.Contains(append(env, 0), []byte(markEnv+"="+t.Name()+"\x00")) {
			command, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
			t.Errorf("still running: %s", strings.ReplaceAll(string(command), "\x00", " "))
		}
	}
}

func TestDemo(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"namespaces", "loopback"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			args := []string{"demo", "--json"}
			if mode == "loopback" {
				args = append(args, "--loopback")
			}
			cmd, tmp := buddyctl(t, args...)
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			start := time.Now()
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v\n%s\n%s", err, &out, &errs)
			}
			if took := time.Since(start); took > time.Minute {
				t.Errorf("it took %v", took)
			}
			var facts struct {
				OK    bool   `json:"ok"`
				Mode  string `json:"mode"`
				Crash struct {
					RemovedMS float64 `json:"removed_ms"`
					AckedMS   float64 `json:"acked_ms"`
				} `json:"crash"`
				Client struct {
					Requests         int `json:"requests"`
					SentAfterRemoval int `json:"sent_after_removal"`
					Phases           []struct {
						Requests int `json:"requests"`
						Failed   int `json:"failed"`
					} `json:"phases"`
				} `json:"client"`
			}
			if err := json.Unmarshal(out.Bytes(), &facts); err != nil {
				t.Fatal(err)
			}
			if !facts.OK || facts.Mode != mode || facts.Crash.RemovedMS <= 0 || facts.Crash.AckedMS < facts.Crash.RemovedMS ||
				facts.Client.Requests < 100 || facts.Client.SentAfterRemoval != 0 {
				t.Errorf("facts: %+v", facts)
			}
			// A call may be late on a machine that has too much to do.
			if well := facts.Client.Phases[0]; well.Requests < 20 || well.Failed > well.Requests/10 {
				t.Errorf("before anything happens %d of %d requests fail", well.Failed, well.Requests)
			}
			nothingLeft(t, tmp)
		})
	}
}

func TestDemoInterrupted(t *testing.T) {
	t.Parallel()
	for name, sig := range map[string]syscall.Signal{"interrupt": syscall.SIGINT, "terminate": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd, tmp := buddyctl(t, "demo")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var told []byte
			for !bytes.Contains(told, []byte("The ring.")) {
				b := make([]byte, 4096)
				n, err := out.Read(b)
				if err != nil {
					t.Fatalf("it ended with %v after\n%s", err, told)
				}
				told = append(told, b[:n]...)
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != 1 {
				t.Errorf("exit status %d, want 1", code)
			}
			nothingLeft(t, tmp)
		})
	}
}

// What a served demo says to try restarts all of its servers.
func TestDemoIsRestarted(t *testing.T) {
	t.Parallel()
	cmd, tmp := buddyctl(t, "demo", "--serve", "--loopback", "--hosts", "4")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	restart := ""
	for restart == "" && lines.Scan() {
		if line := strings.TrimSpace(lines.Text()); strings.Contains(line, "rolling-restart") {
			restart = strings.Replace(line, "--rejoins", "--rejoins --steady 100ms", 1)
		}
	}
	told := make(chan int)
	go func() {
		left := 0
		for lines.Scan() {
			if strings.Contains(lines.Text(), "has left the pool") {
				left++
			}
		}
		told <- left
	}()
	// One has been shut down by the story.
	const servers = 3
	said, err := exec.CommandContext(t.Context(), "sh", "-ec", restart).CombinedOutput()
	if err != nil || !strings.Contains(string(said), "all of 3 servers restarted") {
		t.Errorf("%s: %v\n%s", restart, err, said)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if left := <-told; left != servers {
		t.Errorf("the demo tells of %d servers that left", left)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, tmp)
}
