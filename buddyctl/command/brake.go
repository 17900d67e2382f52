package command

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/buddyring/buddyring/buddyctl/explain"
	"github.com/buddyring/buddyring/buddyctl/output"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func (a *app) brakeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "brake",
		Short: "Whether removals are held, whose and why; confirm them",
		Long: "brake shows where a pool stands between its brake, which holds removals when too many servers\n" +
			"are suspect at once, and its floor, which keeps a part of the pool whatever happens.\n\n" +
			"Exit status: 0 neither brake nor floor hold removals, 1 they do.",
		Example:           "  buddyctl brake\n  buddyctl brake release web-3 web-4 --reason \"the rack lost power\"",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var brake *coordinatorv1.GetBrakeResponse
			var pool *coordinatorv1.GetPoolResponse
			err := a.askAdmin(cmd.Context(), func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
				if brake, err = c.GetBrake(ctx, &coordinatorv1.GetBrakeRequest{Pool: a.pool}); err != nil {
					return err
				}
				pool, err = c.GetPool(ctx, &coordinatorv1.GetPoolRequest{Pool: a.pool})
				return err
			})
			if err != nil {
				return err
			}
			if err := a.show(brake, func(w io.Writer) error { return a.writeBrake(w, brake, pool.GetPool().GetSettings().GetMode()) }); err != nil {
				return err
			}
			if len(brake.GetStops()) > 0 {
				return &noError{"removals by verdict are held"}
			}
			return nil
		},
	}
	cmd.AddCommand(a.brakeReleaseCommand())
	return cmd
}

func (a *app) writeBrake(w io.Writer, b *coordinatorv1.GetBrakeResponse, mode coordinatorv1.Mode) error {
	s := b.GetSafety()
	var lines []string
	for _, stop := range b.GetStops() {
		lines = append(lines, fmt.Sprintf("HELD for %s by %s: %s", output.Since(a.Now(), stop.GetSince()), stop.GetRule(), stop.GetText()))
	}
	switch {
	case mode == coordinatorv1.Mode_MODE_SHADOW:
		lines = append(lines, "the pool is in shadow mode: nobody is removed")
	case mode == coordinatorv1.Mode_MODE_PAUSED:
		lines = append(lines, "the pool is paused: nobody is removed")
	case len(lines) == 0:
		lines = append(lines, "removals by verdict go on")
	}
	lines = append(lines, explain.Safety(s), fmt.Sprintf("%d members of %d", s.GetMembers(), s.GetReferenceSize()))
	for _, z := range b.GetZones() {
		lines = append(lines, fmt.Sprintf("zone %s: %s of %d allowed, %s", z.GetZone(), explain.Suspects(z.GetSuspects()), z.GetLimit(), count(z.GetMembers(), "member")))
	}
	for _, r := range b.GetReleased() {
		lines = append(lines, fmt.Sprintf("%s is confirmed to be gone, for another %s", r.GetServerId(), output.Until(a.Now(), r.GetUntil())))
	}
	if kept := b.GetKeptByRouters(); len(kept) > 0 {
		lines = append(lines, "removed, but kept by routers as a last resort: "+strings.Join(kept, ", "))
	}
	for _, line := range lines {
		if err := say(w, "%s", line); err != nil {
			return err
		}
	}
	if len(b.GetHeld()) == 0 {
		return nil
	}
	if err := say(w, ""); err != nil {
		return err
	}
	g := output.NewGrid("HELD", "ZONE", "RACK", "SUSPECT FOR")
	for _, h := range b.GetHeld() {
		g.Add(h.GetServerId(), h.GetZone(), h.GetRack(), output.Since(a.Now(), h.GetSuspectSince()))
	}
	if err := g.Write(w, a.Terminal.Width); err != nil {
		return err
	}
	if err := say(w, ""); err != nil {
		return err
	}
	return say(w, "if they are gone: buddyctl brake release")
}

func (a *app) brakeReleaseCommand() *cobra.Command {
	var m mutation
	cmd := &cobra.Command{
		Use:   "release [SERVER]...",
		Short: "Confirm that servers whose removal is held are gone; all of them without names",
		Long: "release confirms that servers whose removal brake or floor hold are gone. For a minute their\n" +
			"removal passes both, if the observers still miss them then. Routers let go of the removed\n" +
			"servers that they keep as a last resort.\n\n" +
			"Look before you release: if it is the network that is gone, the servers are not.",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeServers,
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &coordinatorv1.ReleaseBrakeRequest{
				Pool: a.pool, ServerIds: args, ExpectedRevision: m.revision,
				RequestId: m.requestID, Reason: m.reason, ValidateOnly: m.validateOnly,
			}
			var answer *coordinatorv1.ReleaseBrakeResponse
			err := a.askAdmin(cmd.Context(), func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
				answer, err = c.ReleaseBrake(ctx, req)
				return err
			})
			if err != nil {
				return m.unsure(err)
			}
			return a.show(answer, func(w io.Writer) error { return a.writeReleased(w, &m, answer) })
		},
	}
	m.flags(cmd, true)
	return cmd
}

func (a *app) writeReleased(w io.Writer, m *mutation, r *coordinatorv1.ReleaseBrakeResponse) error {
	names := make([]string, len(r.GetReleased()))
	for i, s := range r.GetReleased() {
		names[i] = s.GetServerId()
	}
	switch {
	case m.validateOnly && len(names) > 0:
		return say(w, "valid; it would confirm that these are gone: %s; nothing was changed", strings.Join(names, ", "))
	case m.validateOnly:
		return say(w, "valid; nothing was changed")
	case len(names) == 0:
		return say(w, "confirmed at revision %d; no member waits for that, and routers let go of the removed servers that they keep", r.GetRevision())
	}
	return say(w, "confirmed at revision %d that these are gone: %s; they leave within a minute if they are still missed",
		r.GetRevision(), strings.Join(names, ", "))
}
