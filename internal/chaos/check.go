package chaos

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// check compares the table with what was acknowledged.
func (r *run) check(ctx context.Context) error {
	if err := r.readable(ctx); err != nil {
		return err
	}
	rows, err := r.rows(ctx)
	if err != nil {
		return err
	}
	l := r.ledger
	r.loses(l.lost, l.compare(rows))
	r.report.Joins, r.report.Leaves, r.report.Orders = l.joins, l.leaves, l.acknowledged
	stale, err := r.staleEffects()
	if err != nil {
		return err
	}
	r.report.StaleEffects = append(r.report.StaleEffects, stale...)
	r.report.WrongRemovals = append(r.report.WrongRemovals, l.removed...)
	_, err = read(ctx, r.site.dbs[0], "SELECT revision FROM pool WHERE name = 'default'",
		func(rows *sql.Rows, _ map[string]uint64) error { return rows.Scan(&r.report.Revisions) })
	return errors.Join(err, r.orders(ctx), r.staleWrites(ctx), r.wrongRemovals(ctx), r.halfWritten(ctx, rows), r.differences(ctx))
}

// readable waits until every server of the database can be read. A node of a cluster
// whose clock was set gives up too early on what the others have written.
func (r *run) readable(ctx context.Context) error {
	for _, db := range r.site.dbs {
		for try := 0; ; try++ {
			_, err := r.texts(ctx, db, "SELECT name, revision FROM pool")
			if err == nil {
				break
			}
			if try == 10 {
				return err
			}
			sleep(ctx, time.Second)
		}
	}
	return nil
}

// orders compares what operators were told with the events and the pools.
func (r *run) orders(ctx context.Context) error {
	events, eventsErr := read(ctx, r.site.dbs[0], "SELECT kind, text FROM event WHERE pool = 'default'",
		func(rows *sql.Rows, all map[string]uint64) error {
			var kind, text string
			err := rows.Scan(&kind, &text)
			if _, reason, ok := strings.Cut(text, reasonPrefix); ok {
				all[kind+" "+reasonPrefix+reason]++
			}
			return err
		})
	settings, settingsErr := r.texts(ctx, r.site.dbs[0], "SELECT name, JSON_VALUE(settings, '$.hold_down_max') FROM pool")
	deleted, deletedErr := r.texts(ctx, r.site.dbs[0], "SELECT name, reason FROM deleted_pool")
	if err := errors.Join(eventsErr, settingsErr, deletedErr); err != nil {
		return err
	}
	r.loses(r.ledger.compareOrders(events), r.ledger.comparePools(settings, deleted))
	return nil
}

// loses adds to what is lost, of which the crashes may have told already.
func (r *run) loses(lists ...[]string) {
	r.report.Lost = append(r.report.Lost, slices.Concat(lists...)...)
}

func (r *run) texts(ctx context.Context, db *sql.DB, query string) (map[string]string, error) {
	all := map[string]string{}
	return all, each(ctx, db, query, func(rows *sql.Rows) error {
		var name, text string
		err := rows.Scan(&name, &text)
		all[name] = text
		return err
	})
}

// rows are the incarnations of the members, by id.
func (r *run) rows(ctx context.Context) (map[string]uint64, error) {
	return read(ctx, r.site.dbs[0], "SELECT server_id, incarnation FROM server WHERE pool = 'default'",
		func(rows *sql.Rows, all map[string]uint64) error {
			var id string
			var incarnation uint64
			err := rows.Scan(&id, &incarnation)
			all[id] = incarnation
			return err
		})
}

// halfWritten finds where the rows are not what the events come to: of a change
// that is written in part.
func (r *run) halfWritten(ctx context.Context, rows map[string]uint64) error {
	members, err := read(ctx, r.site.dbs[0], "SELECT server_id, incarnation, kind FROM event WHERE pool = 'default' AND "+
		"kind IN ('joined', 'adopted', 'removed') ORDER BY revision, seq",
		func(rows *sql.Rows, all map[string]uint64) error {
			var id, kind string
			var incarnation uint64
			err := rows.Scan(&id, &incarnation, &kind)
			if all[id] = incarnation; kind == "removed" {
				delete(all, id)
			}
			return err
		})
	for _, id := range slices.Sorted(maps.Keys(members)) {
		if rows[id] != members[id] {
			r.report.Half = append(r.report.Half, fmt.Sprintf("%s is incarnation %d by the events, %d by its row", id, members[id], rows[id]))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(rows)) {
		if _, told := members[id]; !told {
			r.report.Half = append(r.report.Half, fmt.Sprintf("%s is incarnation %d by its row, and no member by the events", id, rows[id]))
		}
	}
	return err
}

// staleWrites finds events of an epoch lower than one at an earlier revision:
// only a leader that was not fenced makes such.
func (r *run) staleWrites(ctx context.Context) error {
	highest := map[string]uint64{}
	_, err := read(ctx, r.site.dbs[0], "SELECT pool, revision, epoch, text FROM event ORDER BY pool, revision, seq",
		func(rows *sql.Rows, _ map[string]uint64) error {
			var revision, epoch uint64
			var pool, text string
			err := rows.Scan(&pool, &revision, &epoch, &text)
			if epoch < highest[pool] {
				r.report.StaleWrites = append(r.report.StaleWrites,
					fmt.Sprintf("revision %d of %s is of epoch %d, one before it of %d: %s", revision, pool, epoch, highest[pool], text))
			}
			highest[pool] = max(highest[pool], epoch)
			r.report.Epochs = max(r.report.Epochs, epoch)
			return err
		})
	return err
}

// wrongRemovals finds the removals that nobody has asked for, of servers whose
// host was not dead.
func (r *run) wrongRemovals(ctx context.Context) error {
	_, err := read(ctx, r.site.dbs[0], "SELECT pool, revision, server_id, cause, text, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', at) FROM event "+
		"WHERE kind = 'removed' AND cause NOT IN ('shutdown', 'operator')",
		func(rows *sql.Rows, _ map[string]uint64) error {
			var revision uint64
			var at int64
			var pool, id, cause, text string
			err := rows.Scan(&pool, &revision, &id, &cause, &text, &at)
			if pool == chaosPool && r.excuses(id, time.UnixMicro(at)) {
				r.report.Removed++
				return err
			}
			r.report.WrongRemovals = append(r.report.WrongRemovals, fmt.Sprintf("revision %d of %s, %s: %s", revision, pool, cause, text))
			return err
		})
	r.report.Deaths = r.mortality.count()
	return err
}

// differences finds tables that are not the same on all nodes of a cluster. A change
// may still be under way: of the real agents' pool, or of the oldest events.
func (r *run) differences(ctx context.Context) error {
	var sums []map[string]uint64
	for range 10 {
		sums = nil
		for _, db := range r.site.dbs {
			sum, err := read(ctx, db, "CHECKSUM TABLE pool, deleted_pool, server, departed, intent, event", func(rows *sql.Rows, all map[string]uint64) error {
				var table string
				var sum uint64
				err := rows.Scan(&table, &sum)
				all[table] = sum
				return err
			})
			if err != nil {
				return err
			}
			sums = append(sums, sum)
		}
		if !slices.ContainsFunc(sums, func(sum map[string]uint64) bool { return !maps.Equal(sum, sums[0]) }) {
			return nil
		}
		sleep(ctx, time.Second)
	}
	r.report.Differences = append(r.report.Differences, fmt.Sprintf("the checksums of the nodes' tables are %v", sums))
	return nil
}

func read(
	ctx context.Context, db *sql.DB, query string, scan func(*sql.Rows, map[string]uint64) error,
) (all map[string]uint64, err error) {
	all = map[string]uint64{}
	return all, each(ctx, db, query, func(rows *sql.Rows) error { return scan(rows, all) })
}
