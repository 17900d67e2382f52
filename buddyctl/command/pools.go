package command

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/buddyring/buddyring/buddyctl/output"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func (a *app) poolsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "pools",
		Short:             "List pools; show, create, change and delete one",
		Example:           "  buddyctl pools get default\n  buddyctl pools create edge\n  buddyctl pools update default --mode shadow\n  buddyctl pools delete edge",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var pools []*coordinatorv1.Pool
			err := a.askAdmin(cmd.Context(), func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
				pools, err = listPools(ctx, c)
				return err
			})
			if err != nil {
				return err
			}
			return a.showGrid(&coordinatorv1.ListPoolsResponse{Pools: pools}, poolGrid(pools, a.standby), "no pools")
		},
	}
	cmd.AddCommand(a.poolsGetCommand(), a.poolsCreateCommand(), a.poolsUpdateCommand(), a.poolsDeleteCommand())
	return cmd
}

func listPools(ctx context.Context, c coordinatorv1.AdminServiceClient) ([]*coordinatorv1.Pool, error) {
	return pages(func(token string) ([]*coordinatorv1.Pool, string, error) {
		page, err := c.ListPools(ctx, &coordinatorv1.ListPoolsRequest{PageSize: pageSize, PageToken: token})
		return page.GetPools(), page.GetNextPageToken(), err
	})
}

// poolGrid leaves out what is not known when a standby has answered.
func poolGrid(pools []*coordinatorv1.Pool, standby bool) *output.Grid {
	g := output.NewGrid("POOL", "MODE", "MEMBERS", "ACTIVE", "SUSPECT", "SERVICE DOWN", "REFERENCE", "REVISION")
	for _, p := range pools {
		mode := output.Name(p.GetSettings().GetMode())
		if p.GetWarmingUp() {
			mode += " (warming up)"
		}
		if p.GetBrakeEngaged() {
			mode += " (braked)"
		}
		suspect := number(p.GetSuspect())
		if standby {
			suspect = ""
		}
		g.Add(p.GetPool(), mode, number(p.GetMembers()), number(p.GetActive()), suspect, number(p.GetServiceDown()),
			number(p.GetReferenceSize()), strconv.FormatUint(p.GetRevision(), 10))
	}
	return g
}

func number(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

func (a *app) poolsGetCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "get [POOL]",
		Short:             "Show a pool and its settings",
		Args:              optional,
		ValidArgsFunction: arguments(a.completePools),
		RunE: func(cmd *cobra.Command, args []string) error {
			var answer *coordinatorv1.GetPoolResponse
			err := a.askAdmin(cmd.Context(), func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
				answer, err = c.GetPool(ctx, &coordinatorv1.GetPoolRequest{Pool: a.poolOr(args)})
				return err
			})
			if err != nil {
				return err
			}
			return a.show(answer, func(w io.Writer) error { return a.writePool(w, answer.GetPool()) })
		},
	}
}

// poolOr is the pool that the first argument names, or else --pool.
func (a *app) poolOr(args []string) string {
	if len(args) > 0 {
		return args[0]
	}
	return a.pool
}

func (a *app) writePool(w io.Writer, p *coordinatorv1.Pool) error {
	s := p.GetSettings()
	if err := poolGrid([]*coordinatorv1.Pool{p}, a.standby).Write(w, a.Terminal.Width); err != nil {
		return err
	}
	g := output.NewGrid("SETTING", "VALUE")
	g.Add("mode", output.Name(s.GetMode()))
	for _, d := range durationSettings {
		g.Add(d.flag, d.of(s).AsDuration().String())
	}
	for _, n := range numberSettings {
		if v := n.of(s); v != nil {
			g.Add(n.flag, number(*v))
		}
	}
	if err := say(w, ""); err != nil {
		return err
	}
	return g.Write(w, a.Terminal.Width)
}

func (a *app) poolsCreateCommand() *cobra.Command {
	var m mutation
	var flags settingsFlags
	cmd := &cobra.Command{
		Use:               "create POOL",
		Short:             "Create an empty pool",
		Args:              exactly("POOL"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			settings, _, err := flags.parse(cmd)
			if err != nil {
				return err
			}
			req := &coordinatorv1.CreatePoolRequest{
				Pool: args[0], Settings: settings, RequestId: m.requestID, Reason: m.reason, ValidateOnly: m.validateOnly,
			}
			var answer *coordinatorv1.CreatePoolResponse
			err = a.askAdmin(cmd.Context(), func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
				answer, err = c.CreatePool(ctx, req)
				return err
			})
			if err != nil {
				return m.unsure(err)
			}
			return a.changed(&m, answer, "created pool "+args[0])
		},
	}
	flags.define(cmd)
	m.flags(cmd, false)
	return cmd
}

func (a *app) poolsUpdateCommand() *cobra.Command {
	var m mutation
	var flags settingsFlags
	cmd := &cobra.Command{
		Use:               "update [POOL]",
		Short:             "Change settings of a pool",
		Args:              optional,
		ValidArgsFunction: arguments(a.completePools),
		RunE: func(cmd *cobra.Command, args []string) error {
			settings, fields, err := flags.parse(cmd)
			if err != nil {
				return err
			}
			if err := anyOf(cmd, fields); err != nil {
				return err
			}
			req := &coordinatorv1.UpdatePoolRequest{
				Pool: a.poolOr(args), Settings: settings, UpdateMask: &fieldmaskpb.FieldMask{Paths: fields},
				ExpectedRevision: m.revision, RequestId: m.requestID, Reason: m.reason, ValidateOnly: m.validateOnly,
			}
			var answer *coordinatorv1.UpdatePoolResponse
			err = a.askAdmin(cmd.Context(), func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
				answer, err = c.UpdatePool(ctx, req)
				return err
			})
			if err != nil {
				return m.unsure(err)
			}
			return a.changed(&m, answer, fmt.Sprintf("changed %s of pool %s at revision %d",
				strings.Join(slices.Sorted(slices.Values(fields)), ", "), answer.GetPool().GetPool(), answer.GetPool().GetRevision()))
		},
	}
	flags.define(cmd)
	m.flags(cmd, true)
	return cmd
}

func (a *app) poolsDeleteCommand() *cobra.Command {
	var m mutation
	var force bool
	cmd := &cobra.Command{
		Use:   "delete POOL",
		Short: "Delete a pool with all that belongs to it",
		Long: "delete ends a pool with its settings, wishes, bans and history. Routers forget it. No server that\n" +
			"joins makes a pool of that name again, only \"buddyctl pools create\".\n\n" +
			"Exit status: 4 refused: it has servers or is not served, or is the pool default.",
		Args:              exactly("POOL"),
		ValidArgsFunction: arguments(a.completePools),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &coordinatorv1.DeletePoolRequest{
				Pool: args[0], Force: force, ExpectedRevision: m.revision,
				RequestId: m.requestID, Reason: m.reason, ValidateOnly: m.validateOnly,
			}
			var answer *coordinatorv1.DeletePoolResponse
			err := a.askAdmin(cmd.Context(), func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
				answer, err = c.DeletePool(ctx, req)
				return err
			})
			if err != nil {
				return m.unsure(err)
			}
			done := fmt.Sprintf("deleted pool %s at revision %d", args[0], answer.GetRevision())
			if answer.Servers != nil {
				done += fmt.Sprintf(", with %s", count(answer.GetServers(), "server"))
			}
			return a.changed(&m, answer, done)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also with servers in it, and one that is not served")
	m.flags(cmd, true)
	return cmd
}
