package command

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/buddyring/buddyring/buddyctl/output"
	"github.com/buddyring/buddyring/buddyctl/ringview"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func (a *app) ringCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "ring",
		Short:             "Draw who watches whom",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var ring *coordinatorv1.GetRingResponse
			err := a.askAdmin(cmd.Context(), func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
				ring, err = c.GetRing(ctx, &coordinatorv1.GetRingRequest{Pool: a.pool})
				return err
			})
			if err != nil {
				return err
			}
			return a.show(ring, func(w io.Writer) error { return ringview.Write(w, ring, a.Terminal) })
		},
	}
}

func (a *app) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Prove that table, memory, agents and ring agree",
		Long: "check proves that the ring is one symmetric cycle and that the table, the coordinator's\n" +
			"memory and the agents' acknowledged assignments agree. Exit status 1 when they do not.",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var check *coordinatorv1.CheckRingResponse
			err := a.askAdmin(cmd.Context(), func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
				check, err = c.CheckRing(ctx, &coordinatorv1.CheckRingRequest{Pool: a.pool})
				return err
			})
			if err != nil {
				return err
			}
			if err := a.show(check, func(w io.Writer) error { return a.writeCheck(w, check) }); err != nil {
				return err
			}
			if !check.GetConsistent() {
				return &noError{"the ring is not consistent"}
			}
			return nil
		},
	}
}

func (a *app) writeCheck(w io.Writer, c *coordinatorv1.CheckRingResponse) error {
	verdict := "consistent"
	if !c.GetConsistent() {
		verdict = "NOT CONSISTENT"
	}
	err := say(w, "%s at revision %d: %d of %d members have acknowledged whom they watch",
		verdict, c.GetRevision(), c.GetAcknowledged(), c.GetMembers())
	if err != nil || len(c.GetProblems()) == 0 {
		return err
	}
	g := output.NewGrid("SERVER", "KIND", "TEXT")
	for _, p := range c.GetProblems() {
		g.Add(p.GetServerId(), p.GetKind(), p.GetText())
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return g.Write(w, a.Terminal.Width)
}
