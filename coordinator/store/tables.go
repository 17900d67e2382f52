package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// tables are ours; goose has its own beside them.
var tables = []string{ //nolint:gochecknoglobals // a constant list
	"coordinator", "deleted_pool", "departed", "event", "intent", "leader", "pool", "request", "router", "server",
}

// checkTables refuses tables of a MySQL database that somebody has made or
// altered by hand: without transactions, or with a collation that takes web-1
// and Web-1 for one server.
func (s *Store) checkTables(ctx context.Context) error {
	ours := " WHERE table_schema = DATABASE() AND table_name IN ('" + strings.Join(tables, "', '") + "')"
	err := s.read(ctx, func(x tx) error {
		if err := checkEngines(ctx, x, ours); err != nil {
			return err
		}
		return checkCollations(ctx, x, ours)
	})
	if err != nil {
		return fmt.Errorf("check tables: %w", err)
	}
	return nil
}

func checkEngines(ctx context.Context, x tx, ours string) error {
	engines := map[string]string{}
	err := x.each(ctx, func(rows *sql.Rows) error {
		var table, engine string
		err := rows.Scan(&table, &engine)
		engines[table] = engine
		return err
	}, "SELECT table_name, COALESCE(engine, 'none') FROM information_schema.tables"+ours)
	if err != nil {
		return err
	}
	for _, t := range tables {
		switch engine, ok := engines[t]; {
		case !ok:
			return &UnsafeError{
				Setting: "table " + t, Value: "missing", Want: "there", Risk: "there is nowhere to write",
				Remedy: "give the user its grants, or, if somebody has dropped it, restore a backup into a fresh database",
			}
		case engine != "InnoDB":
			return &UnsafeError{
				Setting: "the engine of table " + t, Value: engine, Want: "InnoDB", Risk: "changes are not taken whole",
				Remedy: "ALTER TABLE " + t + " ENGINE = InnoDB",
			}
		}
	}
	return nil
}

func checkCollations(ctx context.Context, x tx, ours string) error {
	wrong := []*UnsafeError{}
	err := x.each(ctx, func(rows *sql.Rows) error {
		var table, column, collation string
		err := rows.Scan(&table, &column, &collation)
		wrong = append(wrong, &UnsafeError{
			Setting: "the collation of " + table + "." + column, Value: collation, Want: "utf8mb4_bin",
			Risk:   "names that differ are taken for one",
			Remedy: "ALTER TABLE " + table + " CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
		})
		return err
	}, "SELECT table_name, column_name, collation_name FROM information_schema.columns"+ours+
		" AND collation_name IS NOT NULL AND collation_name <> 'utf8mb4_bin' ORDER BY table_name, column_name")
	if err != nil || len(wrong) == 0 {
		return err
	}
	return wrong[0]
}
