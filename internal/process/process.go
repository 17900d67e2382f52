// Package process runs programs as children: with listeners handed over by
// systemd's protocol for socket activation, with a log file each, and with a
// report when one ends that should not.
package process

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// lastWords is how many lines of its log are told of a program that ends by
// itself.
const lastWords = 3

// Place is where programs run.
type Place interface {
	// Start starts cmd.
	Start(cmd *exec.Cmd) error
}

// Listener is a listener or a UDP socket to hand over, by the name that the program
// asks for. The program may close it; the giver's own stays open.
type Listener struct {
	Name     string
	Listener interface{ File() (*os.File, error) }
}

// Program is what to run.
type Program struct {
	// Name is for people.
	Name string
	Path string
	Args []string
	// Env is added to the environment, from which everything that would
	// configure buddyring's programs is taken.
	Env       []string
	Listeners []Listener
	// Log is the file that its output is appended to.
	Log string
}

// Process is a running program. Its methods may be called at any time.
type Process struct {
	program Program
	cmd     *exec.Cmd
	// wanted says that it is meant to end.
	wanted atomic.Bool
	done   chan struct{}
	err    error
}

// Start starts a program. When it ends without Kill or Terminate, by an exit
// status of 0 too, failed is told how, with its last words.
func Start(at Place, p Program, failed func(error)) (*Process, error) {
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	defer func() { _ = log.Close() }()     // the child has its own
	cmd := exec.Command(p.Path, p.Args...) //nolint:noctx,gosec // it lives until it is ended; what runs is the caller's choice
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(environment(p.Listeners), p.Env...)
	for _, l := range p.Listeners {
		file, err := l.Listener.File()
		if err != nil {
			return nil, fmt.Errorf("start %s: hand over listener %s: %w", p.Name, l.Name, err)
		}
		defer func() { _ = file.Close() }() // the child has its own
		cmd.ExtraFiles = append(cmd.ExtraFiles, file)
	}
	if err := at.Start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	proc := &Process{program: p, cmd: cmd, done: make(chan struct{})}
	go func() {
		proc.err = cmd.Wait()
		close(proc.done)
		if !proc.wanted.Load() {
			failed(proc.obituary())
		}
	}()
	return proc, nil
}

// environment is this program's own without settings, and with the listeners.
func environment(listeners []Listener) []string {
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
	for i, l := range listeners {
		names[i] = l.Name
	}
	return append(env, "LISTEN_FDS="+strconv.Itoa(len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
}

// obituary says how it ended, with its last words.
func (p *Process) obituary() error {
	how := "exit status 0"
	if p.err != nil {
		how = p.err.Error()
	}
	text, err := os.ReadFile(p.program.Log)
	if err != nil || len(text) == 0 {
		return fmt.Errorf("%s ended by itself: %s", p.program.Name, how)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return fmt.Errorf("%s ended by itself: %s; its last words: %s", p.program.Name, how,
		strings.Join(lines[max(0, len(lines)-lastWords):], " | "))
}

// Signal sends a signal.
func (p *Process) Signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signal %s: %w", p.program.Name, err)
	}
	return nil
}

// Pid is its process id in this program's PID namespace.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when it has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// ExitCode is its exit status once it has ended, or -1 where a signal ended it.
func (p *Process) ExitCode() int {
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// Expect says that it is meant to end by itself, so that failed is not told.
func (p *Process) Expect() { p.wanted.Store(true) }

// Kill ends it by SIGKILL and returns when it has ended. It may have ended
// already.
func (p *Process) Kill() {
	p.Expect()
	_ = p.cmd.Process.Kill() // fails only if it has ended already
	<-p.done
}

// Terminate ends it by SIGTERM and returns when it has ended with exit status
// 0; anything else is an error.
func (p *Process) Terminate(ctx context.Context) error {
	p.Expect()
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		if p.err != nil {
			return p.obituary()
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s does not end: %w", p.program.Name, context.Cause(ctx))
	}
}
