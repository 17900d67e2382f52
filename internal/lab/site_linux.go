package lab

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"google.golang.org/grpc"

	"github.com/buddyring/buddyring/internal/netlab"
	"github.com/buddyring/buddyring/internal/process"
	"github.com/buddyring/buddyring/internal/rpc"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// Pool is the pool that all servers of a site are in.
const Pool = "default"

// agentPort is the coordinators' port for agents and routers, dnsPort the routers'
// for DNS.
const (
	agentPort = 7400
	dnsPort   = 7553
)

// Config describes a site.
type Config struct {
	// Bin is the folder of the programs, Dir an empty one for their files.
	Bin, Dir string
	// Hosts are the names of the hosts that servers may run on.
	Hosts []string
	// Routers is how many routers there are; with DNS they answer that, too.
	Routers int
	DNS     bool
	// Coordinators is how many coordinators there are, each on a host of its own; one
	// if it is 0. Several need a Store that they can share.
	Coordinators int
	// Store is the coordinators' --store; a SQLite file in Dir if empty.
	Store string
	// StoreFlags are further flags of the coordinators, for their store.
	StoreFlags []string
	// Prepare, if not nil, is called when the network is there and nothing runs on
	// it yet.
	Prepare func(*Site) error
	// CA is a folder of "buddyctl ca" with certificates for the coordinators, the
	// routers, the agents, and Operator. Without it nothing is secured.
	CA string
}

// Operator is the administrator that a site's own questions come from.
const Operator = "ann"

// tls returns the certificate files of a name of "buddyctl ca issue".
func (c Config) tls(name string) rpc.Security {
	if c.CA == "" {
		return rpc.Security{Insecure: true}
	}
	return rpc.Security{
		CertFile: filepath.Join(c.CA, name+".crt"), KeyFile: filepath.Join(c.CA, name+".key"),
		CAFile: filepath.Join(c.CA, "ca.crt"),
	}
}

// security are the flags for that.
func (c Config) security(name string) []string {
	s := c.tls(name)
	if s.Insecure {
		return []string{"--insecure"}
	}
	return []string{"--tls-cert", s.CertFile, "--tls-key", s.KeyFile, "--tls-ca", s.CAFile}
}

// Site is a network with coordinators and routers. Its methods may be called
// at the same time, but not two about the same program.
type Site struct {
	cfg          Config
	lab          *netlab.Lab
	coordinators []*Coordinator
	routers      []*router

	mu sync.Mutex
	// leader is the coordinator that led when Leader was last asked.
	leader *Coordinator
	// all are all processes ever started.
	all []*process.Process
	// troubles are programs that have ended by themselves.
	troubles []error
}

// router is a router and the connection to it.
type router struct {
	listener *net.TCPListener
	conn     *grpc.ClientConn
	process  *process.Process
}

// New builds the network and starts the coordinators and the routers.
func New(cfg Config) (*Site, error) {
	s := &Site{cfg: cfg}
	if err := s.start(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Site) start() (err error) {
	hosts := slices.Clone(s.cfg.Hosts)
	for i := range max(1, s.cfg.Coordinators) {
		hosts = append(hosts, coordinatorName(i))
	}
	for i := range s.cfg.Routers {
		hosts = append(hosts, routerName(i))
	}
	if s.lab, err = netlab.New(netlab.Config{Hosts: hosts}); err != nil {
		return err
	}
	if err := s.startCoordinators(); err != nil {
		return err
	}
	for i := range s.cfg.Routers {
		r := &router{}
		s.routers = append(s.routers, r)
		if r.listener, r.conn, err = s.open(rpc.RoleRouter); err != nil {
			return err
		}
		if err := s.StartRouter(i); err != nil {
			return err
		}
	}
	return nil
}

func routerName(i int) string { return fmt.Sprintf("router-%d", i+1) }

// open opens a listener in the caller's network and a connection to it.
func (s *Site) open(role rpc.Role) (*net.TCPListener, *grpc.ClientConn, error) {
	lis, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, nil, fmt.Errorf("open listener: %w", err)
	}
	quiet := slog.New(slog.DiscardHandler)
	credentials, err := rpc.NewCredentials(s.cfg.tls("admin-"+Operator), quiet)
	if err != nil {
		return nil, nil, errors.Join(err, lis.Close())
	}
	conn, err := rpc.Dial(rpc.DialConfig{
		Addresses: []string{lis.Addr().String()}, Credentials: credentials, ServerRole: role, Logger: quiet,
	})
	if err != nil {
		return nil, nil, errors.Join(err, lis.Close())
	}
	return lis, conn, nil
}

// StartRouter starts a router, again with the same state.
func (s *Site) StartRouter(i int) error {
	name := routerName(i)
	args := append([]string{
		"--coordinator", s.addresses(), "--id", name,
		"--state-dir", filepath.Join(s.cfg.Dir, name), "--http-listen", "127.0.0.1:7502",
	}, s.cfg.security("router-"+name)...)
	if s.cfg.DNS {
		args = append(args, "--dns-listen", s.DNSAddress(i))
	}
	p, err := s.run(name, process.Program{
		Name: name, Path: filepath.Join(s.cfg.Bin, "buddyring-router"), Args: args,
		Listeners: []process.Listener{{Name: "grpc", Listener: s.routers[i].listener}},
	})
	if err != nil {
		return err
	}
	s.routers[i].process = p
	return nil
}

// RouterProcess is a running router.
func (s *Site) RouterProcess(i int) *process.Process { return s.routers[i].process }

// run starts a program on a host.
func (s *Site) run(host string, p process.Program) (*process.Process, error) {
	p.Log = filepath.Join(s.cfg.Dir, p.Name+".log")
	p.Args = append(p.Args, "--log-format", "text")
	proc, err := process.Start(s.lab.Host(host), p, func(err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.troubles = append(s.troubles, err)
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, proc)
	return proc, nil
}

// Troubles are the programs that have ended by themselves.
func (s *Site) Troubles() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.troubles...)
}

// Router is a router's API.
func (s *Site) Router(i int) routerv1.RouterServiceClient {
	return routerv1.NewRouterServiceClient(s.routers[i].conn)
}

// RouterAddress is where clients reach a router from outside.
func (s *Site) RouterAddress(i int) string { return s.routers[i].listener.Addr().String() }

// DNSAddress is where clients inside ask a router by DNS.
func (s *Site) DNSAddress(i int) string {
	return netip.AddrPortFrom(s.lab.Host(routerName(i)).Addr(), dnsPort).String()
}

// Host is a host of the network.
func (s *Site) Host(name string) *netlab.Host { return s.lab.Host(name) }

// Agent is a server's agent and what it keeps on disk.
type Agent struct {
	*process.Process
	// Server is the id, Host where it runs.
	Server, Host string
	site         *Site
}

// AgentConfig says what an agent speaks for.
type AgentConfig struct {
	// Server is the id; Host where it runs, the host of that name if empty.
	Server, Host string
	// State names its state directory and log; Server if empty. Agents of one
	// name share them.
	State string
	Rack  string
	// Boot says that the host has just booted: with a new boot id. Boot ids
	// belong to State, too.
	Boot bool
	// Dir is the state directory itself, where that is to be elsewhere.
	Dir string
	// Endpoints are as the agent's --endpoint; port 8080 of the host if empty.
	Endpoints []string
}

// StartAgent starts an agent.
func (s *Site) StartAgent(c AgentConfig) (*Agent, error) {
	if c.Host == "" {
		c.Host = c.Server
	}
	if c.State == "" {
		c.State = c.Server
	}
	if c.Dir == "" {
		c.Dir = s.StateDir(c.State)
	}
	host := s.lab.Host(c.Host)
	if len(c.Endpoints) == 0 {
		c.Endpoints = []string{netip.AddrPortFrom(host.Addr(), 8080).String()}
	}
	bootID := filepath.Join(s.cfg.Dir, c.State+".boot-id")
	if _, err := os.Stat(bootID); c.Boot || err != nil {
		if err := os.WriteFile(bootID, []byte(rand.Text()+"\n"), 0o600); err != nil {
			return nil, fmt.Errorf("write boot id: %w", err)
		}
	}
	args := append([]string{
		"--coordinator", s.addresses(), "--pool", Pool, "--id", c.Server, "--probe-address", host.Addr().String(),
		"--zone", "zone", "--rack", c.Rack, "--state-dir", c.Dir, "--boot-id-file", bootID,
		"--http-listen", "127.0.0.1:0", "--on-term", "leave",
	}, s.cfg.security("agent-"+Pool+"."+c.Server)...)
	for _, e := range c.Endpoints {
		args = append(args, "--endpoint", e)
	}
	p, err := s.run(c.Host, process.Program{
		Name: "agent-" + c.State, Path: filepath.Join(s.cfg.Bin, "buddyring-agent"), Args: args,
	})
	if err != nil {
		return nil, err
	}
	return &Agent{Process: p, Server: c.Server, Host: c.Host, site: s}, nil
}

// StateDir is the state directory of the agents of that name.
func (s *Site) StateDir(state string) string { return filepath.Join(s.cfg.Dir, "agent-"+state) }

// Log returns the end of a program's log, for people.
func (s *Site) Log(name string) string {
	const enough = 4000
	text, err := os.ReadFile(filepath.Join(s.cfg.Dir, name+".log"))
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-enough):])
}

// Crash pulls the cable of the agent's host and then kills the agent.
func (a *Agent) Crash() error {
	if err := a.site.Host(a.Host).LinkDown(); err != nil {
		return err
	}
	a.Kill()
	return nil
}

// Close ends everything.
func (s *Site) Close() error {
	s.mu.Lock()
	all := s.all
	s.mu.Unlock()
	for _, p := range all {
		p.Kill()
	}
	var errs []error
	for _, r := range s.routers {
		if r.conn != nil {
			errs = append(errs, r.conn.Close(), r.listener.Close())
		}
	}
	for _, c := range s.coordinators {
		if c.conn != nil {
			errs = append(errs, c.conn.Close(), c.admin.Close())
		}
	}
	if s.lab != nil {
		errs = append(errs, s.lab.Close())
	}
	return errors.Join(errs...)
}
