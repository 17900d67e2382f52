package command

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/buddyring/buddyring/buddyctl/output"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func (a *app) repairCommand() *cobra.Command {
	var m mutation
	cmd := &cobra.Command{
		Use:   "repair",
		Short: "Make right what check finds",
		Long: "repair makes table, memory and the agents' lists agree where \"buddyctl check\" says that they do\n" +
			"not: rows become what the coordinator has told everybody, members that only the table knows\n" +
			"join in the place that their row names, and agents are told again whom to watch. It removes\n" +
			"nobody.",
		Example:           "  buddyctl repair --dry-run\n  buddyctl repair --expected-revision 42 --reason \"a row was edited by hand\"",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req := &coordinatorv1.RepairRingRequest{
				Pool: a.pool, ExpectedRevision: m.revision, RequestId: m.requestID, Reason: m.reason, ValidateOnly: m.validateOnly,
			}
			var answer *coordinatorv1.RepairRingResponse
			err := a.askAdmin(cmd.Context(), func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
				answer, err = c.RepairRing(ctx, req)
				return err
			})
			if err != nil {
				return m.unsure(err)
			}
			return a.show(answer, func(w io.Writer) error { return a.writeRepairs(w, &m, answer) })
		},
	}
	m.flags(cmd, true)
	return cmd
}

func (a *app) writeRepairs(w io.Writer, m *mutation, r *coordinatorv1.RepairRingResponse) error {
	n, revision := len(r.GetRepairs()), r.GetRevision()
	head := fmt.Sprintf("%s at revision %d:", count(uint32(n), "repair"), revision)
	switch {
	case n == 0:
		return say(w, "nothing to repair at revision %d", revision)
	case m.validateOnly:
		head = fmt.Sprintf("nothing was changed; with --expected-revision %d a repair does just this:", revision)
	}
	for _, line := range []string{head, ""} {
		if err := say(w, "%s", line); err != nil {
			return err
		}
	}
	g := output.NewGrid("SERVER", "REPAIR", "TEXT")
	for _, p := range r.GetRepairs() {
		g.Add(p.GetServerId(), p.GetKind(), p.GetText())
	}
	return g.Write(w, a.Terminal.Width)
}
