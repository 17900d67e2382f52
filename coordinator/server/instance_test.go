package server

import (
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

// A run knows the one before it, which has ended, and keeps a second one away.
func TestRunsOfACoordinator(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, p := range map[string]program{
		"state directory": {stateDir: filepath.Join(dir, "state"), store: store.Config{URL: "mysql://root@db/buddyring"}},
		"SQLite file":     {store: store.Config{URL: "sqlite:" + filepath.Join(dir, "buddyring.db")}},
	} {
		log := slog.New(slog.DiscardHandler)
		first := p.place()
		one, before, err := first.enter(log)
		if err != nil || one == "" || before != "" {
			t.Errorf("%s: the first run is %q, after %q, %v", name, one, before, err)
		}
		if _, _, err := p.place().enter(log); !errors.Is(err, member.ErrAlreadyExists) {
			t.Errorf("%s: a second run at the same time: %v", name, err)
		}
		if err := first.leave(); err != nil {
			t.Error(err)
		}
		second := p.place()
		two, before, err := second.enter(log)
		if err != nil || two == one || before != one {
			t.Errorf("%s: the second run is %q, after %q, %v; the first was %q", name, two, before, err, one)
		}
		if err := second.leave(); err != nil {
			t.Error(err)
		}
	}
	if p := (program{store: store.Config{URL: "mysql://root@db/buddyring"}}); p.place() != nil {
		t.Error("a coordinator without anything on this host has a place on it")
	}
}
