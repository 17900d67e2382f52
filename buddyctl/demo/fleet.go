package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/buddyring/buddyring/internal/process"
)

// The programs beside buddyctl.
const (
	coordinatorProgram = "buddyring-coordinator"
	routerProgram      = "buddyring-router"
	agentProgram       = "buddyring-agent"
)

// agentPort is the coordinator's port for agents and routers.
const agentPort = 7400

// fleet are all programs of the demo. It is for one goroutine.
type fleet struct {
	stage stage
	// bin is where the programs are, dir where their files go.
	bin, dir string
	// fail is told when a program ends by itself.
	fail  func(death)
	doors *doors
	// agents is where agents and routers reach the coordinator.
	agents netip.AddrPort
	procs  map[string]*process.Process
	hosts  map[string]*host
}

// death is the end of a program that nobody here has ended.
type death struct {
	// host is whose agent it was, "" for other programs.
	host string
	err  error
}

// host is one server's machine.
type host struct {
	name    string
	place   place
	service *service
	at      netip.AddrPort
	agent   *process.Process
	zone    string
	rack    string
}

func newFleet(st stage, bin, dir string, servers []string) *fleet {
	f := &fleet{
		stage: st, bin: bin, dir: dir,
		procs: make(map[string]*process.Process), hosts: make(map[string]*host),
	}
	for i, name := range servers {
		// Two zones, and three racks in each.
		zone := string(rune('a' + i%2))
		f.hosts[name] = &host{name: name, place: st.Place(name), zone: zone, rack: zone + strconv.Itoa(i/2%3+1)}
	}
	return f
}

// startCoordinator starts the coordinator. Agents reach it inside the stage, the
// caller's shell by the doors.
func (f *fleet) startCoordinator(ctx context.Context) error {
	at := f.stage.Place(coordinatorPlace)
	args := []string{
		"--store", "sqlite:" + filepath.Join(f.dir, "buddyring.db"),
		"--state-dir", filepath.Join(f.dir, coordinatorPlace),
		"--log-format", "text",
	}
	listeners := []process.Listener{{Name: "admin", Listener: f.doors.admin}, {Name: "http", Listener: f.doors.coordinatorHTTP}}
	if at.Addr().IsLoopback() {
		lis, err := openNext(ctx, agentPort)
		if err != nil {
			return err
		}
		defer func() { _ = lis.Close() }() // the coordinator has its own by then
		f.agents = addrPort(lis)
		args = append(args, "--allow-local-addresses")
		listeners = append(listeners, process.Listener{Name: "agent", Listener: lis})
	} else {
		f.agents = netip.AddrPortFrom(at.Addr(), agentPort)
		args = append(args, "--listen", f.agents.String(), "--insecure")
	}
	return f.start(coordinatorPlace, coordinatorProgram, args, listeners)
}

func (f *fleet) startRouter() error {
	args := []string{
		"--coordinator", f.agents.String(), "--insecure",
		"--id", routerID,
		"--state-dir", filepath.Join(f.dir, routerPlace),
		"--log-format", "text",
	}
	listeners := []process.Listener{{Name: "grpc", Listener: f.doors.router}, {Name: "http", Listener: f.doors.routerHTTP}}
	if f.doors.dns != nil {
		args = append(args, "--dns-listen", f.doors.dns.Addr().String())
		listeners = append(listeners, process.Listener{Name: "dns", Listener: f.doors.dns},
			process.Listener{Name: "dns-udp", Listener: f.doors.dnsPackets})
	}
	return f.start(routerPlace, routerProgram, args, listeners)
}

// start starts a program that is one of its kind, at the place of that name.
func (f *fleet) start(name, binary string, args []string, listeners []process.Listener) error {
	proc, err := process.Start(f.stage.Place(name), process.Program{
		Name: name, Path: filepath.Join(f.bin, binary), Args: args, Listeners: listeners,
		Log: filepath.Join(f.dir, name+".log"),
	}, func(err error) { f.fail(death{err: err}) })
	if err != nil {
		return err
	}
	f.procs[name] = proc
	return nil
}

// Boot starts a host; see scene.
func (f *fleet) Boot(name string) error {
	h := f.hosts[name]
	if err := h.place.Revive(); err != nil {
		return err
	}
	if err := os.MkdirAll(f.state(h), 0o700); err != nil {
		return fmt.Errorf("boot %s: %w", name, err)
	}
	if err := os.WriteFile(f.bootID(h), []byte(rand.Text()+"\n"), 0o600); err != nil {
		return fmt.Errorf("boot %s: %w", name, err)
	}
	lis, err := h.place.Serve(context.Background())
	if err != nil {
		return err
	}
	at, err := netip.ParseAddrPort(lis.Addr().String())
	if err != nil {
		return fmt.Errorf("boot %s: %w", name, errors.Join(err, lis.Close()))
	}
	h.service, h.at = serve(name, lis), at
	return f.StartAgent(name)
}

func (f *fleet) state(h *host) string { return filepath.Join(f.dir, h.name) }

func (f *fleet) bootID(h *host) string { return filepath.Join(f.dir, h.name+".boot-id") }

// StartAgent starts the agent of a host; see scene.
func (f *fleet) StartAgent(name string) error {
	h := f.hosts[name]
	proc, err := process.Start(h.place, process.Program{
		Name: "the agent of " + name, Path: filepath.Join(f.bin, agentProgram),
		Args: []string{
			"--coordinator", f.agents.String(), "--insecure",
			"--pool", pool, "--id", name,
			"--endpoint", "http=" + h.at.String(), "--endpoint", "grpc=" + h.at.String(), "--probe-address", h.at.Addr().String(),
			"--probe", f.stage.Probe(h.at),
			"--zone", h.zone, "--rack", h.rack,
			"--state-dir", f.state(h), "--boot-id-file", f.bootID(h),
			"--http-listen", "127.0.0.1:0",
			"--on-term", "leave", "--log-format", "text",
		},
		Log: filepath.Join(f.dir, name+".log"),
	}, func(err error) { f.fail(death{name, err}) })
	if err != nil {
		return err
	}
	h.agent = proc
	return nil
}

// Crash silences a host; see scene.
func (f *fleet) Crash(name string) error {
	h := f.hosts[name]
	if err := h.place.Silence(h.agent); err != nil {
		return fmt.Errorf("crash %s: %w", name, err)
	}
	h.service.close()
	return nil
}

// Shutdown ends an agent normally; see scene.
func (f *fleet) Shutdown(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, removePatience, errors.New("it got SIGTERM and did not leave in time"))
	defer cancel()
	return f.hosts[name].agent.Terminate(ctx)
}

// PowerOff stops a service; see scene.
func (f *fleet) PowerOff(name string) { f.hosts[name].service.close() }

// HasLeft reports whether a dead agent has made its server leave the pool.
func (f *fleet) HasLeft(d death) bool {
	h := f.hosts[d.host]
	return h != nil && h.agent.ExitCode() == 0
}

// Reboot starts a host again whose server has left.
func (f *fleet) Reboot(name string) error {
	f.PowerOff(name)
	return f.Boot(name)
}

// KillAgent kills an agent; see scene.
func (f *fleet) KillAgent(name string) error {
	f.hosts[name].agent.Kill()
	return nil
}

// close ends everything at once.
func (f *fleet) close() error {
	for _, h := range f.hosts {
		if h.agent != nil {
			h.agent.Kill()
		}
		if h.service != nil {
			h.service.close()
		}
	}
	for _, p := range f.procs {
		p.Kill()
	}
	return f.stage.Close()
}

func addrPort(lis net.Listener) netip.AddrPort {
	return netip.MustParseAddrPort(lis.Addr().String())
}

// siblings finds the programs beside this one. Where the kernel's name for this
// program leads nowhere, as in a chroot with mounts of its own, the name by
// which it was called does.
func siblings() (dir string, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the programs: %w", err)
	}
	missing := absent(filepath.Dir(self))
	if missing == "" {
		return filepath.Dir(self), nil
	}
	if called, err := exec.LookPath(os.Args[0]); err == nil && absent(filepath.Dir(called)) == "" {
		return filepath.Abs(filepath.Dir(called))
	}
	return "", fmt.Errorf("%s is not beside buddyctl in %s; run: make build", missing, filepath.Dir(self))
}

// absent returns the first program that is not in dir, or "".
func absent(dir string) string {
	for _, name := range []string{coordinatorProgram, routerProgram, agentProgram} {
		if _, err := os.Stat(filepath.Join(dir, name)); errors.Is(err, os.ErrNotExist) { //nolint:gosec // only looks, beside the program that the user called
			return name
		}
	}
	return ""
}
