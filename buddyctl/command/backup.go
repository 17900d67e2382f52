package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// backupPart bounds the data of one message.
const backupPart = 32 << 10

func (a *app) backupCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE",
		Short: "Write everything that can be restored to a file",
		Long: "backup writes pools, servers, intents and history, as of one moment, to a file that only its\n" +
			"owner can read. An earlier file is replaced once the new one is whole. Give a large one more\n" +
			"time with --timeout.",
		Args: exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var size int64
			err := a.askAdmin(cmd.Context(), func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
				size, err = writeBackup(ctx, c, args[0])
				return err
			})
			if err != nil {
				return err
			}
			return say(a.Stdout, "%d bytes written to %s", size, args[0])
		},
	}
}

// writeBackup writes next to path first, so that path is always whole.
func writeBackup(ctx context.Context, c coordinatorv1.AdminServiceClient, path string) (size int64, err error) {
	stream, err := c.ExportState(ctx, &coordinatorv1.ExportStateRequest{})
	if err != nil {
		return 0, err
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".buddyctl-backup-")
	if err != nil {
		return 0, &usageError{err}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, errors.Join(err, file.Close())
		}
		n, err := file.Write(part.GetData())
		if err != nil {
			return 0, errors.Join(err, file.Close())
		}
		size += int64(n)
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return 0, fmt.Errorf("write backup: %w", err)
	}
	return size, os.Rename(file.Name(), path)
}

func (a *app) restoreCommand() *cobra.Command {
	var replace, check bool
	var reason string
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make the coordinator's database what a backup says",
		Long: "restore makes the database what a backup says, whole or not at all. The coordinator stops\n" +
			"leading within seconds, and the next term serves what was restored. Without --replace the\n" +
			"database must be empty.",
		Args: exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			first := &coordinatorv1.ImportStateRequest{Replace: replace, Reason: reason, ValidateOnly: check}
			var answer *coordinatorv1.ImportStateResponse
			err := a.askAdmin(cmd.Context(), func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
				answer, err = sendBackup(ctx, c, args[0], first)
				return err
			})
			if err != nil {
				return err
			}
			m := mutation{validateOnly: check}
			return a.changed(&m, answer, fmt.Sprintf("restored %d servers in %d pools from the backup of %s; the database is now %s",
				answer.GetServers(), answer.GetPools(), answer.GetBackupAt().AsTime().Format("2006-01-02T15:04:05Z"), answer.GetStoreId()))
		},
	}
	f := cmd.Flags()
	f.BoolVar(&replace, "replace", false, "let go of what the database has")
	f.StringVar(&reason, "reason", "", "why, for the history")
	f.BoolVar(&check, "validate-only", false, "check everything and change nothing; also --dry-run")
	return cmd
}

func sendBackup(
	ctx context.Context, c coordinatorv1.AdminServiceClient, path string, message *coordinatorv1.ImportStateRequest,
) (answer *coordinatorv1.ImportStateResponse, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, &usageError{err}
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	stream, err := c.ImportState(ctx)
	if err != nil {
		return nil, err
	}
	part := make([]byte, backupPart)
	for {
		n, err := io.ReadFull(file, part)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, &usageError{err}
		}
		message.Data = part[:n]
		if sent := stream.Send(message); sent != nil || err != nil {
			// After a failed Send, the answer says why.
			return stream.CloseAndRecv()
		}
		message = &coordinatorv1.ImportStateRequest{}
	}
}
