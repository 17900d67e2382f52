package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/buddyring/buddyring/agent/prober"
	"github.com/buddyring/buddyring/internal/config"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/observe"
	"github.com/buddyring/buddyring/internal/quota"
	"github.com/buddyring/buddyring/internal/rpc"
	"github.com/buddyring/buddyring/internal/version"
)

// gcPercent trades a little CPU, of which collecting 2 MiB takes next to none,
// for a smaller process.
const gcPercent = 50

// Command returns the program buddyring-agent with its arguments. It runs until
// a signal or its context ends it, and logs to its error output. SIGTERM and
// SIGINT are handled as --on-term says, and a second one ends it at once; SIGHUP
// reads the configuration again.
func Command(args []string, signals <-chan os.Signal) *cobra.Command {
	root := newCommand(func(cmd *cobra.Command, o *options) error {
		level := new(slog.LevelVar)
		o.log.Var = level
		log, err := observe.NewLogger(cmd.ErrOrStderr(), o.log)
		if err != nil {
			return err
		}
		s, err := o.parse(log)
		if err != nil {
			return err
		}
		p := program{settings: s, args: args, signals: signals, systemd: newSystemd(), level: level, log: log}
		return p.run(cmd.Context())
	})
	root.SetArgs(args)
	return root
}

func newCommand(run func(*cobra.Command, *options) error) *cobra.Command {
	var o options
	root := &cobra.Command{
		Use:           "buddyring-agent",
		Short:         "Watch two servers of a pool and speak for this one",
		Version:       version.String(),
		Args:          config.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return run(cmd, &o) },
	}
	o.define(root)
	root.AddCommand(config.ValidateCommand(func() error {
		log, err := observe.NewLogger(root.ErrOrStderr(), o.log)
		if err != nil {
			return err
		}
		_, err = o.parse(log)
		return err
	}))
	config.Bind(root, "BUDDYRING_AGENT")
	return root
}

// program is an agent with everything around it.
type program struct {
	settings

	args    []string
	signals <-chan os.Signal
	systemd systemd
	level   *slog.LevelVar
	log     *slog.Logger
}

// run serves until a signal or ctx ends it. It fails where the server was to
// leave its pool and did not.
func (p *program) run(ctx context.Context) (err error) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	health := prober.SelfTest(ctx, p.log)
	if err := p.judge(health); err != nil {
		return err
	}
	disk, err := p.openDisk()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	probes := prober.New(prober.Config{Mode: health.Mode, Logger: p.log})
	defer probes.Wait()
	registry := observe.NewRegistry("agent")
	p.credentials.Register(registry)
	agent, err := New(p.agent, Deps{
		Dial: p.dial, Route: newRoutes(p.allowLocal).find, Prober: probes, Loopback: health.Loopback,
		Store: disk, OnRemoved: onRemoved(p.onRemoved), Registry: registry, Logger: p.log,
	})
	if err != nil {
		return err
	}
	lis, err := p.credentials.Listen(ctx, "http", p.httpListen)
	if err != nil {
		return err
	}
	lis = quota.NewGuard(registry, p.log).Listener(lis, "http", quota.Few())
	pages := observe.NewHTTP(observe.HTTPConfig{
		TLS: p.credentials.HTTPConfig(), Registry: registry, Ready: agent.Ready, Says: agent.Says, Logger: p.log,
	})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return pages.Serve(ctx, lis) })
	work.Go(func() error {
		defer cancel()
		return agent.Run(ctx)
	})
	work.Go(func() error {
		defer cancel()
		return p.obey(ctx, agent)
	})
	return work.Wait()
}

// openDisk waits as long as it takes, and says so: whoever went on without the lock
// could be a second agent of the server.
func (p *program) openDisk() (*Disk, error) {
	late := time.AfterFunc(diskTime, func() {
		p.log.Warn("the state directory does not answer, waiting for it", "directory", p.stateDir)
	})
	defer late.Stop()
	return OpenDisk(p.stateDir)
}

func (p *program) dial(address string) (Conn, error) {
	return rpc.Dial(rpc.DialConfig{
		Addresses: []string{address}, Credentials: p.credentials, ServerRole: rpc.RoleCoordinator, Logger: p.log, FixedWindows: true,
	})
}

// judge says what the self-test means. Without ICMP the agent can still serve
// in a pool that probes by TCP, and its own --probe tells whether it is in one.
func (p *program) judge(h prober.Health) error {
	for _, w := range h.Warnings {
		p.log.Warn("self-test", "finding", w)
	}
	switch {
	case h.Err == nil:
		p.log.Info("self-test passed", "icmp", h.Mode.String())
	case p.agent.Spec.Probe.Method == member.ProbeICMP:
		return h.Err
	default:
		p.log.Warn("icmp is not available, servers probed by it cannot be judged", "error", h.Err)
	}
	return nil
}

// speaker is the part of the agent that signals speak to.
type speaker interface {
	Leave(ctx context.Context, reason string) error
	Update(spec member.Spec)
	Recheck(ctx context.Context, checks []Check)
}

// obey handles signals until one of them ends the agent, or ctx does.
func (p *program) obey(ctx context.Context, agent speaker) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-p.signals:
			if s == syscall.SIGHUP {
				p.reload(ctx, agent)
				continue
			}
			return p.end(ctx, agent, s)
		}
	}
}

// end leaves the pool or does not, as --on-term says.
func (p *program) end(ctx context.Context, agent speaker, s os.Signal) error {
	if p.onTerm == onTermDetach || p.onTerm == onTermAuto && p.systemd.restarts(ctx) {
		p.log.Info("agent ends, its server stays in the pool", "signal", s.String())
		return nil
	}
	timeout := p.agent.DrainTimeout + p.leaveTimeout
	p.log.Info("agent ends, its server leaves the pool", "signal", s.String(), "timeout", timeout)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	left := make(chan error, 1)
	go func() { left <- agent.Leave(ctx, "the agent was "+s.String()) }()
	for {
		select {
		case err := <-left:
			return err
		case again := <-p.signals:
			if again == syscall.SIGHUP {
				continue
			}
			cancel()
			return errors.Join(errors.New("a second signal came before the server had left its pool"), <-left)
		}
	}
}

// reload reads the configuration again and takes over what can change: what
// the server says about itself, its checks, and the log level.
func (p *program) reload(ctx context.Context, agent speaker) {
	var fresh *options
	again := newCommand(func(_ *cobra.Command, o *options) error {
		fresh = o
		return nil
	})
	again.SetArgs(p.args)
	again.SetOut(io.Discard)
	again.SetErr(io.Discard)
	if err := again.ExecuteContext(ctx); err != nil || fresh == nil {
		p.log.Warn("configuration not reloaded", "error", err)
		return
	}
	// Nothing is taken over unless all of it is right.
	level := new(slog.LevelVar)
	fresh.log.Var = level
	_, err := observe.NewLogger(io.Discard, fresh.log)
	spec, specErr := fresh.parseSpec()
	checks, checkErr := parseChecks(fresh.checks)
	if err := errors.Join(err, specErr, checkErr); err != nil {
		p.log.Warn("configuration not reloaded", "error", err)
		return
	}
	p.level.Set(level.Level())
	agent.Update(spec)
	agent.Recheck(ctx, checks)
	p.log.Info("configuration reloaded")
}
