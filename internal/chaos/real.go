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
	"github.com/buddyring/buddyring/internal/process"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// realPool is that of the real agents, who see each other on loopback.
const realPool = "real"

// realPart are real agents and a real router, which find the leader as those of an
// installation do. Without agents there is no router either.
type realPart struct {
	site   *site
	agents int
	// services are what the agents' servers serve: their probes connect to them.
	services []net.Listener
	procs    []*process.Process
	conn     *grpc.ClientConn
	router   routerv1.RouterServiceClient
	failed   chan error

	mu sync.Mutex
	// stale are the answers of an epoch below that of an earlier one.
	stale []string
}

// watch asks the router all the time, until ctx ends. It keeps the epochs that it
// has seen: what it answers never goes back.
func (r *realPart) watch(ctx context.Context) {
	var highest uint64
	for r.agents > 0 && ctx.Err() == nil {
		within, cancel := context.WithTimeout(ctx, askTime)
		res, err := r.router.Resolve(within, &routerv1.ResolveRequest{Pool: realPool})
		cancel()
		if epoch := res.GetFreshness().GetEpoch(); err == nil && epoch < highest {
			r.mu.Lock()
			r.stale = append(r.stale, fmt.Sprintf("the router answers of epoch %d after one of %d", epoch, highest))
			r.mu.Unlock()
		} else {
			highest = max(highest, epoch)
		}
		sleep(ctx, readInterval)
	}
}

// staleAnswers are what watch has found.
func (r *realPart) staleAnswers() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.stale)
}

func (s *site) startReal(ctx context.Context, agents int) (r *realPart, err error) {
	r = &realPart{site: s, agents: agents, failed: make(chan error, agents+1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if agents == 0 {
		return r, nil
	}
	address, err := freeport.Find(ctx)
	if err != nil {
		return nil, err
	}
	all := strings.Join(s.addresses(), ",")
	if err := r.run("buddyring-router", "router", "--id", "router", "--coordinator", all, "--listen", address); err != nil {
		return nil, err
	}
	if r.conn, err = s.dial(address); err != nil {
		return nil, err
	}
	r.router = routerv1.NewRouterServiceClient(r.conn)
	for n := range agents {
		host := "127.0.1." + strconv.Itoa(n+1)
		lis, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			return nil, fmt.Errorf("serve at %s: %w", host, err)
		}
		r.services = append(r.services, lis)
		_, port, err := net.SplitHostPort(lis.Addr().String())
		if err != nil {
			return nil, err
		}
		id := "real-" + strconv.Itoa(n+1)
		err = r.run("buddyring-agent", id, "--coordinator", all, "--id", id, "--pool", realPool,
			"--probe-address", host, "--probe", "tcp://:"+port, "--endpoint", "http="+lis.Addr().String())
		if err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *realPart) run(program, name string, args ...string) error {
	proc, err := process.Start(here{}, process.Program{
		Name: name, Path: filepath.Join(r.site.bin, program), Log: filepath.Join(r.site.dir, name+".log"),
		Args: append(args, "--http-listen", "127.0.0.1:0", "--state-dir", filepath.Join(r.site.dir, name)),
	}, func(err error) { r.failed <- err })
	if err != nil {
		return err
	}
	r.procs = append(r.procs, proc)
	return nil
}

// follow waits until the router serves all the agents' servers as a leader of an
// epoch tells it to. Without agents there is nothing to wait for.
func (r *realPart) follow(ctx context.Context, epoch uint64) error {
	if r.agents == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("the router does not follow the leader"))
	defer cancel()
	var last error
	for ctx.Err() == nil {
		if last = r.follows(ctx, epoch); last == nil {
			return nil
		}
		select {
		case err := <-r.failed:
			return err
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return errors.Join(context.Cause(ctx), last)
}

func (r *realPart) follows(ctx context.Context, epoch uint64) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	res, err := r.router.Resolve(ctx, &routerv1.ResolveRequest{Pool: realPool})
	if err != nil {
		return err
	}
	well := 0
	for _, s := range res.GetServers() {
		if s.GetState() == routerv1.State_STATE_ACTIVE {
			well++
		}
	}
	if f := res.GetFreshness(); f.GetStale() || f.GetEpoch() < epoch || well != r.agents {
		return fmt.Errorf("the router has %d of %d servers, of epoch %d, stale: %v", well, r.agents, f.GetEpoch(), f.GetStale())
	}
	return nil
}

func (r *realPart) close() error {
	var errs []error
	for _, p := range r.procs {
		p.Kill()
	}
	for _, lis := range r.services {
		errs = append(errs, lis.Close())
	}
	if r.conn != nil {
		errs = append(errs, r.conn.Close())
	}
	return errors.Join(errs...)
}
