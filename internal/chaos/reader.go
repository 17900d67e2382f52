package chaos

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/buddyring/buddyring/internal/history"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// readInterval is how often the table, and a coordinator, are read.
const readInterval = 300 * time.Millisecond

// barrier is a table of its own database. See reader.read.
const barrier = "chaos.barrier"

// makeBarrier makes it.
func (s *site) makeBarrier(ctx context.Context) error {
	for _, statement := range []string{
		"CREATE DATABASE chaos", "CREATE TABLE " + barrier + " (n BIGINT NOT NULL) ENGINE = InnoDB", "INSERT INTO " + barrier + " VALUES (0)",
	} {
		if err := s.servers.Servers()[0].Do(ctx, statement); err != nil {
			return fmt.Errorf("make barrier: %w", err)
		}
	}
	return nil
}

// reader reads the table, and asks the coordinators for the ring.
type reader struct {
	site    *site
	history *history.Recorder
	rng     *rand.Rand

	// last is what each pool had when it was read last, so that what has not
	// changed is kept once, and a pool that is gone is missed.
	last map[string]history.Result
	// revisions are the newest that were read, by pool.
	revisions atomic.Pointer[map[string]uint64]
}

func newReader(s *site, h *history.Recorder, rng *rand.Rand) *reader {
	return &reader{site: s, history: h, rng: rng, last: map[string]history.Result{}}
}

// work reads until ctx ends.
func (r *reader) work(ctx context.Context) {
	for ctx.Err() == nil {
		r.table(ctx)
		r.ask(ctx)
		sleep(ctx, readInterval)
	}
}

// table reads all pools. What cannot be read says nothing.
func (r *reader) table(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*askTime)
	defer cancel()
	begin := time.Now()
	found, err := r.read(ctx)
	if err != nil {
		return
	}
	end := time.Now()
	revisions := map[string]uint64{}
	for _, pool := range slices.Concat(sidePools(), slices.Collect(maps.Keys(r.last))) {
		if _, is := found[pool]; !is {
			found[pool] = history.Result{Missing: true}
		}
	}
	for pool, result := range found {
		if before := r.last[pool]; slices.Equal(before.Rows, result.Rows) {
			result.Rows = before.Rows
		}
		r.last[pool] = result
		if !result.Missing {
			revisions[pool] = result.Revision
		}
		r.history.Call(history.Operation{Kind: history.Read, Pool: pool, Client: "table"}, begin).Return(result, end)
	}
	r.revisions.Store(&revisions)
}

// read reads all pools in one transaction on any server, and then writes something durable:
// InnoDB shows a change before it is on the disk, where everything up to a
// later commit is. Without that a read could show what a crash undoes.
func (r *reader) read(ctx context.Context) (found map[string]history.Result, err error) {
	db := r.site.dbs[r.rng.IntN(len(r.site.dbs))]
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }()
	found = map[string]history.Result{}
	for _, part := range []struct {
		query string
		scan  func(*sql.Rows) error
	}{
		{"SELECT name, epoch, revision, last_change_id, JSON_VALUE(settings, '$.hold_down_max') FROM pool", func(rows *sql.Rows) error {
			var pool string
			result := history.Result{Intents: map[string]history.Intent{}}
			err := rows.Scan(&pool, &result.Epoch, &result.Revision, &result.ChangeID, &result.Settings)
			found[pool] = result
			return err
		}},
		{
			"SELECT pool, server_id, instance_id, incarnation, phase, COALESCE(first_buddy, ''), COALESCE(second_buddy, ''), " +
				"COALESCE(JSON_VALUE(labels, '$." + noteLabel + "'), '') FROM server ORDER BY pool, server_id", func(rows *sql.Rows) error {
				var pool string
				var row history.Row
				err := rows.Scan(&pool, &row.ID, &row.Run, &row.Incarnation, &row.Phase, &row.First, &row.Second, &row.Note)
				result := found[pool]
				result.Rows = append(result.Rows, row)
				found[pool] = result
				return err
			},
		},
		{"SELECT pool, server_id, wish, reason FROM intent", func(rows *sql.Rows) error {
			var pool, id string
			var intent history.Intent
			err := rows.Scan(&pool, &id, &intent.Wish, &intent.Reason)
			if intents := found[pool].Intents; intents != nil {
				intents[id] = intent
			}
			return err
		}},
	} {
		if err := each(ctx, tx, part.query, part.scan); err != nil {
			return nil, err
		}
	}
	if err := tx.Commit(); err != nil {
		return nil, err
	}
	_, err = db.ExecContext(ctx, "UPDATE "+barrier+" SET n = n + 1")
	return found, err
}

// queryer is a transaction or a database.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func each(ctx context.Context, q queryer, query string, scan func(*sql.Rows) error) (err error) {
	rows, err := q.QueryContext(ctx, query)
	if err != nil {
		return fmt.Errorf("read the table: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return fmt.Errorf("read the table: %w", err)
		}
	}
	return rows.Err()
}

// ask asks any of the coordinators for the ring.
func (r *reader) ask(ctx context.Context) {
	c := r.site.all[r.rng.IntN(len(r.site.all))]
	call := r.history.Call(history.Operation{Kind: history.Ask, Pool: chaosPool, Client: c.id}, time.Now())
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	ring, err := c.client.GetRing(ctx, &pb.GetRingRequest{Pool: chaosPool})
	if err != nil {
		call.Void()
		return
	}
	result := history.Result{Revision: ring.GetRevision(), Epoch: ring.GetEpoch()}
	for _, m := range ring.GetMembers() {
		result.Rows = append(result.Rows, history.Row{
			ID: m.GetServerId(), Phase: phase(m.GetPhase()), First: m.GetFirstBuddy(), Second: m.GetSecondBuddy(),
		})
	}
	call.Return(result, time.Now())
}

// phase is as it is in the table.
func phase(p pb.Phase) string {
	return strings.ToLower(strings.TrimPrefix(p.String(), "PHASE_"))
}
