package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/config"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/observe"
	"github.com/buddyring/buddyring/internal/rpc"
	"github.com/buddyring/buddyring/internal/version"
)

// Where the coordinator listens unless told otherwise.
const (
	defaultPort      = 7400
	defaultAdminPort = 7401
	defaultHTTPPort  = 7402
)

// openPause lies between two attempts to open the database.
const openPause = 500 * time.Millisecond

// databaseName is the file in the state directory.
const databaseName = "coordinator.db"

// Command returns the program buddyring-coordinator with its arguments. It runs
// until its context ends, and logs to its error output. At each of hangups it
// reads its configuration again and takes over the log level.
func Command(args []string, hangups <-chan os.Signal) *cobra.Command {
	root, o := newCommand(func(cmd *cobra.Command, o *options) error {
		level := new(slog.LevelVar)
		o.log.Var = level
		log, err := observe.NewLogger(cmd.ErrOrStderr(), o.log)
		if err != nil {
			return err
		}
		p, err := o.parse(log)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(cmd.Context())
		var work errgroup.Group
		work.Go(func() error {
			defer cancel()
			return p.run(ctx, log)
		})
		work.Go(func() error { beThrifty(ctx); return nil })
		config.OnHangup(ctx, hangups, log, func(ctx context.Context) error { return reload(ctx, args, level) })
		return work.Wait()
	})
	root.AddCommand(o.migrateCommand(), o.restoreCommand())
	root.SetArgs(args)
	return root
}

// newCommand returns the program without what only a start can do, and the flags
// that it fills before run.
func newCommand(run func(*cobra.Command, *options) error) (*cobra.Command, *options) {
	o := &options{}
	root := &cobra.Command{
		Use:           "buddyring-coordinator",
		Short:         "Keep the table of servers and their buddies",
		Version:       version.String(),
		Args:          config.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return run(cmd, o) },
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
	config.Bind(root, "BUDDYRING_COORDINATOR")
	return root, o
}

// reload sets the level to what the configuration says now, if all of it is
// right.
func reload(ctx context.Context, args []string, level *slog.LevelVar) error {
	again, _ := newCommand(func(_ *cobra.Command, o *options) error {
		fresh := new(slog.LevelVar)
		o.log.Var = fresh
		log, err := observe.NewLogger(io.Discard, o.log)
		if err != nil {
			return err
		}
		if _, err := o.parse(log); err != nil {
			return err
		}
		level.Set(fresh.Level())
		return nil
	})
	again.SetArgs(args)
	return again.ExecuteContext(ctx)
}

func (o *options) migrateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "migrate",
		Short: "Bring the schema of the database up to date and exit",
		Args:  config.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := observe.NewLogger(cmd.ErrOrStderr(), o.log)
			if err != nil {
				return err
			}
			p, err := o.parse(log)
			if err != nil {
				return err
			}
			if err := p.makeStateDir(); err != nil {
				return err
			}
			before, after, err := store.ApplySchema(cmd.Context(), p.store)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "schema was %d, is %d\n", before, after)
			return err
		},
	}
}

// options are the flags as they were given.
type options struct {
	cfg        Config
	stateDir   string
	store      store.Config
	storeTLSCA string
	migrate    string
	security   rpc.Security
	log        observe.LogConfig
}

func (o *options) define(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.StringVar(&o.cfg.ID, "id", "",
		"the coordinator's id, which no other on the database may have (default: the name in --tls-cert, or else the lower-cased host name)")
	flags.StringVar(&o.stateDir, "state-dir", "",
		"directory of the SQLite file and of the name of the present run (default: $STATE_DIRECTORY, /var/lib/buddyring if it is writable, or else ~/.local/state/buddyring)")
	flags.StringVar(&o.store.URL, "store", "",
		"sqlite:PATH or mysql://USER@HOST[:PORT][,HOST...]/DB (default: "+databaseName+" in the state directory)")
	flags.StringVar(&o.store.PasswordFile, "store-password-file", "", "file with the password of the MySQL user")
	flags.StringVar(&o.storeTLSCA, "store-tls-ca", "",
		"PEM file with the CA certificates of the MySQL server; with it connections to MySQL are TLS")
	flags.StringSliceVar(&o.store.AcceptUnsafe, "store-accept-unsafe", nil,
		"settings of the MySQL server with which a crash can lose changes, and the start is refused unless they are named here: "+
			strings.Join(store.UnsafeSettings(), ", "))
	flags.StringVar(&o.migrate, "migrate", "",
		"auto brings an older schema up to date at start, check refuses it (default: auto with SQLite, check with MySQL)")
	flags.StringVar(&o.cfg.Listen, "listen", "",
		"HOST:PORT of the gRPC listener for agents and routers (default 127.0.0.1:7400, or :7400 with TLS)")
	flags.StringVar(&o.cfg.Advertise, "advertise", "",
		"HOST:PORT at which agents and routers reach --listen, as they and other coordinators are told")
	flags.StringVar(&o.cfg.AdminListen, "admin-listen", "",
		"HOST:PORT of the gRPC listener for operators (default 127.0.0.1:7401, or :7401 with TLS)")
	flags.StringVar(&o.cfg.HTTPListen, "http-listen", "",
		"HOST:PORT of the HTTP listener for /metrics, /livez and /readyz (default 127.0.0.1:7402, or :7402 with TLS)")
	flags.BoolVar(&o.cfg.AutoCreatePools, "auto-create-pools", true, "let a server that joins an unknown pool create it")
	flags.BoolVar(&o.cfg.AllowLocalAddresses, "allow-local-addresses", false,
		"accept servers with loopback or link-local addresses, for trials on one host")
	o.cfg.Connections = DefaultConnections()
	config.ConnectionFlags(flags, &o.cfg.Connections, "of agents and routers")
	config.SecurityFlags(flags, &o.security)
	config.LogFlags(flags, &o.log)
}

// program is a parsed configuration.
type program struct {
	cfg         Config
	store       store.Config
	stateDir    string
	credentials *rpc.Credentials
}

// parse turns the flags into a configuration, filling in the defaults that
// depend on the host or on TLS. It changes nothing.
func (o *options) parse(log *slog.Logger) (program, error) {
	credentials, err := rpc.NewCredentials(o.security, log)
	if err != nil {
		return program{}, err
	}
	p := program{cfg: o.cfg, credentials: credentials}
	p.cfg.Version = version.String()
	for _, l := range []struct {
		address *string
		port    int
	}{{&p.cfg.Listen, defaultPort}, {&p.cfg.AdminListen, defaultAdminPort}, {&p.cfg.HTTPListen, defaultHTTPPort}} {
		if *l.address == "" {
			*l.address = credentials.DefaultAddress(l.port)
		}
	}
	if p.cfg.ID == "" {
		p.cfg.ID = credentials.Identity().Name
	}
	if p.cfg.ID == "" {
		host, err := os.Hostname()
		if err != nil {
			return program{}, fmt.Errorf("find the host name: %w", err)
		}
		p.cfg.ID = strings.ToLower(host)
	}
	if err := p.cfg.Check(credentials); err != nil {
		return program{}, err
	}
	return p, o.parseStore(&p, log)
}

func (o *options) parseStore(p *program, log *slog.Logger) error {
	p.store = o.store
	p.store.Migrate, p.store.Logger = store.Migrate(o.migrate), log
	if o.stateDir != "" || p.store.URL == "" {
		p.stateDir = o.stateDir
		if p.stateDir == "" {
			dir, err := config.StateDir(os.Getenv)
			if err != nil {
				return err
			}
			p.stateDir = dir
		}
	}
	if p.store.URL == "" {
		p.store.URL = store.KindSQLite + ":" + filepath.Join(p.stateDir, databaseName)
	}
	if o.storeTLSCA != "" {
		pem, err := os.ReadFile(o.storeTLSCA)
		if err != nil {
			return member.Invalid("store-tls-ca", "%v", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return member.Invalid("store-tls-ca", "%s has no PEM certificate", o.storeTLSCA)
		}
		p.store.TLS = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	}
	return p.store.Check()
}

// makeStateDir makes the state directory, where one is used.
func (p program) makeStateDir() error {
	if p.stateDir == "" {
		return nil
	}
	if err := os.MkdirAll(p.stateDir, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	return nil
}

// run opens the database and runs the coordinator on it.
func (p program) run(ctx context.Context, log *slog.Logger) (err error) {
	if err := p.makeStateDir(); err != nil {
		return err
	}
	if at := p.place(); at != nil {
		// Opening the database must not disturb another process that has it.
		if p.cfg.Instance, p.cfg.Predecessor, err = at.enter(log); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, at.leave()) }()
	}
	table, err := openTable(ctx, p.store, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, table.Close()) }()
	deps := Deps{
		Store: table, Credentials: p.credentials, Registry: observe.NewRegistry("coordinator"), Logger: log,
	}
	p.credentials.Register(deps.Registry)
	if path, ok := strings.CutPrefix(p.store.URL, store.KindSQLite+":"); ok {
		deps.FreeBytes = func() (uint64, error) { return freeBytes(filepath.Dir(path)) }
	}
	s, err := New(p.cfg, deps) //nolint:contextcheck // the services get theirs with every call
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// openTable opens the database, and waits within startTime for one that cannot
// be reached: the two may start together.
func openTable(ctx context.Context, cfg store.Config, log *slog.Logger) (*store.Store, error) {
	within, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for said := false; ; said = true {
		table, err := store.Open(within, cfg)
		if !errors.Is(err, member.ErrUnavailable) {
			return table, err
		}
		if !said {
			log.Warn("database cannot be reached, waiting for it", "error", err, "at_most", startTime)
		}
		select {
		case <-within.Done():
			return nil, err
		case <-time.After(openPause):
		}
	}
}
