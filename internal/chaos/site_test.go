package chaos

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/buddyring/buddyring/internal/rpc"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// An experiment in which nobody ever leads again ends.
func TestNobodyLeads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 2*patience, errors.New("it waits for ever"))
		defer cancel()
		if c, _, err := new(site).leader(ctx); err == nil || ctx.Err() != nil {
			t.Errorf("%v, %v", c, err)
		}
	})
}

// A coordinator that ends by itself is noticed, also where another one takes over.
func TestCoordinatorThatCrashes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "buddyring-coordinator"), []byte("#!/bin/sh\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	credentials, err := rpc.NewCredentials(rpc.Security{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := &site{bin: dir, dir: dir, credentials: credentials}
	conn, err := s.dial("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := s.start(t.Context(), &coordinator{id: "c1", front: &front{}, conn: conn, client: pb.NewAdminServiceClient(conn)}); err == nil {
		t.Error("it was started")
	}
	if s.crashes() == nil {
		t.Error("nobody has noticed")
	}
}
