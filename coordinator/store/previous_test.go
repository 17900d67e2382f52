//go:build !galera

package store_test

import (
	"database/sql"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

// previous is the schema before the newest migration, which the fixture is of: as
// the migrations made it then, with rows of a coordinator of then, and what such
// a coordinator says to its database.
const previous = 10

func fixture(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", fmt.Sprint("schema-", previous), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// statement is one of a script, with how many rows it must touch, -1 where that
// is not said.
type statement struct {
	text    string
	touches int64
}

var said = regexp.MustCompile(`;( -- (\d+))?\n`)

func statementsOf(script string) []statement {
	var list []statement
	for {
		at := said.FindStringSubmatchIndex(script)
		if at == nil {
			return list
		}
		s := statement{text: strings.TrimSpace(comment.ReplaceAllString(script[:at[0]], "")), touches: -1}
		if at[4] >= 0 {
			s.touches, _ = strconv.ParseInt(script[at[4]:at[5]], 10, 64)
		}
		list, script = append(list, s), script[at[1]:]
	}
}

var comment = regexp.MustCompile(`(?m)^\s*--.*$`)

// say runs statements as they are, and fails where one is refused or comes to
// something else than it should.
func say(t testing.TB, db *sql.DB, script string) {
	t.Helper()
	for _, wrong := range complaints(t, db, script) {
		t.Error(wrong)
	}
}

// complaints says what goes wrong with statements.
func complaints(t testing.TB, db *sql.DB, script string) (wrong []string) {
	t.Helper()
	for _, s := range statementsOf(script) {
		n, err := run(t, db, s.text)
		switch {
		case err != nil:
			wrong = append(wrong, fmt.Sprintf("%s: %v", s.text, err))
		case s.touches >= 0 && n != s.touches, s.touches < 0 && n == 0 && strings.HasPrefix(s.text, "SELECT"):
			wrong = append(wrong, fmt.Sprintf("%s: %d rows", s.text, n))
		}
	}
	return wrong
}

// run returns how many rows a statement touches or finds.
func run(t testing.TB, db *sql.DB, statement string) (n int64, err error) {
	t.Helper()
	if !strings.HasPrefix(statement, "SELECT") {
		result, err := db.ExecContext(t.Context(), statement)
		if err != nil {
			return 0, err
		}
		return result.RowsAffected()
	}
	rows, err := db.QueryContext(t.Context(), statement)
	if err != nil {
		return 0, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		n++
	}
	return n, rows.Err()
}

// left returns a database as a coordinator of the previous schema has left it,
// open beside the store.
func left(t testing.TB) (url string, db *sql.DB) {
	t.Helper()
	url = freshURL(t)
	db = openRaw(t, url)
	say(t, db, fixture(t, backend+".sql"))
	say(t, db, fixture(t, "data.sql"))
	return url, db
}

// poolNamed returns a pool as a leader would read it.
func poolNamed(t testing.TB, s *store.Store, name member.Pool) member.PoolState {
	t.Helper()
	p, there := stateOf(t, s, name)
	if !there {
		t.Fatalf("there is no pool %s", name)
	}
	return p
}

// The fixture must follow the schema: with a new migration, the one before it is
// kept as testdata/schema-N, and the older one may go.
func TestTheFixtureIsOfThePreviousSchema(t *testing.T) {
	t.Parallel()
	if _, latest := apply(t, freshURL(t)); latest != previous+1 {
		t.Errorf("the schema is %d and the fixture is of %d: keep %d as a fixture", latest, previous, latest-1)
	}
}

// What a coordinator of the previous schema has left is there after the upgrade,
// all of it, and the next leader goes on with it.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	url, _ := left(t)
	if before, after := apply(t, url); before != previous || after != previous+1 {
		t.Fatalf("from %d to %d", before, after)
	}
	s := openStore(t, url)
	if l := leaseOf(t, s); l.StoreID != "STORE" || l.Holder != "c1" || l.Epoch != 3 || l.Renewal != 4711 || l.Instance != "run" {
		t.Errorf("lease %+v", l)
	}
	web := poolNamed(t, s, "web")
	if web.Position != (member.Position{Epoch: 3, Revision: 12}) || web.LastChange != "3-7-00000000000000a1" || web.ReferenceSize != 3 ||
		web.Settings.Mode != member.ModeShadow || web.Settings.HoldDown != 7*time.Second || web.Settings.BrakeLeast != member.DefaultSettings().BrakeLeast {
		t.Errorf("pool %+v", web)
	}
	at := func(text string) time.Time {
		v, err := time.ParseInLocation("2006-01-02 15:04:05.000000", text, time.UTC)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	first := member.Server{
		ID: "web-1", First: "web-2", Second: "web-3", Phase: member.PhaseActive, Incarnation: 2,
		Spec: member.Spec{
			ProbeAddresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
			Probe:          member.Probe{Method: member.ProbeICMP},
			Endpoints:      []member.Endpoint{{Name: "http", Address: "192.0.2.1:80", Protocol: "http"}},
			Zone:           "eu-1", Rack: "r1", Weight: 100, Labels: map[string]string{"os": "linux"},
		},
		BootID: "boot-1", InstanceID: "run-1", Identity: "spiffe://example.org/buddyring/agent/web/web-1",
		JoinedAt: at("2026-11-01 10:00:00.000001"), Since: at("2026-11-01 10:00:01.000000"),
	}
	diff(t, "web-1", first, web.Servers[0])
	if got := ids(web.Servers); len(got) != 3 || web.Servers[2].HeldUntil != at("2026-11-01 13:00:30.500000") || web.Servers[1].Spec.Probe.Port != 22 {
		t.Errorf("servers %+v", web.Servers)
	}
	diff(t, "intents", []member.Intent{
		{ID: "web-2", Wish: member.WishDrain, Reason: "new disk", Actor: "ann", SetAt: at("2026-11-01 12:00:00.000000")},
		{ID: "web-8", Wish: member.WishBanned, Reason: "sold", Actor: "bob", SetAt: at("2026-11-01 11:00:00.000000"), ExpiresAt: at("2126-11-01 11:00:00.000000")},
	}, web.Intents)
	diff(t, "departed", []member.Departed{{
		ID: "web-3", Incarnation: 6, Cause: member.CauseLossy, LeftAt: at("2026-11-01 12:30:00.000000"), FlapScore: 1.5, HoldDown: 30 * time.Second,
	}}, web.Departed)
	past, err := s.EventsFrom(t.Context(), "web", 5, 100)
	if err != nil || len(past) != 2 || past[1].Explanation == nil || past[1].Explanation.Rule != "observers_agree" {
		t.Errorf("history %+v, %v", past, err)
	}
	if routers, err := s.Routers(t.Context()); err != nil || len(routers) != 1 || routers[0].Applied[0].Revision != 12 {
		t.Errorf("routers %+v, %v", routers, err)
	}
	l := lead(t, s)
	commit(t, s, member.Change{ID: "next", Pool: "web", Base: member.Position{Epoch: l.Epoch, Revision: 12}, Put: []member.Server{first}})
}

// Expand, deploy, contract: between the first two, coordinators of the previous
// program go on on the next schema, and lead. What they say works, and what they
// write is read by those of the next program.
func TestThePreviousProgramGoesOn(t *testing.T) {
	t.Parallel()
	url, db := left(t)
	apply(t, url)
	say(t, db, fixture(t, "statements.sql"))
	s := openStore(t, url)
	web := poolNamed(t, s, "web")
	if web.Position != (member.Position{Epoch: 4, Revision: 13}) || !slices.Equal(ids(web.Servers), []member.ID{"web-1", "web-2", "web-4"}) {
		t.Errorf("at %v with %v", web.Position, ids(web.Servers))
	}
	if len(web.Intents) != 2 || len(web.Departed) != 2 || web.ReferenceSize != 4 || poolNamed(t, s, "new").Position.Revision != 1 {
		t.Errorf("pool %+v", web)
	}
	if l := lead(t, s); l.Epoch != 5 || l.StoreID != "STORE" {
		t.Errorf("the next leader is %+v", l)
	}
}

// And it would not where a migration did more than expand.
func TestAContractionIsNoticed(t *testing.T) {
	t.Parallel()
	for name, statement := range map[string]string{
		"a column is gone":        "ALTER TABLE server DROP COLUMN rack",
		"a column has a new name": "ALTER TABLE intent RENAME COLUMN actor TO who",
		"a table is gone":         "DROP TABLE router",
		"another key":             "CREATE UNIQUE INDEX one_kind ON event (pool, kind)",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, db := left(t)
			apply(t, url)
			say(t, db, statement+";\n")
			if len(complaints(t, db, fixture(t, "statements.sql"))) == 0 {
				t.Error("nobody complains")
			}
		})
	}
}
