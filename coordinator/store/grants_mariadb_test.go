//go:build mariadb

package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/testdb"
)

// TestGrants does what docs/database.md says, and what both users are for.
func TestGrants(t *testing.T) {
	t.Parallel()
	server := testdb.Start(t)
	for _, statement := range documentedGrants(t) {
		server.Exec(t, statement)
	}
	as := func(user, password string) store.Config {
		file := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return store.Config{URL: strings.Replace(server.URL("buddyring"), "root@", user+"@", 1), PasswordFile: file}
	}
	migrator, runner := as("buddyring-migrate", "another long password"), as("buddyring", "a long password")

	_, _, err := store.ApplySchema(t.Context(), runner)
	wantDenied(t, err, "may not change the schema", "buddyring-migrate", "CREATE command denied")
	if _, _, err := store.ApplySchema(t.Context(), migrator); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), runner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	useEverything(t, s)

	strangers := as("buddyring", "another password")
	_, err = store.Open(t.Context(), strangers)
	wantDenied(t, err, "--store-password-file", "Access denied")
	server.Exec(t, "CREATE USER 'nobody'@'%'")
	_, err = store.Open(t.Context(), as("nobody", ""))
	wantDenied(t, err, "grants", "Access denied")
	_, err = store.Open(t.Context(), store.Config{URL: server.URL("absent")})
	wantDenied(t, err, "no such database", "Unknown database")
	// Another server, which cannot be asked now, may let the user in.
	strangers.URL = strings.Replace(strangers.URL, "@", "@"+escape(filepath.Join(t.TempDir(), "absent"))+",", 1)
	if _, err := store.Open(t.Context(), strangers); !errors.Is(err, member.ErrUnavailable) {
		t.Errorf("with a server that is down: %v", err)
	}
	// What is open goes on when it is locked out, until it is let in again.
	server.Exec(t, "ALTER USER 'buddyring'@'%' IDENTIFIED BY 'changed'")
	server.Exec(t, "KILL USER buddyring")
	if err := s.Ping(t.Context()); !errors.Is(err, member.ErrUnavailable) {
		t.Errorf("locked out: %v", err)
	}
	server.Exec(t, "ALTER USER 'buddyring'@'%' IDENTIFIED BY 'a long password'")
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("let in again: %v", err)
	}
	for _, statement := range []string{
		"DROP TABLE request", "ALTER TABLE pool ADD x INT", "CREATE TABLE x (n INT)", "CREATE INDEX x ON pool (epoch)",
		"TRUNCATE TABLE event", "SELECT * FROM mysql.user", "SET GLOBAL innodb_flush_log_at_trx_commit = 0",
	} {
		if err := s.Exec(t.Context(), statement); err == nil {
			t.Errorf("the user that runs may %s", statement)
		}
	}
}

func wantDenied(t *testing.T, err error, texts ...string) {
	t.Helper()
	var denied *store.DeniedError
	if !errors.As(err, &denied) || errors.Is(err, member.ErrUnavailable) {
		t.Errorf("%v, want a DeniedError", err)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q does not say %q", err, text)
		}
	}
}

func documentedGrants(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/database.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```sql grants\n(.*?)```").FindStringSubmatch(string(text))
	if block == nil {
		t.Fatal("docs/database.md has no grants")
	}
	return strings.Split(strings.TrimSuffix(strings.TrimSpace(block[1]), ";"), ";\n")
}

// useEverything calls every method that writes, and reads it all back.
func useEverything(t *testing.T, s *store.Store) {
	t.Helper()
	l := lead(t, s)
	pool, err := s.CreatePool(t.Context(), l.Epoch, store.NewPool{Name: "web", Settings: member.DefaultSettings()})
	if err != nil {
		t.Fatal(err)
	}
	c := joinOne(pool.Position)
	c.Intents = []member.Intent{{ID: "a", Wish: member.WishDrain, SetAt: noon}}
	c.Departed = []member.Departed{{ID: "a", LeftAt: noon, Cause: member.CauseCrashed}}
	c.Requests = []member.Request{{ID: "r", At: noon}}
	at := commit(t, s, c)
	leave := change(at)
	leave.Remove = []member.Removal{{ID: c.Put[0].ID, Incarnation: c.Put[0].Incarnation}}
	leave.Forget = []member.ID{"a"}
	commit(t, s, leave)
	_, pruning := s.Prune(t.Context(), "web", store.Retention{
		EventsSince: noon.AddDate(1, 0, 0), RequestsSince: noon.AddDate(1, 0, 0), DepartedSince: noon.AddDate(1, 0, 0), Limit: 100,
	})
	_, loading := s.LoadPools(t.Context())
	if err := errors.Join(
		s.Renew(t.Context(), l.Epoch), s.PutRouter(t.Context(), l.Epoch, store.RouterRow{ID: "r", LastSeen: noon}),
		s.DropRouter(t.Context(), l.Epoch, "r"), s.Ping(t.Context()), pruning, loading,
	); err != nil {
		t.Error(err)
	}
}
