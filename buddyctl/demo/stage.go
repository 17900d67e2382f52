package demo

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os/exec"

	"github.com/buddyring/buddyring/internal/process"
)

// errNoHosts says that this machine cannot give every server a network of its
// own.
var errNoHosts = errors.New("no hosts of their own")

// The modes in Facts.
const (
	modeNamespaces = "namespaces"
	modeLoopback   = "loopback"
)

// The places of a stage besides the servers.
const (
	coordinatorPlace = "coordinator"
	routerPlace      = "router"
	clientPlace      = "client"
)

// servicePort is the port of the service on every host with an address of its
// own.
const servicePort = 8080

// stage is where everything runs.
type stage interface {
	// Place returns the place of that name; there is one for every server and
	// for each of the constants.
	Place(name string) place
	// Probe is how agents are to probe the service at an address, and Mode and
	// Method what that and the stage are called in Facts.
	Probe(service netip.AddrPort) string
	Mode() (mode, method string)
	Close() error
}

// place is a host, or what stands for one.
type place interface {
	Addr() netip.Addr
	// Start starts a program there.
	Start(cmd *exec.Cmd) error
	// Serve opens the listener of the place's service: the same address each
	// time.
	Serve(ctx context.Context) (net.Listener, error)
	Dial(ctx context.Context, network, address string) (net.Conn, error)
	// Silence makes the place dead to all others, at once; agent is the program
	// that dies with it.
	Silence(agent *process.Process) error
	// Revive undoes Silence.
	Revive() error
}
