package chaos

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/buddyring/buddyring/internal/relay"
	"github.com/buddyring/buddyring/internal/testdb"
)

// gates are one coordinator's ways to the servers of the database, in the order in
// which it tries them.
type gates []*gate

func newGates(servers []*testdb.Server) (gates, error) {
	var all gates
	for _, s := range servers {
		g, err := newGate(s.Socket())
		if err != nil {
			return nil, errors.Join(err, all.close())
		}
		all = append(all, g)
	}
	return all, nil
}

// url is the store's, through the gates.
func (all gates) url() string {
	sockets := make([]string, len(all))
	for i, g := range all {
		sockets[i] = g.socket()
	}
	return testdb.SocketURL(database, sockets...)
}

// inUse is the gate that something has passed last.
func (all gates) inUse() int {
	newest := 0
	for i, g := range all {
		if g.passed().After(all[newest].passed()) {
			newest = i
		}
	}
	return newest
}

// shut lets nothing pass and no connection break, as when a network loses
// everything.
func (all gates) shut() {
	for _, g := range all {
		g.Shut()
	}
}

func (all gates) open() {
	for _, g := range all {
		g.Open()
	}
}

// slow makes what passes late, each way.
func (all gates) slow(delay time.Duration) {
	for _, g := range all {
		g.Slow(delay, 0)
	}
}

func (all gates) close() error {
	var errs []error
	for _, g := range all {
		errs = append(errs, g.close())
	}
	return errors.Join(errs...)
}

// gate is one coordinator's way to a server.
type gate struct {
	*relay.Path

	dir   string
	relay *relay.Relay
}

func newGate(server string) (*gate, error) {
	// A socket's path must be short.
	dir, err := os.MkdirTemp("", "gate-")
	if err != nil {
		return nil, fmt.Errorf("make gate: %w", err)
	}
	g := &gate{Path: relay.To("unix", server), dir: dir}
	lis, err := net.Listen("unix", g.socket()) //nolint:noctx // it waits for nobody
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make gate: %w", err), os.RemoveAll(dir))
	}
	g.relay = relay.Start(lis, func(net.Addr) *relay.Path { return g.Path })
	return g, nil
}

func (g *gate) socket() string { return filepath.Join(g.dir, "sock") }

// passed is when something has passed last.
func (g *gate) passed() time.Time {
	there, back := g.There.Passed(), g.Back.Passed()
	if there.After(back) {
		return there
	}
	return back
}

func (g *gate) close() error { return errors.Join(g.relay.Close(), os.RemoveAll(g.dir)) }
