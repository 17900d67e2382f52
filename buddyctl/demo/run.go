package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/buddyring/buddyring/buddyctl/output"
	"github.com/buddyring/buddyring/internal/rpc"
	"github.com/buddyring/buddyring/internal/version"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// The exit statuses of a run.
const (
	exitTrue        = 0
	exitUntrue      = 1
	exitInterrupted = 130
)

const (
	// startPatience is how long coordinator and router may take to answer.
	startPatience = 15 * time.Second
	// limit is what the whole story stays below.
	limit = 58 * time.Second
	// newsBacklog holds what is said while the story is busy.
	newsBacklog = 1024
)

// run is one run of the demo.
type run struct {
	options
	dir string
	w   io.Writer

	page  *page
	facts *Facts
	began time.Time

	// serving says that the story is over; a program that ends by itself is only
	// told then, through deaths.
	serving atomic.Bool
	deaths  chan death
}

// deathsBacklog holds the programs that ended while the page was busy. More than
// that go untold.
const deathsBacklog = 64

func (r *run) inNamespaces(ctx context.Context) int {
	return r.play(ctx, newNamespaces, "")
}

// onLoopback says why there are no hosts and goes on without.
func (r *run) onLoopback(ctx context.Context, why error) int {
	stage := func(servers []string) (stage, error) { return newLoopback(servers), nil }
	return r.play(ctx, stage, fmt.Sprintf("Everything runs on loopback (%v), and agents probe by TCP connect instead of ICMP. "+
		"A host that dies is a frozen agent and a port that answers nothing.", why))
}

func (r *run) play(ctx context.Context, newStage func([]string) (stage, error), note string) int {
	r.began = time.Now()
	r.deaths = make(chan death, deathsBacklog)
	r.page = &page{w: r.w, terminal: output.Detect(r.w, os.Getenv)}
	if r.json {
		r.page = &page{w: io.Discard}
	}
	r.facts = &Facts{Version: version.String(), Hosts: r.hosts}
	r.page.title(fmt.Sprintf("buddyring: %d servers that look after each other", r.hosts))
	r.page.blank()
	if note != "" {
		r.page.aside(note)
		r.page.blank()
	}
	interrupted := ctx
	err := r.perform(ctx, newStage)
	r.facts.Seconds = ms(time.Since(r.began)) / 1000
	switch {
	case interrupted.Err() != nil && !r.facts.OK:
		r.page.blank()
		r.page.text("Interrupted. Nothing is left behind.")
		return exitInterrupted
	case err != nil:
		r.facts.OK, r.facts.Reason = false, err.Error()
		r.page.blank()
		r.page.print(output.Red, 0, "This did not come true: "+err.Error())
		r.tellJSON()
		return exitUntrue
	}
	return exitTrue
}

// perform sets everything up, plays the story and takes everything down.
func (r *run) perform(ctx context.Context, newStage func([]string) (stage, error)) (err error) {
	bin, err := siblings()
	if err != nil {
		return err
	}
	servers := make([]string, r.hosts)
	for i := range servers {
		servers[i] = fmt.Sprintf("web-%d", i+1)
	}
	st, err := newStage(servers)
	if err != nil {
		return err
	}
	r.facts.Mode, r.facts.Probe = st.Mode()
	f := newFleet(st, bin, r.dir, servers)
	defer func() { err = errors.Join(err, f.close()) }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f.fail = func(d death) { r.lost(d, cancel) }
	if f.doors, err = openDoors(ctx, r.serve); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.doors.close()) }()
	r.facts.Listeners = f.doors.facts()
	r.introduce(f.doors)
	return r.connected(ctx, f, servers)
}

// lost hears of a program that has ended by itself: the end of the story, but not
// of serving.
func (r *run) lost(d death, end context.CancelCauseFunc) {
	if !r.serving.Load() {
		end(d.err)
		return
	}
	select {
	case r.deaths <- d:
	default:
	}
}

// introduce says what there is to see.
func (r *run) introduce(d *doors) {
	what := "Each server is a network namespace of its own on this machine: an address, a small HTTP service, " +
		"and an agent that pings two others, its buddies, by ICMP."
	if r.facts.Mode == modeLoopback {
		what = "Each server is a small HTTP service, and an agent that probes two others, its buddies."
	}
	r.page.text(what + " A client asks the router for a server and calls it, some 200 times a second.")
	for _, moved := range d.moved {
		r.page.text(moved)
	}
	r.page.blank()
}

// connected starts the coordinator and the router and plays the story against
// their APIs.
func (r *run) connected(ctx context.Context, f *fleet, servers []string) (err error) {
	adminConn, routerConn, err := dial(r.facts.Listeners)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, adminConn.Close(), routerConn.Close()) }()
	s := &story{
		admin: coordinatorv1.NewAdminServiceClient(adminConn), router: routerv1.NewRouterServiceClient(routerConn),
		scene: f, page: r.page, facts: r.facts, hosts: servers, started: r.began,
	}
	s.client = &client{router: s.router, call: get(f.stage.Place(clientPlace))}
	if err := r.startControl(ctx, f, s); err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	listenCtx, stop := context.WithCancel(groupCtx)
	feed := make(chan news, newsBacklog)
	s.news = feed
	group.Go(func() error {
		if err := listen(listenCtx, s.admin, s.router, feed); listenCtx.Err() == nil {
			return err
		}
		return nil
	})
	group.Go(func() error {
		defer stop()
		storyCtx, cancel := context.WithDeadlineCause(groupCtx, r.began.Add(limit), fmt.Errorf("the story was not over after %v", limit))
		defer cancel()
		return s.play(storyCtx)
	})
	if err := group.Wait(); err != nil {
		return because(ctx, err)
	}
	return r.finish(ctx, f)
}

// because prefers the reason for which a context was cancelled, such as a
// program that ended by itself, to what followed from it.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// startControl starts the coordinator and the router and waits for both.
func (r *run) startControl(ctx context.Context, f *fleet, s *story) error {
	if err := f.startCoordinator(ctx); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeoutCause(ctx, startPatience, fmt.Errorf("no answer within %v", startPatience))
	defer cancel()
	err := until(bounded, func(ctx context.Context) error {
		_, err := s.admin.GetStatus(ctx, &coordinatorv1.GetStatusRequest{})
		return err
	})
	if err != nil {
		return because(ctx, fmt.Errorf("start the coordinator: %w", err))
	}
	r.page.since(time.Since(r.began), "coordinator", "is up; its server table is in a SQLite file")
	if err := f.startRouter(); err != nil {
		return err
	}
	err = until(bounded, func(ctx context.Context) error {
		_, err := s.router.Resolve(ctx, &routerv1.ResolveRequest{Pool: pool})
		return err
	})
	if err != nil {
		return because(ctx, fmt.Errorf("start the router: %w", err))
	}
	r.page.since(time.Since(r.began), "router", "is up, and follows the table")
	return nil
}

func dial(to Listeners) (admin, router *grpc.ClientConn, err error) {
	quiet := slog.New(slog.DiscardHandler)
	credentials, err := rpc.NewCredentials(rpc.Security{}, quiet)
	if err != nil {
		return nil, nil, err
	}
	admin, err = rpc.Dial(rpc.DialConfig{
		Addresses: []string{to.Admin}, Credentials: credentials, ServerRole: rpc.RoleCoordinator, Logger: quiet,
	})
	if err != nil {
		return nil, nil, err
	}
	router, err = rpc.Dial(rpc.DialConfig{
		Addresses: []string{to.Router}, Credentials: credentials, ServerRole: rpc.RoleRouter, Logger: quiet,
	})
	if err != nil {
		return nil, nil, errors.Join(err, admin.Close())
	}
	return admin, router, nil
}
