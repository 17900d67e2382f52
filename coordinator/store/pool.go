package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/buddyring/buddyring/internal/member"
)

// firstRevision is that of a pool's creation, unless there was one of its name
// before.
const firstRevision member.Revision = 1

// NewPool is a pool to be created.
type NewPool struct {
	Name     member.Pool
	Settings member.Settings
	// Events and Requests are of the pool's first revision, whatever their
	// Revision, Seq and Epoch say.
	Events   []member.Event
	Requests []member.Request
}

// CreatePool creates an empty pool, whole or not at all: at revision 1, or above
// the last one of a deleted pool of that name, whose requests are kept. Rows
// that a pool of that name has left, whose own row somebody deleted by hand, go. It returns
// member.ErrAlreadyExists if there is one of that name, which is durable then, and
// member.ErrFenced when epoch is over.
func (s *Store) CreatePool(ctx context.Context, epoch member.Epoch, n NewPool) (member.PoolState, error) {
	state := member.PoolState{
		Name: n.Name, Position: member.Position{Epoch: epoch}, LastChange: rand.Text(),
		Settings: n.Settings,
	}
	exists := false
	err := s.write(ctx, func(x tx) error {
		exists = false
		if err := renew(ctx, x, epoch); err != nil {
			return err
		}
		first, err := x.revisionAfter(ctx, n.Name)
		if err != nil {
			return err
		}
		state.Position.Revision = first
		created, err := x.insertPool(ctx, &state)
		if exists = errors.Is(err, member.ErrAlreadyExists); exists {
			return nil // the COMMIT makes durable what was found
		}
		if err != nil {
			return err
		}
		if !created {
			return nil
		}
		if err := x.eraseRows(ctx, n.Name); err != nil {
			return err
		}
		if err := x.insertEvents(ctx, n.Name, state.Position, n.Events); err != nil {
			return err
		}
		requests := slices.Clone(n.Requests)
		for i := range requests {
			requests[i].Revision = state.Position.Revision
		}
		return insertRequests(ctx, x, n.Name, requests)
	})
	if err == nil && exists {
		err = member.ErrAlreadyExists
	}
	if err != nil {
		return member.PoolState{}, fmt.Errorf("create pool %s: %w", n.Name, err)
	}
	return state, nil
}

// insertPool reports whether it has created the pool; if not, an earlier
// attempt has, at the revision that p gets.
func (x tx) insertPool(ctx context.Context, p *member.PoolState) (bool, error) {
	settings, err := jsonText(p.Settings)
	if err != nil {
		return false, fmt.Errorf("encode settings: %w", err)
	}
	_, err = x.ExecContext(ctx,
		// Events of an earlier pool of that name are before its history.
		"INSERT INTO pool (name, epoch, revision, last_change_id, compacted_revision, reference_size, settings) "+
			"VALUES (?, ?, ?, ?, ?, ?, ?)",
		p.Name, p.Position.Epoch, p.Position.Revision, p.LastChange, p.Position.Revision-1, p.ReferenceSize, settings)
	if !x.dialect.duplicate(err) {
		return err == nil, err
	}
	var last string
	var at member.Revision
	if err := x.QueryRowContext(ctx, "SELECT last_change_id, revision FROM pool WHERE name = ?", p.Name).Scan(&last, &at); err != nil {
		return false, fmt.Errorf("read pool: %w", err)
	}
	if last != p.LastChange {
		return false, member.ErrAlreadyExists
	}
	p.Position.Revision = at
	return false, nil
}

// LoadPools returns all pools by name, everything as of one moment. One with a row
// that cannot be read or makes no sense, or whose own row is missing, because somebody
// has written or deleted it by hand, is marked so: the others are none the worse for it.
func (s *Store) LoadPools(ctx context.Context) ([]member.PoolState, error) {
	var pools []member.PoolState
	err := s.read(ctx, func(x tx) (err error) {
		pools, err = loadPools(ctx, x)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("load pools: %w", err)
	}
	return pools, nil
}

func loadPools(ctx context.Context, x tx) ([]member.PoolState, error) {
	var pools []member.PoolState
	index := map[member.Pool]int{}
	err := x.each(ctx, func(rows *sql.Rows) error {
		p := member.PoolState{Settings: member.DefaultSettings()}
		err := rows.Scan(&p.Name, &p.Position.Epoch, &p.Position.Revision, &p.LastChange, &p.ReferenceSize, document{&p.Settings})
		if err == nil {
			err = checkPool(p)
		}
		if err != nil {
			p.Unreadable = fmt.Errorf("read pool: %w", err)
		}
		index[p.Name] = len(pools)
		pools = append(pools, p)
		return nil
	}, "SELECT name, epoch, revision, last_change_id, reference_size, settings FROM pool ORDER BY name")
	if err != nil {
		return nil, fmt.Errorf("read pools: %w", err)
	}
	// in puts what belongs to a pool into it, or why it cannot be read. A row of no
	// pool makes one that cannot be.
	in := func(of string, name member.Pool, err error, put func(*member.PoolState)) {
		i, ok := index[name]
		if !ok {
			i, index[name] = len(pools), len(pools)
			pools = append(pools, member.PoolState{Name: name, Unreadable: errNoPool(name, of)})
		}
		switch {
		case err == nil:
			put(&pools[i])
		case pools[i].Unreadable == nil:
			pools[i].Unreadable = err
		}
	}
	err = errors.Join(
		x.each(ctx, func(rows *sql.Rows) error {
			name, v, err := scanServer(rows)
			in("server", name, err, func(p *member.PoolState) { p.Servers = append(p.Servers, v) })
			return nil
		}, "SELECT "+serverColumns+" FROM server ORDER BY pool, server_id"),
		x.each(ctx, func(rows *sql.Rows) error {
			name, v, err := scanIntent(rows)
			in("intent", name, err, func(p *member.PoolState) { p.Intents = append(p.Intents, v) })
			return nil
		}, "SELECT "+intentColumns+" FROM intent ORDER BY pool, server_id"),
		x.each(ctx, func(rows *sql.Rows) error {
			name, v, err := scanDeparted(rows)
			in("departed", name, err, func(p *member.PoolState) { p.Departed = append(p.Departed, v) })
			return nil
		}, "SELECT "+departedColumns+" FROM departed ORDER BY pool, server_id"),
	)
	slices.SortStableFunc(pools, func(a, b member.PoolState) int { return cmp.Compare(a.Name, b.Name) })
	return pools, err
}

// ServerRows are the rows of a pool's servers as the table stands.
type ServerRows struct {
	// At is the position that they show.
	At member.Position
	// Servers are those that can be read, by id.
	Servers []member.Server
	// Unreadable says why others, which somebody has written by hand, cannot be.
	Unreadable map[member.ID]error
}

// Servers returns the rows of a pool. It returns member.ErrNotFound if there is no
// such pool.
func (s *Store) Servers(ctx context.Context, pool member.Pool) (ServerRows, error) {
	var found ServerRows
	err := s.read(ctx, func(x tx) error {
		found = ServerRows{Unreadable: map[member.ID]error{}}
		err := x.QueryRowContext(ctx, "SELECT epoch, revision FROM pool WHERE name = ?", pool).Scan(&found.At.Epoch, &found.At.Revision)
		if errors.Is(err, sql.ErrNoRows) {
			return member.ErrNotFound
		}
		if err != nil {
			return fmt.Errorf("read pool: %w", err)
		}
		return x.each(ctx, func(rows *sql.Rows) error {
			_, v, err := scanServer(rows)
			if err == nil {
				found.Servers = append(found.Servers, v)
			} else {
				found.Unreadable[v.ID] = err
			}
			return nil
		}, "SELECT "+serverColumns+" FROM server WHERE pool = ? ORDER BY server_id", pool)
	})
	if err != nil {
		return ServerRows{}, fmt.Errorf("read servers of %s: %w", pool, err)
	}
	return found, nil
}
