package store_test

import (
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

func TestCreatePool(t *testing.T) {
	t.Parallel()
	s := openStore(t, freshURL(t))
	l := lead(t, s)
	settings := member.DefaultSettings()
	settings.Mode, settings.RemovalGrace = member.ModeShadow, 5*time.Second
	now := time.Now().UTC().Truncate(time.Microsecond)
	n := store.NewPool{
		Name: "web", Settings: settings,
		Events:   []member.Event{{Kind: member.EventPoolCreated, At: noon, Actor: "admin", Text: "made"}},
		Requests: []member.Request{{ID: "r", Hash: "h", At: now}},
	}
	created, err := s.CreatePool(t.Context(), l.Epoch, n)
	if err != nil {
		t.Fatal(err)
	}
	if created.LastChange == "" {
		t.Error("the change that made the pool has no id")
	}
	want := member.PoolState{
		Name: "web", Position: member.Position{Epoch: l.Epoch, Revision: 1}, LastChange: created.LastChange, Settings: settings,
	}
	requests := []store.PoolRequest{{Pool: "web", Request: member.Request{ID: "r", Hash: "h", Revision: 1, At: now}}}
	diff(t, "requests", requests, requestsOf(t, s, "r"))
	diff(t, "returned", want, created)
	pools, err := s.LoadPools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	diff(t, "loaded", []member.PoolState{want}, pools)
	diff(t, "events", []member.Event{
		{Revision: 1, Epoch: l.Epoch, Kind: member.EventPoolCreated, At: noon, Actor: "admin", Text: "made"},
	}, events(t, s))
	if _, err := s.CreatePool(t.Context(), l.Epoch, store.NewPool{Name: "web", Settings: settings}); !errors.Is(err, member.ErrAlreadyExists) {
		t.Errorf("create it again: %v, want ErrAlreadyExists", err)
	}
}

func TestSettingsOfAnOlderVersionGetDefaults(t *testing.T) {
	t.Parallel()
	s, _ := newPool(t)
	alter(t, s, `UPDATE pool SET settings = '{"mode":"paused","later":1}'`)
	pools, err := s.LoadPools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := member.DefaultSettings()
	want.Mode = member.ModePaused
	diff(t, "settings", want, pools[0].Settings)
}

func TestLoadPools(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	db, err := s.CreatePool(t.Context(), at.Epoch, store.NewPool{Name: "db", Settings: member.DefaultSettings()})
	if err != nil {
		t.Fatal(err)
	}
	size := 7
	c := change(at)
	c.ReferenceSize = &size
	c.Put = []member.Server{server("web-2", 2), bare("web-1.example", 2)}
	c.Intents = []member.Intent{
		{ID: "web-9", Wish: member.WishBanned, Reason: "broken fan", Actor: "ann", SetAt: noon, ExpiresAt: noon.Add(time.Hour)},
		{ID: "web-2", Wish: member.WishMaintenance, SetAt: noon},
	}
	c.Departed = []member.Departed{{
		ID: "web-7", Incarnation: 1, Cause: member.CauseCrashed, BootID: "b", LeftAt: noon, FlapScore: 1.5,
		HoldDown: 10 * time.Second,
	}}
	at = commit(t, s, c)
	pools, err := s.LoadPools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	diff(t, "pools", []member.PoolState{
		{Name: "db", Position: db.Position, LastChange: db.LastChange, Settings: member.DefaultSettings()},
		{
			Name: "web", Position: at, LastChange: c.ID, Settings: member.DefaultSettings(), ReferenceSize: 7,
			Servers:  []member.Server{bare("web-1.example", 2), server("web-2", 2)},
			Intents:  []member.Intent{c.Intents[1], c.Intents[0]},
			Departed: c.Departed,
		},
	}, pools)
}

// TestUnreadableRowsSpoilTheirPoolOnly.
func TestUnreadableRowsSpoilTheirPoolOnly(t *testing.T) {
	t.Parallel()
	for what, statement := range map[string]string{
		"server":   "UPDATE server SET probe = 'odd' WHERE pool = 'web'",
		"departed": "UPDATE departed SET cause = 'odd' WHERE pool = 'web'",
		"pool":     "UPDATE pool SET settings = '[1]' WHERE name = 'web'",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s, at := newPool(t)
			if _, err := s.CreatePool(t.Context(), at.Epoch, store.NewPool{Name: "db", Settings: member.DefaultSettings()}); err != nil {
				t.Fatal(err)
			}
			c := change(at)
			c.Put = []member.Server{server("web-2", 2)}
			c.Departed = []member.Departed{{ID: "web-7", Incarnation: 1, Cause: member.CauseCrashed, LeftAt: noon}}
			commit(t, s, c)
			alter(t, s, statement)
			pools, err := s.LoadPools(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range pools {
				if (p.Unreadable != nil) != (p.Name == "web") {
					t.Errorf("pool %s: %v", p.Name, p.Unreadable)
				}
			}
			if len(pools) != 2 {
				t.Errorf("%d pools", len(pools))
			}
		})
	}
}

func TestServersShowTheirRevision(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	c := change(at)
	c.Put = []member.Server{server("b", 2), server("a", 2)}
	at = commit(t, s, c)
	shown, err := s.Servers(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	diff(t, "servers", store.ServerRows{At: at, Servers: []member.Server{server("a", 2), server("b", 2)}}, shown)
	if _, err := s.Servers(t.Context(), "nope"); !errors.Is(err, member.ErrNotFound) {
		t.Errorf("unknown pool: %v, want ErrNotFound", err)
	}
}

// A row that somebody has written by hand hides no other one, and a change that
// writes it mends it.
func TestServersNameTheRowThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for column, value := range map[string]string{
		"probe_addresses": "'foo'", "probe": "'odd'", "phase": "'odd'", "first_buddy": "'web-9', probe = 'odd'",
	} {
		t.Run(column, func(t *testing.T) {
			t.Parallel()
			s, at := newPool(t)
			c := change(at)
			c.Put = []member.Server{server("a", 2), server("b", 2), server("c", 2)}
			at = commit(t, s, c)
			alter(t, s, "UPDATE server SET "+column+" = "+value+" WHERE server_id = 'b'")
			shown, err := s.Servers(t.Context(), "web")
			if err != nil {
				t.Fatal(err)
			}
			diff(t, "those that can be read", []member.Server{server("a", 2), server("c", 2)}, shown.Servers)
			if why := shown.Unreadable["b"]; len(shown.Unreadable) != 1 || why == nil || shown.At != at {
				t.Errorf("not readable: %v", shown.Unreadable)
			}
			c = change(at)
			c.Put = []member.Server{server("b", 2)}
			commit(t, s, c)
			diff(t, "all", []member.Server{server("a", 2), server("b", 2), server("c", 2)}, servers(t, s))
		})
	}
}

// TestRingCanBeReadByAPerson reads the table as somebody with a plain SQL client
// does.
func TestRingCanBeReadByAPerson(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	read := func() (lines []string) {
		t.Helper()
		err := s.Write(t.Context(), func(tx *sql.Tx) error {
			rows, err := tx.QueryContext(t.Context(),
				"SELECT server_id, COALESCE(first_buddy, 'NULL'), COALESCE(second_buddy, 'NULL'), phase, probe_addresses, probe FROM server ORDER BY server_id")
			if err != nil {
				return err
			}
			defer func() { _ = rows.Close() }()
			for rows.Next() {
				var c [6]string
				if err := rows.Scan(&c[0], &c[1], &c[2], &c[3], &c[4], &c[5]); err != nil {
					return err
				}
				lines = append(lines, strings.Join(c[:], " "))
			}
			return rows.Err()
		})
		if err != nil {
			t.Fatal(err)
		}
		return lines
	}
	c := change(at)
	c.Put = []member.Server{bare("alone", 2)}
	at = commit(t, s, c)
	diff(t, "one server", []string{"alone NULL NULL active 192.0.2.1 icmp"}, read())
	c = change(at)
	c.Put = []member.Server{server("web-1", 3)}
	c.Remove = []member.Removal{{ID: "alone", Incarnation: 2}}
	commit(t, s, c)
	diff(t, "another", []string{"web-1 next previous held 192.0.2.7,2001:db8::7 tcp://:22"}, read())
}
