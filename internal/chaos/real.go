package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/buddyring/buddyring/internal/freeport"
	"github.com/buddyring/buddyring/internal/history"
	"github.com/buddyring/buddyring/internal/process"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// realPool is that of the real agents, who see each other on loopback.
const realPool = "real"

// flagCoordinator is the flag of agents and routers that says whom they ask.
const flagCoordinator = "--coordinator"

// realPart are real agents and real routers, which find the leader as those of an
// installation do. Without agents there are no routers either.
type realPart struct {
	site   *site
	agents []*realAgent
	// services are what the agents' servers serve: probes connect to them.
	services []net.Listener
	serving  sync.WaitGroup
	routers  []*realRouter
	failed   chan error
}

// realProgram is an agent or a router, which can be started again.
type realProgram struct {
	*process.Process

	program process.Program
}

// realRouter is a router, and what has been seen of it.
type realRouter struct {
	realProgram

	name   string
	conn   *grpc.ClientConn
	client routerv1.RouterServiceClient

	mu sync.Mutex
	// runs is how often it was started again.
	runs int
	// at is the epoch and the revision of its last answer since then.
	at history.Position
	// stale are the answers that went back.
	stale []string
}

func (s *site) startReal(ctx context.Context, cfg Config) (r *realPart, err error) {
	r = &realPart{site: s, failed: make(chan error, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if cfg.Agents == 0 {
		return r, nil
	}
	for n := range cfg.Routers {
		if err := r.startRouter(ctx, "router-"+strconv.Itoa(n+1)); err != nil {
			return nil, err
		}
	}
	for n := range cfg.Agents {
		if err := r.startAgent(ctx, n); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *realPart) startRouter(ctx context.Context, name string) error {
	address, err := freeport.Find(ctx)
	if err != nil {
		return err
	}
	conn, err := r.site.dial(address)
	if err != nil {
		return err
	}
	router := &realRouter{
		realProgram: r.program("buddyring-router", name, "--id", name, "--listen", address),
		name:        name, conn: conn, client: routerv1.NewRouterServiceClient(conn),
	}
	r.routers = append(r.routers, router)
	return r.start(&router.realProgram)
}

func (r *realPart) startAgent(ctx context.Context, n int) error {
	host, id := "127.0.1."+strconv.Itoa(n+1), "real-"+strconv.Itoa(n+1)
	lis, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return fmt.Errorf("serve at %s: %w", host, err)
	}
	r.services = append(r.services, lis)
	r.serving.Go(func() { serve(lis) })
	_, port, err := net.SplitHostPort(lis.Addr().String())
	if err != nil {
		return err
	}
	agent := newRealAgent(r.program("buddyring-agent", id, "--id", id, "--pool", realPool,
		"--probe-address", host, "--probe", "tcp://:"+port, "--endpoint", "http="+lis.Addr().String()))
	r.agents = append(r.agents, agent)
	return r.start(&agent.realProgram)
}

// serve lets everybody connect, until the listener is closed.
func serve(lis net.Listener) {
	for {
		conn, err := lis.Accept()
		if err != nil {
			return
		}
		_ = conn.Close() // there is nothing to say
	}
}

func (r *realPart) program(path, name string, args ...string) realProgram {
	return realProgram{program: process.Program{
		Name: name, Path: filepath.Join(r.site.bin, path), Log: filepath.Join(r.site.dir, name+".log"),
		Args: append(args, flagCoordinator, strings.Join(r.site.addresses(), ","), "--http-listen", "127.0.0.1:0",
			"--state-dir", filepath.Join(r.site.dir, name)),
	}}
}

// start starts a program, again with the state that it has on disk.
func (r *realPart) start(p *realProgram) (err error) {
	p.Process, err = process.Start(here{}, p.program, func(err error) {
		select {
		case r.failed <- err:
		default: // one is enough
		}
	})
	return err
}

// restart starts a router that was killed.
func (r *realPart) restart(router *realRouter) error {
	router.mu.Lock()
	router.runs++
	router.at = history.Position{} // it has what was on its disk
	router.mu.Unlock()
	return r.start(&router.realProgram)
}

// turnTo starts an agent and a router again, which ask a coordinator before the others.
func (r *realPart) turnTo(coordinator string) error {
	if len(r.agents) == 0 {
		return nil
	}
	agent := r.agents[len(r.agents)-1]
	agent.Kill()
	agent.turn(coordinator)
	err := r.start(&agent.realProgram)
	if len(r.routers) > 0 {
		router := r.routers[len(r.routers)-1]
		router.Kill()
		router.turn(coordinator)
		err = errors.Join(err, r.restart(router))
	}
	return err
}

// turn makes a program ask a coordinator before the others.
func (p *realProgram) turn(coordinator string) {
	at := slices.Index(p.program.Args, flagCoordinator) + 1
	others := strings.Split(p.program.Args[at], ",")
	others = slices.DeleteFunc(others, func(other string) bool { return other == coordinator })
	p.program.Args[at] = strings.Join(append([]string{coordinator}, others...), ",")
}

// watch looks at agents and routers all the time, until ctx ends: what one holds, or
// answers, never goes back.
func (r *realPart) watch(ctx context.Context) {
	for ctx.Err() == nil {
		for _, agent := range r.agents {
			agent.look()
		}
		for _, router := range r.routers {
			router.look(ctx)
		}
		sleep(ctx, lookInterval)
	}
}

func (router *realRouter) look(ctx context.Context) {
	router.mu.Lock()
	asked := router.runs
	router.mu.Unlock()
	res, err := router.resolve(ctx, realPool)
	if err != nil {
		return
	}
	router.mu.Lock()
	defer router.mu.Unlock()
	if router.runs != asked {
		return
	}
	before := router.at
	router.at = history.Position{Epoch: res.GetFreshness().GetEpoch(), Revision: res.GetFreshness().GetRevision()}
	if router.at.Epoch < before.Epoch || router.at.Revision < before.Revision {
		router.stale = append(router.stale, fmt.Sprintf("%s answers of epoch %d, revision %d after one of epoch %d, revision %d",
			router.name, router.at.Epoch, router.at.Revision, before.Epoch, before.Revision))
	}
}

func (router *realRouter) resolve(ctx context.Context, pool string) (*routerv1.ResolveResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	return router.client.Resolve(ctx, &routerv1.ResolveRequest{Pool: pool})
}

// staleEffects are what agents and routers have held, or answered, that went back.
func (r *realPart) staleEffects() (all []string, err error) {
	for _, agent := range r.agents {
		stale, failed := agent.staleSessions()
		all, err = append(all, stale...), errors.Join(err, failed)
	}
	for _, router := range r.routers {
		router.mu.Lock()
		all = append(all, router.stale...)
		router.mu.Unlock()
	}
	return all, err
}

// follow waits until the routers serve all the agents' servers as a leader of an
// epoch tells them to. Without routers there is nothing to wait for.
func (r *realPart) follow(ctx context.Context, epoch uint64, routers ...*realRouter) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("a router does not follow the leader"))
	defer cancel()
	for _, router := range routers {
		for {
			last := r.follows(ctx, router, epoch)
			if last == nil {
				break
			}
			select {
			case err := <-r.failed:
				return err
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				return errors.Join(context.Cause(ctx), last)
			}
		}
	}
	return nil
}

func (r *realPart) follows(ctx context.Context, router *realRouter, epoch uint64) error {
	res, err := router.resolve(ctx, realPool)
	if err != nil {
		return err
	}
	well := 0
	for _, s := range res.GetServers() {
		if s.GetState() == routerv1.State_STATE_ACTIVE {
			well++
		}
	}
	if f := res.GetFreshness(); f.GetStale() || f.GetEpoch() < epoch || well != len(r.agents) {
		return fmt.Errorf("%s has %d of %d servers, of epoch %d, stale: %v", router.name, well, len(r.agents), f.GetEpoch(), f.GetStale())
	}
	return nil
}

// crashes tells of a program that has ended by itself.
func (r *realPart) crashes() error {
	select {
	case err := <-r.failed:
		return err
	default:
		return nil
	}
}

// avoids reports whether a router sends nobody to a server.
func (router *realRouter) avoids(ctx context.Context, pool, id string) bool {
	res, err := router.resolve(ctx, pool)
	return err == nil && !slices.ContainsFunc(res.GetServers(), func(s *routerv1.Server) bool {
		return s.GetServerId() == id && s.GetState() == routerv1.State_STATE_ACTIVE
	})
}

func (r *realPart) close() error {
	var errs []error
	for _, p := range r.programs() {
		p.Kill()
	}
	for _, lis := range r.services {
		errs = append(errs, lis.Close())
	}
	r.serving.Wait()
	for _, router := range r.routers {
		errs = append(errs, router.conn.Close())
	}
	return errors.Join(errs...)
}

func (r *realPart) programs() []*realProgram {
	var all []*realProgram
	for _, agent := range r.agents {
		all = append(all, &agent.realProgram)
	}
	for _, router := range r.routers {
		all = append(all, &router.realProgram)
	}
	return slices.DeleteFunc(all, func(p *realProgram) bool { return p.Process == nil })
}
