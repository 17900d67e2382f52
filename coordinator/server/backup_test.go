package server_test

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// realBackups returns a store with a pool of one server.
func realBackups(t *testing.T, path string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{URL: "sqlite:" + path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	l, err := s.Lead(t.Context(), store.Claim{Holder: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.CreatePool(t.Context(), l.Epoch, store.NewPool{Name: "web", Settings: member.DefaultSettings()})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Commit(t.Context(), member.Change{ID: "1", Pool: "web", Base: p.Position, Put: []member.Server{{
		ID: "web-1", Incarnation: 2, Phase: member.PhaseActive, JoinedAt: time.Now(), Since: time.Now(),
		Spec: member.Spec{ProbeAddresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "store.db")
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		table.Backups = realBackups(t, path)
		w := start(t, table)
		stream, err := w.admin.ExportState(t.Context(), &pb.ExportStateRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var backup []byte
		for {
			part, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			backup = append(backup, part.GetData()...)
		}
		info, err := store.CheckBackup(bytes.NewReader(backup))
		if err != nil {
			t.Fatal(err)
		}
		send := func(first *pb.ImportStateRequest, backup []byte) (*pb.ImportStateResponse, error) {
			stream, err := w.admin.ImportState(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			half := len(backup) / 2
			first.Data = backup[:half]
			_ = stream.Send(first)
			_ = stream.Send(&pb.ImportStateRequest{Data: backup[half:]})
			return stream.CloseAndRecv()
		}
		if _, err := send(&pb.ImportStateRequest{}, backup); !errors.Is(err, member.ErrRefused) {
			t.Errorf("over a database that is not empty: %v, want ErrRefused", err)
		}
		if _, err := send(&pb.ImportStateRequest{Replace: true}, backup[:len(backup)-10]); !errors.Is(err, member.ErrInvalid) {
			t.Errorf("a damaged backup: %v, want ErrInvalid", err)
		}
		if res, err := send(&pb.ImportStateRequest{Replace: true, ValidateOnly: true}, backup); err != nil || res.GetStoreId() != "" {
			t.Errorf("a check only: %v, %v", res, err)
		}
		res, err := send(&pb.ImportStateRequest{Replace: true, Reason: "drill"}, backup)
		if err != nil || res.GetServers() != 1 || res.GetPools() != 1 || res.GetBackupStoreId() != info.StoreID || res.GetStoreId() == info.StoreID {
			t.Errorf("%v, %v", res, err)
		}
	})
}
