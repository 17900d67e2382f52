package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

// A database that cannot be reached is waited for, but not for ever, and not when
// the coordinator is told to end; a wrong configuration ends it at once.
func TestOpenTableWaits(t *testing.T) {
	t.Parallel()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := store.Config{URL: "mysql://root@" + lis.Addr().String() + "/buddyring"}
	if err := lis.Close(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		cfg      store.Config
		end      time.Duration // of the context
		min, max time.Duration
		want     error
	}{
		"away":  {cfg: nobody, end: time.Hour, min: startTime, max: startTime + 5*time.Second, want: member.ErrUnavailable},
		"ended": {cfg: nobody, end: time.Second, min: time.Second, max: 2 * time.Second, want: member.ErrUnavailable},
		"wrong": {cfg: store.Config{URL: "postgres://x"}, end: time.Hour, want: member.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), c.end)
				defer cancel()
				begun := time.Now()
				table, err := openTable(ctx, c.cfg, slog.New(slog.DiscardHandler))
				if took := time.Since(begun); table != nil || !errors.Is(err, c.want) || took < c.min || took > c.max {
					t.Errorf("%v after %v, want %v after %v to %v", err, took, c.want, c.min, c.max)
				}
			})
		})
	}
}

// A file that is no database will not become one.
func TestOpenTableDoesNotWaitForWhatIsNoDatabase(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(path, []byte(strings.Repeat("not a database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		table, err := openTable(t.Context(), store.Config{URL: "sqlite:" + path}, slog.New(slog.DiscardHandler))
		var denied *store.DeniedError
		if took := time.Since(begun); table != nil || !errors.As(err, &denied) || took > openPause/2 {
			t.Errorf("%v after %v, want a DeniedError at once", err, took)
		}
	})
}
