package command

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/buddyring/buddyring/buddyctl/output"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func (a *app) alarmsCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "alarms",
		Short:             "List the active alarms and where the runbook has them",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list *coordinatorv1.ListAlarmsResponse
			err := a.askAdmin(cmd.Context(), func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
				list, err = c.ListAlarms(ctx, &coordinatorv1.ListAlarmsRequest{Pool: a.pool})
				return err
			})
			if err != nil {
				return err
			}
			return a.show(list, func(w io.Writer) error { return a.writeAlarms(w, list.GetAlarms()) })
		},
	}
}

func (a *app) writeAlarms(w io.Writer, alarms []*coordinatorv1.Alarm) error {
	if len(alarms) == 0 {
		return say(w, "no alarms")
	}
	g := output.NewGrid("ALARM", "POOL", "SUBJECT", "SINCE", "TEXT")
	var pages []string
	for _, alarm := range alarms {
		g.Add(alarm.GetName(), alarm.GetPool(), alarm.GetSubject(), output.Since(a.Now(), alarm.GetSince()), alarm.GetText())
		if page := alarm.GetRunbook(); page != "" && !slices.Contains(pages, page) {
			pages = append(pages, page)
		}
	}
	if err := g.Write(w, a.Terminal.Width); err != nil {
		return err
	}
	for i, page := range pages {
		if i == 0 {
			if err := say(w, ""); err != nil {
				return err
			}
		}
		if err := say(w, "what to do: %s", page); err != nil {
			return err
		}
	}
	return nil
}

// alarmCount says how many alarms there are and where to look.
func alarmCount(n uint32) string {
	if n == 0 {
		return "none"
	}
	return fmt.Sprintf("%d; see: buddyctl alarms", n)
}
