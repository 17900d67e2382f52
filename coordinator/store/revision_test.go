package store_test

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

// Revisions count the changes of their pool: those of other pools, changes that were
// taken back in the midst and what the database counts by itself leave no gap.
func TestRevisionsCountTheChangesOfTheirPool(t *testing.T) {
	t.Parallel()
	revisionsCount(t, freshURL(t))
}

func revisionsCount(t *testing.T, url string) {
	t.Helper()
	s := openStore(t, url)
	epoch := lead(t, s).Epoch
	at := map[member.Pool]member.Position{}
	for _, name := range []member.Pool{"web", "games"} {
		p, err := s.CreatePool(t.Context(), epoch, store.NewPool{Name: name, Settings: member.DefaultSettings()})
		if err != nil {
			t.Fatal(err)
		}
		at[name] = p.Position
	}
	next := func(name member.Pool) member.Change {
		c := change(at[name])
		c.Pool, c.Events = name, []member.Event{{Kind: member.EventUpdated, At: noon}}
		c.Requests = []member.Request{{ID: c.ID, Revision: c.Revision(), At: time.Now()}}
		return c
	}
	for round := range 4 {
		for name, base := range at {
			taken := next(name)
			taken.ID = fmt.Sprintf("taken-%d", round)
			taken.Requests = append(taken.Requests, taken.Requests[0])
			if err := s.Commit(t.Context(), taken); !errors.Is(err, member.ErrAlreadyExists) {
				t.Fatalf("a change that uses a request id twice: %v", err)
			}
			at[name] = commit(t, s, next(name))
			shown, err := s.Servers(t.Context(), name)
			if err != nil || shown.At.Revision != base.Revision+1 || base.Revision != member.Revision(round+1) {
				t.Fatalf("%s is at %v after %v (%v)", name, shown.At, base, err)
			}
		}
	}
	for name := range at {
		list, err := s.EventsFrom(t.Context(), name, 1, 100)
		var got []member.Revision
		for _, e := range list {
			got = append(got, e.Revision)
		}
		if want := []member.Revision{2, 3, 4, 5}; err != nil || !slices.Equal(got, want) {
			t.Errorf("the events of %s are of %v, want %v (%v)", name, got, want, err)
		}
	}
}

// Who reads on from the last revision that was seen misses none, however many write at
// the same time: no change is seen before all of lower revisions are.
func TestFollowerMissesNoRevision(t *testing.T) {
	t.Parallel()
	const writers, changes = 3, 10
	url := freshURL(t)
	s := openStore(t, url)
	p, err := s.CreatePool(t.Context(), lead(t, s).Epoch, store.NewPool{Name: "web", Settings: member.DefaultSettings()})
	if err != nil {
		t.Fatal(err)
	}
	var made atomic.Int64
	var wg sync.WaitGroup
	for i, own := range [writers]*store.Store{s, openStore(t, url), openStore(t, url)} {
		wg.Go(func() {
			for n := 0; n < changes && !t.Failed(); {
				shown, err := own.Servers(t.Context(), "web")
				if err != nil {
					t.Error(err)
					return
				}
				c := change(shown.At)
				c.ID = fmt.Sprintf("%d-%d", i, n)
				c.Events = []member.Event{{Kind: member.EventUpdated, At: noon, Text: c.ID}}
				switch err := own.Commit(t.Context(), c); {
				case err == nil:
					n++
					made.Add(1)
				case !errors.Is(err, member.ErrStale):
					t.Error(err)
					return
				}
			}
		})
	}
	cursor, ended := p.Position.Revision, make(chan struct{})
	go func() {
		defer close(ended)
		wg.Wait()
	}()
	defer func() { <-ended }()
	for last := false; !last; {
		select {
		case <-ended:
			last = true // one more look: all is there
		default:
		}
		list, err := s.EventsFrom(t.Context(), "web", cursor+1, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if e.Revision != cursor+1 {
				t.Fatalf("revision %d is seen after %d", e.Revision, cursor)
			}
			cursor = e.Revision
		}
	}
	if got := int64(cursor - p.Position.Revision); got != made.Load() || got != writers*changes {
		t.Errorf("%d changes are seen of %d", got, made.Load())
	}
}

// The database counts nothing of ours by itself: only the tool that migrates numbers
// its rows so.
func TestNothingIsNumberedByTheDatabase(t *testing.T) {
	t.Parallel()
	query := `SELECT CONCAT(table_name, '.', column_name) FROM information_schema.columns
		WHERE table_schema = DATABASE() AND extra LIKE '%auto_increment%' ORDER BY 1`
	want := []string{"goose_db_version.id"}
	if backend == store.KindSQLite {
		// SQLite numbers the rows of every table whose key is one integer.
		query = `SELECT t.name || '.' || min(c.name) FROM sqlite_master t, pragma_table_info(t.name) c
			WHERE t.type = 'table' AND c.pk > 0 GROUP BY t.name HAVING count(*) = 1 AND max(c.type) = 'INTEGER' ORDER BY 1`
		want = append(want, "leader.id") // always 1
	}
	var got []string
	err := openStore(t, freshURL(t)).Write(t.Context(), func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(t.Context(), query)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		got = nil
		for rows.Next() {
			var column string
			if err := rows.Scan(&column); err != nil {
				return err
			}
			got = append(got, column)
		}
		return rows.Err()
	})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("numbered are %v, want %v (%v)", got, want, err)
	}
}
