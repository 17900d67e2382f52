package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/buddyring/buddyring/internal/config"
	"github.com/buddyring/buddyring/internal/observe"
	"github.com/buddyring/buddyring/internal/rpc"
	"github.com/buddyring/buddyring/internal/version"
)

// Where the router listens unless told otherwise.
const (
	defaultPort     = 7500
	defaultHTTPPort = 7502
)

// Command returns the program buddyring-router with its arguments. It runs until
// its context ends, and logs to its error output. At each of hangups it reads its
// configuration again and takes over the log level.
func Command(args []string, hangups <-chan os.Signal) *cobra.Command {
	root := newCommand(func(cmd *cobra.Command, o *options) error {
		level := new(slog.LevelVar)
		o.log.Var = level
		log, err := observe.NewLogger(cmd.ErrOrStderr(), o.log)
		if err != nil {
			return err
		}
		cfg, credentials, err := o.parse(log)
		if err != nil {
			return err
		}
		registry := observe.NewRegistry("router")
		credentials.Register(registry)
		s, err := New(cfg, Deps{Credentials: credentials, Registry: registry, Logger: log})
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(cmd.Context())
		var work errgroup.Group
		work.Go(func() error {
			defer cancel()
			return s.Run(ctx)
		})
		config.OnHangup(ctx, hangups, log, func(ctx context.Context) error { return reload(ctx, args, level) })
		return work.Wait()
	})
	root.SetArgs(args)
	return root
}

func newCommand(run func(*cobra.Command, *options) error) *cobra.Command {
	var o options
	root := &cobra.Command{
		Use:           "buddyring-router",
		Short:         "Send clients to the live servers of a pool",
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
		_, _, err = o.parse(log)
		return err
	}))
	config.Bind(root, "BUDDYRING_ROUTER")
	return root
}

// reload sets the level to what the configuration says now, if all of it is
// right.
func reload(ctx context.Context, args []string, level *slog.LevelVar) error {
	again := newCommand(func(_ *cobra.Command, o *options) error {
		fresh := new(slog.LevelVar)
		o.log.Var = fresh
		log, err := observe.NewLogger(io.Discard, o.log)
		if err != nil {
			return err
		}
		if _, _, err := o.parse(log); err != nil {
			return err
		}
		level.Set(fresh.Level())
		return nil
	})
	again.SetArgs(args)
	return again.ExecuteContext(ctx)
}

// options are the flags as they were given.
type options struct {
	cfg      Config
	security rpc.Security
	log      observe.LogConfig
}

func (o *options) define(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.StringVar(&o.cfg.ID, "id", "",
		"the router's id (default: the name in --tls-cert, or else the lower-cased host name)")
	flags.StringVar(&o.cfg.Listen, "listen", "",
		"HOST:PORT of the gRPC listener (default 127.0.0.1:7500, or :7500 with TLS)")
	flags.StringVar(&o.cfg.HTTPListen, "http-listen", "",
		"HOST:PORT of the HTTP listener for /metrics, /livez, /readyz and the HTTP door (default 127.0.0.1:7502, or :7502 with TLS)")
	flags.StringVar(&o.cfg.WebListen, "web-listen", "",
		"HOST:PORT of a listener for the HTTP door alone, without /metrics and for clients without certificates (default: none)")
	flags.StringVar(&o.cfg.DNSListen, "dns-listen", "",
		"HOST:PORT of the DNS door, UDP and TCP, which has no encryption (default: off)")
	flags.StringVar(&o.cfg.DNSZone, "dns-zone", "buddyring.internal.",
		"domain below which the DNS door answers: POOL.ZONE and more")
	flags.StringSliceVar(&o.cfg.Coordinators, "coordinator", []string{"127.0.0.1:7400"},
		"HOST:PORT of the coordinators, tried in order and in turn")
	flags.StringVar(&o.cfg.StateDir, "state-dir", "",
		"directory where the last good views are kept over a restart (default: $STATE_DIRECTORY, /var/lib/buddyring if it is writable, or else ~/.local/state/buddyring)")
	flags.DurationVar(&o.cfg.SlowStart, "slow-start", 0,
		"how long a server that is new to work, or back, takes to get its whole weight, in whatever way clients ask, starting with a tenth; 0 gives it all at once")
	o.cfg.Connections = DefaultConnections()
	config.ConnectionFlags(flags, &o.cfg.Connections, "to each listener but that of DNS")
	config.SecurityFlags(flags, &o.security)
	config.LogFlags(flags, &o.log)
}

// parse turns the flags into a configuration, filling in the defaults that
// depend on the host or on TLS.
func (o *options) parse(log *slog.Logger) (Config, *rpc.Credentials, error) {
	credentials, err := rpc.NewCredentials(o.security, log)
	if err != nil {
		return Config{}, nil, err
	}
	cfg := o.cfg
	cfg.Version = version.String()
	if cfg.Listen == "" {
		cfg.Listen = credentials.DefaultAddress(defaultPort)
	}
	if cfg.HTTPListen == "" {
		cfg.HTTPListen = credentials.DefaultAddress(defaultHTTPPort)
	}
	if cfg.ID == "" {
		cfg.ID = credentials.Identity().Name
	}
	if cfg.ID == "" {
		host, err := os.Hostname()
		if err != nil {
			return Config{}, nil, fmt.Errorf("find the host name: %w", err)
		}
		cfg.ID = strings.ToLower(host)
	}
	if cfg.StateDir == "" {
		if cfg.StateDir, err = config.StateDir(os.Getenv); err != nil {
			return Config{}, nil, err
		}
	}
	return cfg, credentials, cfg.Check(credentials)
}
