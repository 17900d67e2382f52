package command

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/buddyring/buddyring/buddyctl/output"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func (a *app) sessionsCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "sessions",
		Short:             "List the agents' live sessions and what each agent sees",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var sessions []*coordinatorv1.AgentSession
			err := a.askAdmin(cmd.Context(), func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
				sessions, err = pages(func(token string) ([]*coordinatorv1.AgentSession, string, error) {
					page, err := c.ListSessions(ctx, &coordinatorv1.ListSessionsRequest{
						Pool: a.pool, PageSize: pageSize, PageToken: token,
					})
					return page.GetSessions(), page.GetNextPageToken(), err
				})
				return err
			})
			if err != nil {
				return err
			}
			return a.showGrid(&coordinatorv1.ListSessionsResponse{Sessions: sessions}, a.sessionGrid(sessions), "no sessions")
		},
	}
}

func (a *app) sessionGrid(sessions []*coordinatorv1.AgentSession) *output.Grid {
	g := output.NewGrid("SERVER", "PEER", "VERSION", "SINCE", "HEARD", "ASSIGNMENT", "SELF", "SEES")
	for _, s := range sessions {
		assignment := "acknowledged"
		if s.GetAcknowledgedSeq() != s.GetAssignedSeq() {
			assignment = fmt.Sprintf("%d of %d", s.GetAcknowledgedSeq(), s.GetAssignedSeq())
		}
		self := "healthy"
		if s.GetSelfScore() > 0 {
			self = fmt.Sprintf("unsure (%d)", s.GetSelfScore())
		}
		g.Add(s.GetServerId(), s.GetPeer(), s.GetVersion(), output.Since(a.Now(), s.GetSince()),
			output.Since(a.Now(), s.GetLastHeard()), assignment, self, sights(s.GetSubjects()))
	}
	return g
}

func sights(subjects []*coordinatorv1.SessionSubject) string {
	texts := make([]string, len(subjects))
	for i, s := range subjects {
		texts[i] = s.GetServerId() + " " + strings.ReplaceAll(s.GetSight(), "_", " ")
		if s.GetRtt() != nil {
			texts[i] += " " + output.RTT(s.GetRtt())
		}
		if s.GetLostOfTen() > 0 {
			texts[i] += fmt.Sprintf(" (lost %d of 10)", s.GetLostOfTen())
		}
	}
	return strings.Join(texts, ", ")
}
