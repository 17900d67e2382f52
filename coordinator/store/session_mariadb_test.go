//go:build mariadb

package store_test

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/testdb"
)

// warnings counts the warnings that are logged.
type warnings struct {
	slog.Handler
	n *atomic.Int64
}

func (w warnings) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

func (w warnings) Handle(context.Context, slog.Record) error {
	w.n.Add(1)
	return nil
}

// TestSessionsDoNotRestOnTheServersDefaults gives the server defaults that cut
// long values, shift times, and leave statements uncommitted.
func TestSessionsDoNotRestOnTheServersDefaults(t *testing.T) {
	t.Parallel()
	private := testdb.Start(t)
	address := private.Database(t)
	private.Exec(t, "SET GLOBAL sql_mode = 'ANSI,IGNORE_SPACE', GLOBAL time_zone = '+05:30', GLOBAL character_set_server = 'latin1', GLOBAL autocommit = 0")
	s := openStore(t, address)
	pool, err := s.CreatePool(t.Context(), lead(t, s).Epoch, store.NewPool{Name: "web", Settings: member.DefaultSettings()})
	if err != nil {
		t.Fatal(err)
	}
	c := change(pool.Position)
	c.Put = []member.Server{server("web-42", 2)}
	c.Put[0].BootID = strings.Repeat("b", 129)
	if err := s.Commit(t.Context(), c); err == nil {
		t.Error("a value that is too long was cut and taken")
	}
	c.Put[0].BootID = strings.Repeat("b", 128)
	commit(t, s, c)
	diff(t, "servers", c.Put, servers(t, s))
}
