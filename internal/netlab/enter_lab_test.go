//go:build lab && linux

package netlab_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buddyring/buddyring/internal/netlab"
)

// pingOnce is a program that builds a lab, pings in it and ends.
func pingOnce(context.Context) int {
	lab, err := netlab.New(netlab.Config{Hosts: []string{"a", "b"}})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for _, network := range []string{"ip4:icmp", "udp4"} {
		if err := ping(lab.Host("a"), network, lab.Host("b").Addr(), patience); err != nil {
			fmt.Println(network, err)
			return 1
		}
	}
	return 42
}

// hang is a program that starts a child on a host and never ends.
func hang(context.Context) int {
	lab, err := netlab.New(netlab.Config{Hosts: []string{"a", "b"}})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if err := lab.Host("a").Start(exec.Command("sleep", "1000")); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("hanging")
	select {}
}

// wait is a program that ends with its context.
func wait(ctx context.Context) int {
	fmt.Println("waiting")
	<-ctx.Done()
	return 7
}

// play prepares this test binary in a role.
func play(ctx context.Context, role string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	return cmd
}

func TestAnUnprivilegedUserBuildsALab(t *testing.T) {
	t.Parallel()
	cmd := play(t.Context(), "ping")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	type result struct {
		out []byte
		err error
	}
	done := make(chan result)
	go func() {
		// Linux refuses user namespaces in a chroot, where these tests may be
		// running.
		runtime.LockOSThread()
		if err := leaveChroot(); err != nil {
			done <- result{err: err}
			return
		}
		out, err := cmd.CombinedOutput()
		done <- result{out, err}
	}()
	if r := <-done; cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 42 {
		t.Fatalf("as an unprivileged user: %v, want exit status 42\n%s", r.err, r.out)
	}
}

// leaveChroot moves the calling thread to the root of its mount namespace and
// mounts the right /proc there.
func leaveChroot() error {
	ns, err := os.Open("/proc/thread-self/ns/mnt")
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
		return err
	}
	return unix.Mount("proc", "/proc", "proc", 0, "")
}

func TestEndOfTheProgramEndsAll(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			mark := "NETLAB_TEST_MARK=" + t.Name()
			cmd := play(t.Context(), "hang")
			cmd.Env = append(cmd.Env, mark)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line := make([]byte, 100)
			if n, err := out.Read(line); err != nil || string(line[:n]) != "hanging\n" {
				t.Fatalf("the program said %q, %v", line[:n], err)
			}
			awaitMarked(t, mark, 3) // the outer and the inner program, and sleep
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			awaitMarked(t, mark, 0)
		})
	}
}

func awaitMarked(t *testing.T, mark string, want int) {
	t.Helper()
	for end := time.Now().Add(patience); len(marked(t, mark)) != want; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("processes are %q, want %d", marked(t, mark), want)
		}
	}
}

// marked lists the command lines of the processes with an environment variable.
func marked(t *testing.T, mark string) (commands []string) {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err != nil || !bytes.Contains(append(env, 0), []byte(mark+"\x00")) {
			continue
		}
		command, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err == nil && len(command) > 0 {
			commands = append(commands, strings.ReplaceAll(string(command), "\x00", " "))
		}
	}
	return commands
}

func TestContextReachesTheInnerProgram(t *testing.T) {
	t.Parallel()
	cmd := play(t.Context(), "wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 100)
	if n, err := out.Read(line); err != nil || string(line[:n]) != "waiting\n" {
		t.Fatalf("the program said %q, %v", line[:n], err)
	}
	// The role's TestMain ends its context at SIGTERM.
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("exit status %d, want the inner program's 7", cmd.ProcessState.ExitCode())
	}
}
