package store

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/buddyring/buddyring/internal/member"
)

// Migrate says what Open does about a database with an older schema. No mode
// touches a database with a newer one.
type Migrate string

// The modes. MigrateDefault is auto for SQLite and check for MySQL.
const (
	MigrateDefault Migrate = ""
	MigrateAuto    Migrate = "auto"
	MigrateCheck   Migrate = "check"
)

// Config says which database to use.
type Config struct {
	// URL is sqlite:PATH or mysql://USER@HOST[:PORT][,HOST[:PORT]...]/DB. Several
	// hosts are tried in order. A HOST may be the path of a unix socket with its
	// slashes written %2F.
	URL string
	// PasswordFile holds the password of a MySQL user; it is read at every new
	// connection. Empty for none.
	PasswordFile string
	Migrate      Migrate
	// AcceptUnsafe names settings of the MySQL server, out of UnsafeSettings, that
	// are put up with although changes can be lost.
	AcceptUnsafe []string
	// TLS is used on every TCP connection to MySQL; nil for plaintext. Without a
	// ServerName, that of the host is verified.
	TLS *tls.Config
	// Logger is told what no caller sees, such as what the driver mutters; nil
	// for nobody.
	Logger *slog.Logger
}

func (c Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger
}

// Store is an open database. Its methods are safe for concurrent use and honour
// the deadline of their context. Besides what each says, they fail with
// member.ErrUnavailable, wrapping the cause, when the database cannot do it now.
type Store struct {
	dialect *dialect
	// rw is for transactions that write, ro for those that do not; the same with
	// MySQL.
	rw, ro *sql.DB
	// hosts connects to MySQL; nil with SQLite.
	hosts *failover
	// doubts holds the changes, as a doubt each, whose outcome is unknown.
	doubts sync.Map
}

// ErrOutcomeUnknown goes with member.ErrUnavailable when a COMMIT was sent and
// its answer never came: the change may be in the table or not. The same call
// settles it when it is repeated: with success, which is durable, ErrFenced or
// ErrStale. Settle does so without making the change.
var ErrOutcomeUnknown = errors.New("outcome of the commit is unknown")

// Open opens the database and brings its schema up to date or checks it. A
// wrong Config is a member.FieldError, a wrong schema a *SchemaError, a server or
// table on which changes could be lost an *UnsafeError, a database that lets the
// user do nothing, or is none, a *DeniedError.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	t, err := parseConfig(&cfg)
	if err != nil {
		return nil, err
	}
	s, err := open(t, cfg)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", t, err)
	}
	if err := s.prepare(ctx, t, cfg); err != nil {
		return nil, fmt.Errorf("open %s: %w", t, errors.Join(s.atStart(err, cfg.Migrate), s.Close()))
	}
	return s, nil
}

// parseConfig checks cfg and replaces the default mode.
func parseConfig(cfg *Config) (target, error) {
	t, err := parseURL(cfg.URL)
	if err != nil {
		return target{}, err
	}
	switch cfg.Migrate {
	case MigrateAuto, MigrateCheck:
	case MigrateDefault:
		cfg.Migrate = MigrateCheck
		if t.kind == KindSQLite {
			cfg.Migrate = MigrateAuto
		}
	default:
		return target{}, member.Invalid("migrate", "%q is neither auto nor check", cfg.Migrate)
	}
	if len(cfg.AcceptUnsafe) > 0 && t.kind != KindMySQL {
		return target{}, member.Invalid("store-accept-unsafe", "a SQLite file has no such settings")
	}
	for _, name := range cfg.AcceptUnsafe {
		if !slices.Contains(UnsafeSettings(), name) {
			return target{}, member.Invalid("store-accept-unsafe", "%q is none of %s", name, strings.Join(UnsafeSettings(), ", "))
		}
	}
	if cfg.PasswordFile != "" {
		if t.kind != KindMySQL {
			return target{}, member.Invalid("store-password-file", "a SQLite file has no password")
		}
		if _, err := readPassword(cfg.PasswordFile); err != nil {
			return target{}, member.Invalid("store-password-file", "%v", err)
		}
	}
	return t, nil
}

func open(t target, cfg Config) (*Store, error) {
	if t.kind == KindSQLite {
		rw, ro, err := openSQLite(t, cfg.Migrate == MigrateAuto)
		if err != nil {
			return nil, err
		}
		return &Store{dialect: sqliteDialect(), rw: rw, ro: ro}, nil
	}
	hosts, err := mysqlHosts(t, cfg, mysqlRead)
	if err != nil {
		return nil, err
	}
	db := openMySQL(hosts)
	return &Store{dialect: mysqlDialect(), rw: db, ro: db, hosts: hosts}, nil
}

func (s *Store) prepare(ctx context.Context, t target, cfg Config) error {
	if err := s.repeat(ctx, func() error { return s.rw.PingContext(ctx) }); err != nil {
		return err
	}
	if s.hosts != nil {
		if err := s.hosts.refuseUnsafe(ctx, cfg.AcceptUnsafe); err != nil {
			return err
		}
	}
	err := s.checkSchema(ctx)
	var wrong *SchemaError
	if cfg.Migrate == MigrateAuto && errors.As(err, &wrong) && wrong.Have < wrong.Want {
		err = s.migrate(ctx, t, cfg)
	}
	if err != nil || s.hosts == nil {
		return err
	}
	return s.checkTables(ctx)
}

// Kind returns KindSQLite or KindMySQL.
func (s *Store) Kind() string { return s.dialect.kind }

// Ping reads from the database.
func (s *Store) Ping(ctx context.Context) error {
	err := s.repeat(ctx, func() error {
		var epoch member.Epoch
		return s.ro.QueryRowContext(ctx, "SELECT epoch FROM leader WHERE id = 1").Scan(&epoch)
	})
	if err != nil {
		return fmt.Errorf("ping store: %w", err)
	}
	return nil
}

// Close closes the connections. Calls under way fail.
func (s *Store) Close() error {
	err := s.rw.Close()
	if s.ro != s.rw {
		err = errors.Join(s.ro.Close(), err)
	}
	if err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}
