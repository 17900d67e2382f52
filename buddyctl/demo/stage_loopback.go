//go:build unix

package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/buddyring/buddyring/internal/process"
)

// loopback is a stage without hosts: everything runs on 127.0.0.1, each service
// on a port of its own, and agents probe by TCP. A host that dies is a frozen
// agent and a port that answers nothing.
type loopback struct {
	places map[string]*loopbackPlace
}

func newLoopback(servers []string) *loopback {
	l := &loopback{places: make(map[string]*loopbackPlace)}
	for _, name := range append([]string{coordinatorPlace, routerPlace, clientPlace}, servers...) {
		l.places[name] = &loopbackPlace{}
	}
	return l
}

// Place returns a place.
func (l *loopback) Place(name string) place { return l.places[name] }

// Probe is by TCP, to the service itself.
func (l *loopback) Probe(service netip.AddrPort) string {
	return fmt.Sprintf("tcp://:%d", service.Port())
}

// Mode says what this is.
func (l *loopback) Mode() (mode, method string) { return modeLoopback, "tcp" }

// Close gives up all ports.
func (l *loopback) Close() error {
	var errs []error
	for _, p := range l.places {
		errs = append(errs, p.Revive())
	}
	return errors.Join(errs...)
}

// loopbackPlace stands for a host.
type loopbackPlace struct {
	mu sync.Mutex
	// service is the place's one listener and its address, which stays.
	service *mutable
	at      netip.AddrPort
	// frozen is the agent that Silence has stopped, and plugs are the
	// connections that keep the muted port full.
	frozen *process.Process
	plugs  []net.Conn
}

// Addr is the same for all places.
func (p *loopbackPlace) Addr() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 1}) }

// Start starts a program in a process group of its own.
func (p *loopbackPlace) Start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	return nil
}

// Dial dials.
func (p *loopbackPlace) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, address)
}

// Serve listens on a free port, and later on the same again.
func (p *loopbackPlace) Serve(ctx context.Context) (net.Listener, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.at.IsValid() {
		p.at = netip.AddrPortFrom(p.Addr(), 0)
	}
	lis, err := new(net.ListenConfig).Listen(ctx, "tcp", p.at.String())
	if err != nil {
		return nil, fmt.Errorf("listen on loopback: %w", err)
	}
	p.service, p.at = &mutable{Listener: lis}, netip.MustParseAddrPort(lis.Addr().String())
	return p.service, nil
}

// Silence freezes the agent, so that its streams fall silent instead of being
// closed by the kernel, and mutes the service.
func (p *loopbackPlace) Silence(agent *process.Process) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := agent.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	p.frozen = agent
	if p.service == nil {
		return nil
	}
	plugs, err := p.service.mute()
	p.plugs = plugs
	return err
}

// Revive ends the frozen agent and gives up the muted port.
func (p *loopbackPlace) Revive() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen == nil {
		return nil
	}
	p.frozen.Kill()
	p.frozen = nil
	var errs []error
	for _, c := range p.plugs {
		errs = append(errs, c.Close())
	}
	p.plugs = nil
	if p.service != nil {
		errs = append(errs, p.service.Listener.Close())
	}
	return errors.Join(errs...)
}

const (
	// plugTimeout tells a full backlog from a slow one, if plugTries connects in a
	// row are not answered within it: one may be late by other work of the machine.
	plugTimeout = 30 * time.Millisecond
	plugTries   = 3
	// maxPlugs is far more than a backlog of one takes on any system.
	maxPlugs = 512
)

// mutable is a TCP listener that can fall silent: its port stays taken, and
// connects to it are neither accepted nor refused.
type mutable struct {
	net.Listener
	mu    sync.Mutex
	muted bool
}

// Close closes the listener unless it is muted; then Revive does.
func (m *mutable) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.muted {
		return nil
	}
	return m.Listener.Close()
}

// mute stops accepting, makes the backlog as small as it can be and fills it.
// The kernel then drops what knocks.
func (m *mutable) mute() ([]net.Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.muted = true
	lis, ok := m.Listener.(*net.TCPListener)
	if !ok {
		return nil, errors.New("mute listener: not TCP")
	}
	if err := lis.SetDeadline(time.Unix(1, 0)); err != nil {
		return nil, fmt.Errorf("mute listener: %w", err)
	}
	raw, err := lis.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("mute listener: %w", err)
	}
	var listenErr error
	if err := raw.Control(func(fd uintptr) { listenErr = syscall.Listen(int(fd), 1) }); err != nil || listenErr != nil {
		return nil, fmt.Errorf("mute listener: %w", errors.Join(err, listenErr))
	}
	return plug(lis.Addr().String())
}

// plug fills the backlog of a port that accepts nobody.
func plug(address string) (plugs []net.Conn, err error) {
	unanswered := 0
	for range maxPlugs {
		conn, err := (&net.Dialer{Timeout: plugTimeout}).DialContext(context.Background(), "tcp", address)
		if err == nil {
			plugs, unanswered = append(plugs, conn), 0
		} else if unanswered++; unanswered == plugTries {
			return plugs, nil
		}
	}
	return plugs, errors.New("mute listener: the backlog does not fill")
}
