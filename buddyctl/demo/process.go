package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// lastWords is how many lines of a log are told when a program ends by itself.
const lastWords = 3

// handed is a listener that is handed to a program by systemd's protocol for
// socket activation.
type handed struct {
	name string
	lis  *net.TCPListener
}

// program is one of buddyring's binaries and how to run it.
type program struct {
	// name is unique in the demo; path is the binary.
	name, path string
	args       []string
	listeners  []handed
	// log is the file that its output is appended to.
	log string
}

// process is a running program.
type process struct {
	program
	cmd *exec.Cmd
	// wanted says that it is meant to end.
	wanted atomic.Bool
	// done is closed when it has ended; err is then how.
	done chan struct{}
	err  error
}

// start starts a program at a place. If it ends by itself, fail is told why.
func start(at place, p program, fail func(error)) (*process, error) {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	defer log.Close()
	cmd := exec.Command(p.path, p.args...) //nolint:noctx,gosec // it lives until it is killed; the path is a sibling's
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = environment(p.listeners)
	for _, h := range p.listeners {
		file, err := h.lis.File()
		if err != nil {
			return nil, fmt.Errorf("start %s: hand over listener %s: %w", p.name, h.name, err)
		}
		defer file.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, file)
	}
	if err := at.Start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	proc := &process{program: p, cmd: cmd, done: make(chan struct{})}
	go func() {
		proc.err = cmd.Wait()
		close(proc.done)
		if !proc.wanted.Load() {
			fail(proc.obituary())
		}
	}()
	return proc, nil
}

// environment is this program's without what would configure the daemons
// behind the demo's back, and with the listeners.
func environment(listeners []handed) []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "BUDDYRING_") && !strings.HasPrefix(v, "LISTEN_") && !strings.HasPrefix(v, "NOTIFY_") {
			env = append(env, v)
		}
	}
	if len(listeners) == 0 {
		return env
	}
	names := make([]string, len(listeners))
	for i, h := range listeners {
		names[i] = h.name
	}
	return append(env, "LISTEN_FDS="+strconv.Itoa(len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
}

// obituary says how it ended, with its last words.
func (p *process) obituary() error {
	how := "exit status 0"
	if p.err != nil {
		how = p.err.Error()
	}
	text, err := os.ReadFile(p.log)
	if err != nil {
		return fmt.Errorf("%s ended by itself: %s", p.name, how)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return fmt.Errorf("%s ended by itself: %s; its last words: %s", p.name, how, strings.Join(lines[max(0, len(lines)-lastWords):], " | "))
}

func (p *process) signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	return nil
}

// kill ends it by SIGKILL and waits until it has ended.
func (p *process) kill() {
	p.wanted.Store(true)
	_ = p.cmd.Process.Kill() // fails only if it has ended already
	<-p.done
}

// terminate ends it by SIGTERM and waits for exit status 0.
func (p *process) terminate(ctx context.Context) error {
	p.wanted.Store(true)
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		if p.err != nil {
			return p.obituary()
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s does not end: %w", p.name, context.Cause(ctx))
	}
}

// siblings finds the programs beside this one.
func siblings() (dir string, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the programs: %w", err)
	}
	dir = filepath.Dir(self)
	for _, name := range []string{coordinatorProgram, routerProgram, agentProgram} {
		if _, err := os.Stat(filepath.Join(dir, name)); errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("%s is not beside buddyctl in %s; run: make build", name, dir)
		}
	}
	return dir, nil
}
