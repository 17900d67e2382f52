package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/buddyring/buddyring/internal/netlab"
	"github.com/buddyring/buddyring/internal/process"
)

// enterNamespaces runs inside where hosts can be built; see netlab.Enter. env
// is added to its environment. The error is errNoHosts where they cannot.
func enterNamespaces(ctx context.Context, env []string, inside func(context.Context) int) (int, error) {
	code, err := netlab.Enter(ctx, netlab.Entry{Env: env}, inside)
	if errors.Is(err, netlab.ErrUnavailable) {
		err = fmt.Errorf("%w: %w", errNoHosts, err)
	}
	return code, err
}

// namespaces is a stage of real hosts.
type namespaces struct {
	lab *netlab.Lab
}

func newNamespaces(servers []string) (stage, error) {
	lab, err := netlab.New(netlab.Config{
		Hosts: append(slices.Clone(servers), coordinatorPlace, routerPlace, clientPlace),
	})
	if err != nil {
		return nil, err
	}
	return namespaces{lab}, nil
}

func (n namespaces) Place(name string) place { return namespacePlace{n.lab.Host(name)} }

func (namespaces) Probe(netip.AddrPort) string { return "icmp" }

func (namespaces) Mode() (mode, method string) { return modeNamespaces, "icmp" }

func (n namespaces) Close() error { return n.lab.Close() }

// namespacePlace is one host.
type namespacePlace struct {
	*netlab.Host
}

// Serve listens on the host.
func (p namespacePlace) Serve(ctx context.Context) (net.Listener, error) {
	lis, err := p.Listen(ctx, "tcp", netip.AddrPortFrom(p.Addr(), servicePort).String())
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", p.Name(), err)
	}
	return lis, nil
}

// Silence pulls the cable and kills the agent, in this order: nobody hears of
// the death from the dead host's kernel.
func (p namespacePlace) Silence(agent *process.Process) error {
	if err := p.LinkDown(); err != nil {
		return err
	}
	agent.Kill()
	return nil
}

// Revive puts the cable back.
func (p namespacePlace) Revive() error { return p.LinkUp() }
