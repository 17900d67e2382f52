package server

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/observe"
)

// restoreCommand restores without a coordinator: where none can start, or on the
// way to another database.
func (o *options) restoreCommand() *cobra.Command {
	var replace bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make the database what a backup of buddyctl says and exit",
		Long: "restore makes the database in --store what a backup says, whole or not at all. It brings the\n" +
			"schema up to date first. A coordinator that still runs on the database is fenced.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			log, err := observe.NewLogger(cmd.ErrOrStderr(), o.log)
			if err != nil {
				return err
			}
			p, err := o.parse(log)
			if err != nil {
				return err
			}
			r, err := p.restore(cmd, args[0], replace)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "restored %d servers in %d pools from the backup of %s; the database is now %s\n",
				r.Servers, r.Pools, r.Backup.At.Format(time.RFC3339), r.StoreID)
			return err
		},
	}
	cmd.Flags().BoolVar(&replace, "replace", false, "let go of what the database has")
	return cmd
}

func (p program) restore(cmd *cobra.Command, path string, replace bool) (r store.Restored, err error) {
	file, err := os.Open(path)
	if err != nil {
		return r, fmt.Errorf("open backup: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := p.makeStateDir(); err != nil {
		return r, err
	}
	if _, _, err := store.ApplySchema(cmd.Context(), p.store); err != nil {
		return r, err
	}
	table, err := store.Open(cmd.Context(), p.store)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, table.Close()) }()
	return table.Restore(cmd.Context(), file, store.RestoreOptions{Replace: replace, Actor: actorSelf})
}
