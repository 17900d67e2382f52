package doors

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/buddyring/buddyring/internal/lab"
	"github.com/buddyring/buddyring/internal/netlab"
)

// Config says what to do. All fields are needed.
type Config struct {
	// DNS says whether routers answer DNS, and HAProxy follows it. Without it only the
	// servers are restarted: nothing is acknowledged a time to live later then, which
	// would hide that a router says too early that its clients know.
	DNS bool
	// Bin is the folder of the programs, Dir an empty one for their files.
	Bin, Dir string
	// HAProxy is its sample configuration.
	HAProxy string
	// Servers is the size of the pool, at least 5.
	Servers int
	// Router and Coordinator are how long each is away.
	Router, Coordinator time.Duration
	// Progress hears of each experiment when it is over.
	Progress io.Writer
}

const (
	routers    = 2
	clientHost = "client"
	// patience is how long to wait for what must happen; far above what is normal.
	patience = time.Minute
)

// run is the experiments with one pool.
type run struct {
	*lab.Site

	cfg      Config
	servers  []string
	agents   map[string]*lab.Agent
	services map[string]*service
	loads    []*load
	// ends are what is to be ended, in reverse order.
	ends   []func() error
	report Report
	// begun is when the experiment began.
	begun time.Time

	mu sync.Mutex
	// troubles are programs that have ended by themselves.
	troubles []error
}

// Run makes the experiments. It fails where one did not take place as it was meant
// to, or a program ended by itself; requests that failed are in the report.
func Run(ctx context.Context, cfg Config) (_ *Report, err error) {
	r := &run{cfg: cfg, agents: map[string]*lab.Agent{}, services: map[string]*service{}}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.open(ctx); err != nil {
		return nil, err
	}
	doors := []func(context.Context) error{r.overLibraryGRPC, r.overLibraryHTTP, r.overXDS, r.overPick}
	if cfg.DNS {
		doors = append(doors, r.overHAProxy)
	}
	for _, door := range doors {
		if err := door(ctx); err != nil {
			return nil, err
		}
	}
	return &r.report, r.experiments(ctx)
}

// open starts everything but the clients, and waits until all is well.
func (r *run) open(ctx context.Context) error {
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return fmt.Errorf("look at the machine: %w", err)
	}
	r.report = Report{
		Date: time.Now().Format(time.DateOnly), Servers: r.cfg.Servers, Routers: routers, Callers: callers, DNS: r.cfg.DNS,
		Machine: fmt.Sprintf("%d cores, Linux %s", runtime.NumCPU(), strings.TrimSpace(string(kernel))),
	}
	for i := range r.cfg.Servers {
		r.servers = append(r.servers, "web-"+strconv.Itoa(i+1))
	}
	r.Site, err = lab.New(lab.Config{
		Bin: r.cfg.Bin, Dir: r.cfg.Dir, Hosts: append(slices.Clone(r.servers), clientHost), Routers: routers, DNS: r.cfg.DNS,
	})
	if err != nil {
		return err
	}
	r.atEnd(r.Close)
	for _, id := range r.servers {
		if err := errors.Join(r.startService(ctx, id), r.startAgent(id)); err != nil {
			return err
		}
	}
	r.atEnd(func() error {
		var errs []error
		for _, s := range r.services {
			errs = append(errs, s.close())
		}
		return errors.Join(errs...)
	})
	return r.settle(ctx)
}

// atEnd has something ended when all is over.
func (r *run) atEnd(end func() error) { r.ends = append(r.ends, end) }

// close ends everything, and tells of programs that have ended before.
func (r *run) close() error {
	for _, l := range r.loads {
		l.close()
	}
	var errs []error
	if r.Site != nil {
		errs = append(errs, r.Troubles())
	}
	r.mu.Lock()
	errs = append(errs, r.troubles...)
	r.mu.Unlock()
	for _, end := range slices.Backward(r.ends) {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}

// trouble takes that a program has ended by itself.
func (r *run) trouble(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.troubles = append(r.troubles, err)
}

// clients is the host that clients are on.
func (r *run) clients() *netlab.Host { return r.Host(clientHost) }

// startService starts what a server is there for, again if it has been stopped.
func (r *run) startService(ctx context.Context, id string) (err error) {
	r.services[id], err = serve(ctx, r.Host(id))
	return err
}

// restartService lets what is under way end first.
func (r *run) restartService(ctx context.Context, id string) error {
	if err := r.services[id].stop(ctx); err != nil {
		return fmt.Errorf("stop the service of %s: %w", id, err)
	}
	return r.startService(ctx, id)
}

func (r *run) startAgent(id string) (err error) {
	address := r.Host(id).Addr().String()
	r.agents[id], err = r.StartAgent(lab.AgentConfig{Server: id, Endpoints: []string{
		"http=http://" + net.JoinHostPort(address, httpPort), "grpc=grpc://" + net.JoinHostPort(address, grpcPort),
	}})
	return err
}

// settle waits until all servers are well.
func (r *run) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("the pool does not settle"))
	defer cancel()
	return r.AwaitSettled(ctx, r.servers)
}

// await waits for something that must happen.
func await(ctx context.Context, what string, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New(what+" does not happen"))
	defer cancel()
	return lab.Await(ctx, ask)
}

// begin lets clients use a door once a first request by it has come through.
func (r *run) begin(ctx context.Context, door string, caller func(n int) ask) error {
	first := caller(0)
	err := await(ctx, "the first request by "+door, func(ctx context.Context) error {
		_, err := first(ctx)
		return err
	})
	if err != nil {
		return err
	}
	r.loads = append(r.loads, start(ctx, door, caller))
	return nil
}

// over ends an experiment; the next one begins. What has happened between two
// belongs to the second.
func (r *run) over(e Experiment) {
	e.Seconds = time.Since(r.begun).Seconds()
	for _, l := range r.loads {
		e.Doors = append(e.Doors, l.take(r.begun))
	}
	r.begun = time.Now()
	r.report.Experiments = append(r.report.Experiments, e)
	_, _ = fmt.Fprintf(r.cfg.Progress, "%s: %.1f s\n", e.Name, e.Seconds) // it is only for those who wait
}
