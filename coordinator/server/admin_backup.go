package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"google.golang.org/grpc"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// Backups writes and reads everything that the table holds.
type Backups interface {
	Backup(ctx context.Context, w io.Writer) (store.BackupInfo, error)
	Restore(ctx context.Context, r io.ReadSeeker, o store.RestoreOptions) (store.Restored, error)
}

const (
	// backupPart bounds the data of one message that is sent.
	backupPart = 32 << 10
	// maxBackup bounds a backup that is received, on the coordinator's disk.
	maxBackup = 4 << 30
)

// ExportState sends a backup. It is written to disk first, so that a slow
// receiver does not keep a transaction open.
func (a *adminService) ExportState(_ *pb.ExportStateRequest, stream grpc.ServerStreamingServer[pb.ExportStateResponse]) (err error) {
	file, err := scratch()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, err := a.backups.Backup(stream.Context(), file); err != nil {
		return err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read backup: %w", err)
	}
	part := make([]byte, backupPart)
	for {
		n, err := file.Read(part)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read backup: %w", err)
		}
		select {
		case <-a.closing.done():
			return a.closing.reason()
		default:
		}
		if err := stream.Send(&pb.ExportStateResponse{Data: part[:n]}); err != nil {
			return err
		}
	}
}

// ImportState restores a backup once all of it is there. The term ends by
// itself: its next renewal finds a later epoch.
func (a *adminService) ImportState(stream grpc.ClientStreamingServer[pb.ImportStateRequest, pb.ImportStateResponse]) (err error) {
	first, err := stream.Recv()
	if err != nil {
		return fmt.Errorf("receive backup: %w", err)
	}
	reason, err := parseText("reason", first.GetReason(), member.MaxReasonBytes)
	if err != nil {
		return err
	}
	file, err := scratch()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := receive(file, first.GetData(), stream); err != nil {
		return err
	}
	restored, err := a.backups.Restore(stream.Context(), file, store.RestoreOptions{
		Replace: first.GetReplace(), CheckOnly: first.GetValidateOnly(),
		Actor: peerOf(stream.Context()).actor(), Reason: reason,
	})
	if err != nil {
		return err
	}
	return stream.SendAndClose(&pb.ImportStateResponse{
		StoreId: restored.StoreID, Epoch: uint64(restored.Epoch),
		Pools: toCount(restored.Pools), Servers: toCount(restored.Servers),
		BackupAt: toTime(restored.Backup.At), BackupStoreId: restored.Backup.StoreID,
	})
}

func receive(to io.Writer, data []byte, stream grpc.ClientStreamingServer[pb.ImportStateRequest, pb.ImportStateResponse]) error {
	for size := 0; ; {
		if size += len(data); size > maxBackup {
			return member.Invalid("data", "is longer than %d bytes", maxBackup)
		}
		if _, err := to.Write(data); err != nil {
			return fmt.Errorf("%w: write backup to disk: %w", member.ErrUnavailable, err)
		}
		next, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receive backup: %w", err)
		}
		data = next.GetData()
	}
}

// scratch returns a file without a name, which is gone once it is closed.
func scratch() (*os.File, error) {
	file, err := os.CreateTemp("", "buddyring-backup-")
	if err != nil {
		return nil, fmt.Errorf("%w: make a scratch file: %w", member.ErrUnavailable, err)
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("make a scratch file: %w", err), file.Close())
	}
	return file, nil
}
