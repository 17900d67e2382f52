package detect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/buddyring/buddyring/internal/lab"
	"github.com/buddyring/buddyring/internal/netlab"
)

// seeds is how many members a newcomer is told of.
const seeds = 3

// gossip is a memberlist cluster in a lab of its own, one process per host.
type gossip struct {
	lab    *netlab.Lab
	bin    string
	names  []string
	random *rand.Rand

	mu      sync.Mutex
	members map[string]*gossiper
	version string
	// down are the hosts that have crashed; what their processes say does not
	// count. wrong lists who called whom dead that was not.
	down  map[string]bool
	wrong []string
}

// gossiper is one process.
type gossiper struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	// sees is whom it takes for members; dead is when it called a member dead.
	sees map[string]bool
	dead map[string]time.Time
	// ready says that it has joined, broken why its output ended.
	ready  bool
	broken error
}

// heard is a line of its output; see bench/memberlist.
type heard struct {
	At   time.Time `json:"at"`
	Kind string    `json:"kind"`
	Node string    `json:"node"`
}

// newGossip starts a cluster and waits until all see all.
func newGossip(ctx context.Context, cfg PoolConfig) (_ *gossip, err error) {
	g := &gossip{
		bin: filepath.Join(cfg.Bin, "bench-memberlist"), names: names(cfg.Servers), random: chance(),
		members: make(map[string]*gossiper), down: make(map[string]bool),
	}
	if g.lab, err = netlab.New(netlab.Config{Hosts: g.names}); err != nil {
		return nil, err
	}
	for i, name := range g.names {
		if err := g.start(name, g.names[:min(i, seeds)]); err != nil {
			return nil, errors.Join(err, g.close())
		}
		if err := g.await(ctx, func() error { return g.members[g.names[0]].joined() }); err != nil {
			return nil, errors.Join(err, g.close())
		}
		if err := pause(ctx, startEvery); err != nil {
			return nil, errors.Join(err, g.close())
		}
	}
	if err := g.await(ctx, g.settled); err != nil {
		return nil, errors.Join(err, g.close())
	}
	return g, nil
}

// start starts a host's process.
func (g *gossip) start(name string, join []string) error {
	addresses := make([]string, len(join))
	for i, other := range join {
		addresses[i] = g.lab.Host(other).Addr().String()
	}
	host := g.lab.Host(name)
	cmd := exec.Command(g.bin, //nolint:noctx,gosec // it lives until it is killed; it was built for this
		"--name", name, "--bind", host.Addr().String(), "--join", strings.Join(addresses, ","))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start memberlist on %s: %w", name, err)
	}
	if err := host.Start(cmd); err != nil {
		return fmt.Errorf("start memberlist: %w", err)
	}
	m := &gossiper{name: name, cmd: cmd, done: make(chan struct{}), sees: make(map[string]bool), dead: make(map[string]time.Time)}
	g.mu.Lock()
	g.members[name] = m
	delete(g.down, name)
	g.mu.Unlock()
	go func() {
		defer close(m.done)
		err := g.listen(m, out)
		err = errors.Join(err, cmd.Wait())
		g.mu.Lock()
		defer g.mu.Unlock()
		m.broken = fmt.Errorf("memberlist on %s has ended: %w", name, err)
	}()
	return nil
}

// listen takes in what a process says, to its end.
func (g *gossip) listen(m *gossiper, out io.Reader) error {
	lines := json.NewDecoder(out)
	for {
		var h heard
		if err := lines.Decode(&h); err != nil {
			return err
		}
		g.hear(m, h)
	}
}

func (g *gossip) hear(m *gossiper, h heard) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch h.Kind {
	case "ready":
		m.ready, g.version = true, h.Node
	case "join":
		m.sees[h.Node] = true
		delete(m.dead, h.Node)
	case "leave":
		delete(m.sees, h.Node)
		m.dead[h.Node] = h.At
		if !g.down[h.Node] && !g.down[m.name] {
			g.wrong = append(g.wrong, h.Node+" by "+m.name)
		}
	}
}

func (m *gossiper) joined() error {
	switch {
	case m.broken != nil:
		return m.broken
	case !m.ready:
		return errors.New(m.name + " has not joined")
	}
	return nil
}

// settled says what is missing until all see all.
func (g *gossip) settled() error {
	for _, m := range g.members {
		if err := m.joined(); err != nil {
			return err
		}
		if len(m.sees) != len(g.names) {
			return fmt.Errorf("%s sees %d of %d members", m.name, len(m.sees), len(g.names))
		}
	}
	return nil
}

// await waits until ask, under the lock, finds nothing missing.
func (g *gossip) await(ctx context.Context, ask func() error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, settleTime, errors.New("the cluster does not settle"))
	defer cancel()
	return lab.Await(ctx, func(context.Context) error {
		g.mu.Lock()
		defer g.mu.Unlock()
		return ask()
	})
}

// crash crashes a host and waits until all others have called it dead.
func (g *gossip) crash(ctx context.Context, name, kind string) (first, last time.Time, err error) {
	g.mu.Lock()
	g.down[name] = true
	victim := g.members[name]
	g.mu.Unlock()
	if err := g.lab.Host(name).LinkDown(); err != nil {
		return first, last, err
	}
	if kind == KindHost {
		victim.kill()
	}
	err = g.await(ctx, func() error {
		first, last = time.Time{}, time.Time{}
		for _, m := range g.members {
			at, ok := m.dead[name]
			switch {
			case m == victim:
				continue
			case !ok:
				return fmt.Errorf("%s does not call %s dead", m.name, name)
			}
			if first.IsZero() || at.Before(first) {
				first = at
			}
			if at.After(last) {
				last = at
			}
		}
		return nil
	})
	return first, last, err
}

// back brings a crashed host back, rebooted, and waits until all see all.
func (g *gossip) back(ctx context.Context, name string, join []string) error {
	g.members[name].kill()
	if err := g.lab.Host(name).LinkUp(); err != nil {
		return err
	}
	if err := g.start(name, join); err != nil {
		return err
	}
	return g.await(ctx, g.settled)
}

// kill ends the process and waits for it. It may have ended already.
func (m *gossiper) kill() {
	_ = m.cmd.Process.Kill() // fails only if it has ended already
	<-m.done
}

func (g *gossip) close() error {
	for _, m := range g.members {
		m.kill()
	}
	return g.lab.Close()
}
