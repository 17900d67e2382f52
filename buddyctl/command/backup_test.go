package command_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buddyring/buddyring/internal/member"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// keeper is a coordinator that backs up and restores.
type keeper struct {
	*fakeAdmin

	backup []byte
	// broken ends a backup halfway.
	broken bool
	first  *coordinatorv1.ImportStateRequest
	got    []byte
}

func (k *keeper) ExportState(_ *coordinatorv1.ExportStateRequest, s coordinatorv1.AdminService_ExportStateServer) error {
	half := len(k.backup) / 2
	if err := s.Send(&coordinatorv1.ExportStateResponse{Data: k.backup[:half]}); err != nil || k.broken {
		return errors.Join(err, errors.New("the disk is full"))
	}
	return s.Send(&coordinatorv1.ExportStateResponse{Data: k.backup[half:]})
}

func (k *keeper) ImportState(s coordinatorv1.AdminService_ImportStateServer) error {
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if k.first == nil {
			k.first = m
		}
		k.got = append(k.got, m.GetData()...)
	}
	if !k.first.GetReplace() {
		return fmt.Errorf("restore: %w", &member.RefusedError{Rule: "not_empty", Reason: "the database has 3 servers"})
	}
	return s.SendAndClose(&coordinatorv1.ImportStateResponse{
		StoreId: "new", Pools: 1, Servers: 3, BackupAt: timestamppb.New(time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)),
	})
}

func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	n, k := &network{}, &keeper{fakeAdmin: busyAdmin(), backup: bytes.Repeat([]byte("0123456789abcdef\n"), 10_000)}
	n.serveServices(t, "127.0.0.1:7401", func(s grpc.ServiceRegistrar) { coordinatorv1.RegisterAdminServiceServer(s, k) })
	path := filepath.Join(t.TempDir(), "backup")
	if r := n.run(t, "backup", path); r.code != 0 || r.stdout != "170000 bytes written to "+path+"\n" {
		t.Fatalf("exit %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, k.backup) {
		t.Errorf("%d bytes in the file, %v", len(got), err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v: it is not only the owner's", info.Mode(), err)
	}

	if r := n.run(t, "restore", path); r.code != 4 {
		t.Errorf("exit %d, stderr %q, want a refusal", r.code, r.stderr)
	}
	k.first, k.got = nil, nil
	r := n.run(t, "restore", path, "--replace", "--reason", "drill")
	if want := "restored 3 servers in 1 pools from the backup of 2026-11-25T12:00:00Z; the database is now new\n"; r.code != 0 || r.stdout != want {
		t.Errorf("exit %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
	if !bytes.Equal(k.got, k.backup) || k.first.GetReason() != "drill" {
		t.Errorf("%d bytes came, reason %q", len(k.got), k.first.GetReason())
	}
	if r := n.run(t, "restore", filepath.Join(t.TempDir(), "absent")); r.code != 2 {
		t.Errorf("exit %d for a file that is not there, want 2", r.code)
	}
}

// A backup that breaks off leaves the one before, and nothing else.
func TestBrokenBackupLeavesTheOneBefore(t *testing.T) {
	t.Parallel()
	n, k := &network{}, &keeper{fakeAdmin: busyAdmin(), backup: []byte("new backup"), broken: true}
	n.serveServices(t, "127.0.0.1:7401", func(s grpc.ServiceRegistrar) { coordinatorv1.RegisterAdminServiceServer(s, k) })
	dir := t.TempDir()
	path := filepath.Join(dir, "backup")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := n.run(t, "backup", path); r.code == 0 {
		t.Errorf("exit 0, stdout %q", r.stdout)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "old" {
		t.Errorf("the file has %q, %v", got, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); strings.Join(left, "") != "" {
		t.Errorf("%v is left", left)
	}
}
