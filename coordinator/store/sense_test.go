package store_test

import (
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

// TestRowsThatMakeNoSense: agents and routers would refuse all that they are told of
// a pool with such a row.
func TestRowsThatMakeNoSense(t *testing.T) {
	t.Parallel()
	for _, set := range []string{
		"server SET server_id = 'WEB-2'", "server SET phase = ''", "server SET incarnation = 0", "server SET weight = 10001",
		"server SET probe_addresses = ''", "server SET probe_addresses = '0.0.0.0'", "server SET probe_addresses = '192.0.2.1,192.0.2.2'",
		"server SET zone = 'no zone'", `server SET endpoints = '[{"address":"nowhere"}]'`, `server SET labels = '{"No Label":"x"}'`,
		"intent SET server_id = 'WEB-9'", "departed SET server_id = 'WEB-7'",
		"pool SET revision = 0", `pool SET settings = '{"probe_interval":-1}'`, "pool SET name = 'web_1'",
	} {
		t.Run(set, func(t *testing.T) {
			t.Parallel()
			s, at := newPool(t)
			c := change(at)
			c.Put = []member.Server{server("web-1", 2), server("web-2", 2)}
			c.Intents = []member.Intent{{ID: "web-9", Wish: member.WishBanned, SetAt: noon}}
			c.Departed = []member.Departed{{ID: "web-7", Incarnation: 1, Cause: member.CauseCrashed, LeftAt: noon}}
			commit(t, s, c)
			where := " WHERE server_id IN ('web-2', 'web-9', 'web-7')"
			if strings.HasPrefix(set, "pool") {
				where = ""
			}
			alter(t, s, "UPDATE "+set+where)
			for _, p := range readPools(t, s) {
				if p.Unreadable == nil {
					t.Errorf("pool %s can be read", p.Name)
				}
			}
			if !strings.HasPrefix(set, "server") {
				return
			}
			rows, err := s.Servers(t.Context(), "web")
			if err != nil {
				t.Fatal(err)
			}
			diff(t, "rows that can be read", []member.ID{"web-1"}, ids(rows.Servers))
			if len(rows.Unreadable) != 1 {
				t.Errorf("unreadable: %v", rows.Unreadable)
			}
		})
	}
}

// TestLostPoolRow: what somebody has left of a pool is not taken for no pool.
func TestLostPoolRow(t *testing.T) {
	t.Parallel()
	for _, of := range []string{"server", "intent", "departed"} {
		t.Run(of, func(t *testing.T) {
			t.Parallel()
			s, at := newPool(t)
			c := change(at)
			switch of {
			case "server":
				c.Put = []member.Server{bare("web-1", 2)}
			case "intent":
				c.Intents = []member.Intent{{ID: "web-1", Wish: member.WishBanned, SetAt: noon}}
			default:
				c.Departed = []member.Departed{{ID: "web-1", Incarnation: 1, Cause: member.CauseCrashed, LeftAt: noon}}
			}
			c.Events = []member.Event{{Kind: member.EventJoined, At: noon, ID: "web-1"}}
			c.Requests = []member.Request{{ID: "r", Hash: "h", At: noon}}
			at = commit(t, s, c)
			alter(t, s, "DELETE FROM pool")
			lost, there := stateOf(t, s, "web")
			if !there || lost.Unreadable == nil || !strings.Contains(lost.Unreadable.Error(), "rows in the table "+of) {
				t.Fatalf("there: %v, %v", there, lost.Unreadable)
			}
			if _, err := s.Backup(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), "rows in the table "+of) {
				t.Errorf("a backup without the pool: %v", err)
			}
			// Whoever makes it anew has an empty pool, above all that was seen of it.
			n := store.NewPool{
				Name: "web", Settings: member.DefaultSettings(),
				Events: []member.Event{{Kind: member.EventPoolCreated, At: noon, Text: "made"}},
			}
			made, err := s.CreatePool(t.Context(), at.Epoch, n)
			if err != nil {
				t.Fatal(err)
			}
			if made.Position.Revision != at.Revision+1 {
				t.Errorf("revision %d after %d", made.Position.Revision, at.Revision)
			}
			anew, _ := stateOf(t, s, "web")
			if anew.Unreadable != nil || len(anew.Servers)+len(anew.Intents)+len(anew.Departed) != 0 {
				t.Errorf("made anew: %+v", anew)
			}
			// Nothing goes where there is one.
			c.Base, c.ID, c.Requests = made.Position, "again", nil
			commit(t, s, c)
			if _, err := s.CreatePool(t.Context(), at.Epoch, n); !errors.Is(err, member.ErrAlreadyExists) {
				t.Errorf("%v, want ErrAlreadyExists", err)
			}
			if kept, _ := stateOf(t, s, "web"); len(kept.Servers)+len(kept.Intents)+len(kept.Departed) != 1 {
				t.Errorf("a pool that is there lost its rows: %+v", kept)
			}
		})
	}
}

// TestPoolRowIsPutBack does what docs/runbook.md says.
func TestPoolRowIsPutBack(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	statement := regexp.MustCompile("(?s)```sql\n(INSERT INTO pool .*?);\n```").FindSubmatch(text)
	if statement == nil {
		t.Fatal("docs/runbook.md does not say how a row of the table pool is put back")
	}
	s, at := newPool(t)
	c := change(at)
	c.Put = []member.Server{bare("web-1", 2)}
	c.Events = []member.Event{{Kind: member.EventJoined, At: noon, ID: "web-1"}}
	c.Departed = []member.Departed{{ID: "web-2", Incarnation: 1, Cause: member.CauseCrashed, LeftAt: noon}}
	at = commit(t, s, c)
	want := member.PoolState{
		Name: "web", Position: at, ReferenceSize: 2, Settings: member.DefaultSettings(), Servers: c.Put, Departed: c.Departed,
	}
	want.Settings.Mode = member.ModePaused
	alter(t, s, "DELETE FROM pool", string(statement[1]))
	back, _ := stateOf(t, s, "web")
	diff(t, "put back", want, back)
	alter(t, s, "DELETE FROM pool", "DELETE FROM event", string(statement[1]))
	back, _ = stateOf(t, s, "web")
	want.Position.Revision = 1
	diff(t, "put back without a history", want, back)
	commit(t, s, change(want.Position))
}

// TestPoolTurnedBack: revisions of events that are there cannot be given again.
func TestPoolTurnedBack(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	for range 3 {
		c := change(at)
		c.Events = []member.Event{{Kind: member.EventJoined, At: noon, ID: "web-1"}}
		at = commit(t, s, c)
	}
	alter(t, s, "UPDATE pool SET revision = 2")
	l := lead(t, s)
	state, _ := stateOf(t, s, "web")
	if want := (member.Position{Epoch: l.Epoch, Revision: at.Revision}); state.Position != want {
		t.Fatalf("at %+v, want %+v", state.Position, want)
	}
	c := change(state.Position)
	c.Events = []member.Event{{Kind: member.EventJoined, At: noon, ID: "web-1"}}
	commit(t, s, c)
}

func TestLostLeaderRow(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	alter(t, s, "DELETE FROM leader")
	_, reading := s.Lease(t.Context())
	for _, err := range []error{reading, s.Renew(t.Context(), at.Epoch)} {
		if err == nil || !strings.Contains(err.Error(), "INSERT INTO leader") {
			t.Errorf("%v, which does not say what to do", err)
		}
	}
	_, statement, _ := strings.Cut(reading.Error(), "put it back: ")
	alter(t, s, statement)
	if err := s.Renew(t.Context(), at.Epoch); !errors.Is(err, store.ErrBehind) {
		t.Errorf("the leader of before: %v, want ErrBehind", err)
	}
	if l := lead(t, s); l.Epoch != at.Epoch+1 {
		t.Errorf("epoch %d after %d", l.Epoch, at.Epoch)
	}
}
