//go:build lab && linux && mariadb

package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/testdb"
)

// TestFullDiskUnderMariaDB fills the disk of a server that runs. Every answer is
// honest, nothing that was acknowledged is lost, also when the server is killed on
// the full disk, and space is all that is needed to go on.
func TestFullDiskUnderMariaDB(t *testing.T) {
	t.Parallel()
	onSmallDisk(t, "128m", func(t *testing.T, dir string) {
		server := testdb.Start(t)
		server.Exec(t, "CREATE DATABASE b")
		s := openStore(t, server.URL("b"))
		pool, err := s.CreatePool(t.Context(), lead(t, s).Epoch, store.NewPool{Name: "web", Settings: member.DefaultSettings()})
		if err != nil {
			t.Fatal(err)
		}
		free := ballast(t, dir)
		at, full := fill(t, s, pool.Position)
		checkHistory(t, s, at.Revision)
		// The lease is a row that is there, and needs no room.
		if err := s.Renew(t.Context(), at.Epoch); err != nil {
			t.Errorf("renew on a full disk: %v", err)
		}
		server.Kill(t)
		free()
		server.Restart(t)
		checkHistory(t, s, at.Revision)
		commit(t, s, full)
	})
}

// ballast fills a disk to the last byte.
func ballast(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range []int{64 << 10, 1 << 10} {
		for err = nil; err == nil; {
			_, err = file.Write(make([]byte, block))
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}
