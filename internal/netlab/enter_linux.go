package netlab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrUnavailable says that this machine does not let this user build a lab.
var ErrUnavailable = errors.New("network namespaces are not available")

// insideEnv marks the program that Enter has started; its descriptors 3 and 4
// are the lifeline and the report.
const insideEnv = "BUDDYRING_NETLAB_INSIDE"

// killDelay is how long the inner program may take to end after its context.
const killDelay = 10 * time.Second

// Entry says how to enter. The zero value is right for programs.
type Entry struct {
	// Unprivileged enters through a user namespace even as root.
	Unprivileged bool
	// Env is added to the inner program's environment.
	Env []string
}

// Enter runs inside in a PID and mount namespace of its own, and in a user
// namespace where that is needed, and returns what inside returned. It does so
// by starting this program again with the same arguments: the inner program
// must come to the same call, which there runs inside and then exits.
//
// The inner program keeps the caller's network namespace, standard streams and
// terminal. When ctx ends, so does the context of inside; ten seconds later the
// inner program is killed. When the outer program ends in any way, the inner
// one and all its children are killed.
//
// The error wraps ErrUnavailable when a lab cannot be built here, found out by
// building a small one; inside has then not been run.
func Enter(ctx context.Context, e Entry, inside func(context.Context) int) (int, error) {
	if os.Getenv(insideEnv) != "" && os.Getpid() == 1 {
		os.Exit(runInside(ctx, inside))
	}
	if os.Geteuid() == 0 && !e.Unprivileged {
		code, err := enter(ctx, e.Env, false)
		if !errors.Is(err, unix.EPERM) {
			return code, err
		}
	}
	return enter(ctx, e.Env, true)
}

// enter holds its thread until the inner program has ended, because Linux sends
// the parent-death signal when the thread that forked dies.
func enter(ctx context.Context, env []string, userNamespace bool) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	cmd := innerCommand(ctx, env, userNamespace)
	lifeline, report, err := startInner(cmd)
	if err != nil {
		return 0, err
	}
	defer func() { _ = lifeline.Close() }() // the inner program has ended
	text, readErr := io.ReadAll(report)
	_ = report.Close() // it was only read
	waitErr := cmd.Wait()
	switch trouble, ok := strings.CutPrefix(string(text), "ok"); {
	case readErr != nil:
		return 0, fmt.Errorf("read report: %w", readErr)
	case !ok && ctx.Err() != nil:
		return 0, ctx.Err()
	case !ok:
		return 0, fmt.Errorf("%w: %s", ErrUnavailable, strings.TrimSpace(trouble))
	}
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		return code, nil
	}
	return 0, fmt.Errorf("inner program: %w", waitErr)
}

// startInner starts the inner program with its two pipes and returns the outer
// ends. The report ends with the inner program at the latest.
func startInner(cmd *exec.Cmd) (lifeline, report *os.File, err error) {
	lifelineR, lifelineW, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("open lifeline: %w", err)
	}
	reportR, reportW, err := os.Pipe()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open report: %w", err), lifelineR.Close(), lifelineW.Close())
	}
	cmd.ExtraFiles = []*os.File{lifelineR, reportW}
	cmd.Cancel = func() error {
		_, err := lifelineW.Write([]byte{0})
		return err
	}
	err = cmd.Start()
	closeErr := errors.Join(lifelineR.Close(), reportW.Close())
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%w: start in new namespaces: %w", ErrUnavailable, err),
			closeErr, lifelineW.Close(), reportR.Close())
	}
	return lifelineW, reportR, closeErr
}

// self is the path of this program. The kernel's own link to it works even
// where the path does not, but in a chroot it does not lead back to the path.
func self() string {
	const link = "/proc/self/exe"
	path, err := os.Executable()
	if err != nil || unix.Access(path, unix.X_OK) != nil {
		return link
	}
	return path
}

func innerCommand(ctx context.Context, env []string, userNamespace bool) *exec.Cmd {
	cmd := exec.CommandContext(ctx, self()) //nolint:gosec // it is this very program
	cmd.Args = os.Args
	cmd.Env = append(append(os.Environ(), env...), insideEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.WaitDelay = killDelay
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if userNamespace {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return cmd
}

func runInside(ctx context.Context, inside func(context.Context) int) int {
	lifeline, report := os.NewFile(3, "lifeline"), os.NewFile(4, "report")
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go follow(lifeline, cancel)
	verdict := "ok"
	if err := prepare(); err != nil {
		verdict = err.Error()
	}
	if _, err := report.WriteString(verdict); err != nil || verdict != "ok" || report.Close() != nil {
		return 1
	}
	return inside(ctx)
}

// follow does as the outer program does: a byte is the end of its context, the
// end of the pipe its own end. The pipe covers what the parent-death signal
// misses, an end before that signal is set.
func follow(lifeline *os.File, cancel context.CancelFunc) {
	b := make([]byte, 1)
	for {
		if _, err := lifeline.Read(b); err != nil {
			os.Exit(1)
		}
		cancel()
	}
}

// prepare hides the mark from children, makes the mount namespace private, mounts a /proc that shows the PID
// namespace, and finds out whether a lab can be built.
func prepare() error {
	if err := os.Unsetenv(insideEnv); err != nil {
		return fmt.Errorf("unset %s: %w", insideEnv, err)
	}
	if err := PrivateMounts(); err != nil {
		return err
	}
	// Containers that hide parts of /proc refuse this. All that is read from
	// /proc here works with the old one as well.
	_ = unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	lab, err := New(Config{Hosts: []string{"a", "b"}})
	if err != nil {
		return err
	}
	return lab.Close()
}
