package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/pressly/goose/v3"

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
// was cut short, and run by several processes at once.
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
	if err = errors.Join(err, s.Close()); err != nil {
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
		var tables int
		if err := s.rw.QueryRowContext(ctx, s.dialect.hasTable, goose.DefaultTablename).Scan(&tables); err != nil || tables == 0 {
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
		if db, err = openMySQL(t, cfg, 0); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
	}
	p, err := s.provider(db)
	if err != nil {
		return err
	}
	results, err := p.Up(ctx)
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
