package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"

	schema "github.com/buddyring/buddyring/sql"
)

// SchemaError says that the database has another schema than this program
// needs. Its text says what to do.
type SchemaError struct {
	// Have is the schema of the database, 0 for none; Want that of the program.
	Have, Want int64
}

func (e *SchemaError) Error() string {
	if e.Have > e.Want {
		return fmt.Sprintf("the database has schema %d, which is newer than schema %d of this program: run a newer buddyring-coordinator", e.Have, e.Want)
	}
	return fmt.Sprintf(`the database has schema %d and this program needs schema %d: run "buddyring-coordinator migrate"`, e.Have, e.Want)
}

// ApplySchema brings the schema of a database up to date, whatever cfg.Migrate
// says, and returns its number before and after. It can be repeated after it
// was cut short, and run by several processes at once. Its errors are those of Open.
func ApplySchema(ctx context.Context, cfg Config) (before, after int64, err error) {
	cfg.Migrate = MigrateAuto
	t, err := parseConfig(&cfg)
	if err != nil {
		return 0, 0, err
	}
	s, err := open(t, cfg)
	if err != nil {
		return 0, 0, fmt.Errorf("migrate %s: %w", t, err)
	}
	before, after, err = s.bringUp(ctx, t, cfg)
	if err = errors.Join(s.atStart(err, cfg.Migrate), s.Close()); err != nil {
		return 0, 0, fmt.Errorf("migrate %s: %w", t, err)
	}
	return before, after, nil
}

func (s *Store) bringUp(ctx context.Context, t target, cfg Config) (before, after int64, err error) {
	if before, err = s.schemaVersion(ctx); err != nil {
		return 0, 0, err
	}
	if err := s.prepare(ctx, t, cfg); err != nil {
		return 0, 0, err
	}
	after, err = s.schemaVersion(ctx)
	return before, after, err
}

// checkSchema returns nil or a *SchemaError, and changes nothing.
func (s *Store) checkSchema(ctx context.Context) error {
	want, err := s.latestSchema()
	if err != nil {
		return err
	}
	have, err := s.schemaVersion(ctx)
	if err != nil {
		return err
	}
	if have != want {
		return &SchemaError{Have: have, Want: want}
	}
	return nil
}

// schemaVersion returns the number of the newest migration that was applied.
// goose could tell it too, but would make its table on the way.
func (s *Store) schemaVersion(ctx context.Context) (version int64, err error) {
	err = s.repeat(ctx, func() error {
		if begun, err := s.hasVersions(ctx); err != nil || !begun {
			return err
		}
		return s.rw.QueryRowContext(ctx,
			"SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version WHERE is_applied").Scan(&version)
	})
	if err != nil {
		return 0, fmt.Errorf("read schema version: %w", err)
	}
	return version, nil
}

func (s *Store) latestSchema() (int64, error) {
	p, err := s.provider(s.rw)
	if err != nil {
		return 0, err
	}
	sources := p.ListSources()
	return sources[len(sources)-1].Version, nil
}

func (s *Store) provider(db *sql.DB) (*goose.Provider, error) {
	files, err := schema.Migrations(s.dialect.kind)
	if err != nil {
		return nil, err
	}
	options := []goose.ProviderOption{goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger())}
	if s.dialect.locker != nil {
		l, err := s.dialect.locker()
		if err != nil {
			return nil, fmt.Errorf("configure migration lock: %w", err)
		}
		options = append(options, goose.WithLocker(l))
	}
	p, err := goose.NewProvider(s.dialect.goose, db, files, options...)
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	return p, nil
}

func (s *Store) migrate(ctx context.Context, t target, cfg Config) (err error) {
	db := s.rw
	if t.kind == KindMySQL {
		// A statement that rebuilds a large table takes as long as it takes.
		hosts, err := mysqlHosts(t, cfg, 0)
		if err != nil {
			return err
		}
		db = openMySQL(hosts)
		defer func() { err = errors.Join(err, db.Close()) }()
	}
	p, err := s.provider(db)
	if err != nil {
		return err
	}
	var results []*goose.MigrationResult
	err = s.repeat(ctx, func() error {
		if err := s.beginVersions(ctx, db); err != nil {
			return err
		}
		results, err = p.Up(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("apply migrations: %w", err)
	}
	if len(results) > 0 {
		cfg.logger().InfoContext(ctx, "schema brought up to date",
			"migrations", len(results), "schema", results[len(results)-1].Source.Version)
	}
	// Another process may have gone further meanwhile.
	return s.checkSchema(ctx)
}

// beginVersions makes goose's table with its first row. goose would do it, but
// takes the table for whole as soon as it is there: a process that ends in
// between, or a node of Galera that gives its INSERT up for another's statement,
// would leave a database that no one can migrate.
func (s *Store) beginVersions(ctx context.Context, db *sql.DB) error {
	versions, err := database.NewStore(s.dialect.goose, goose.DefaultTablename)
	if err != nil {
		return fmt.Errorf("configure schema versions: %w", err)
	}
	present, err := s.hasVersions(ctx)
	if err != nil {
		return err
	}
	if !present {
		if err := versions.CreateVersionTable(ctx, db); err != nil {
			if present, again := s.hasVersions(ctx); again != nil || !present {
				return fmt.Errorf("make schema versions: %w", err)
			}
		}
	}
	var begun int
	if err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM goose_db_version WHERE version_id = 0").Scan(&begun); err != nil || begun > 0 {
		return err
	}
	return versions.Insert(ctx, db, database.InsertRequest{Version: 0})
}

func (s *Store) hasVersions(ctx context.Context) (bool, error) {
	var n int
	err := s.rw.QueryRowContext(ctx, s.dialect.hasTable, goose.DefaultTablename).Scan(&n)
	return n > 0, err
}
