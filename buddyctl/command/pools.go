package command

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/buddyring/buddyring/buddyctl/output"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func (a *app) poolsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "pools",
		Short:             "List pools; show, create and change one",
		Example:           "  buddyctl pools get default\n  buddyctl pools create edge\n  buddyctl pools update default --mode shadow",
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
			return a.showGrid(&coordinatorv1.ListPoolsResponse{Pools: pools}, poolGrid(pools), "no pools")
		},
	}
	cmd.AddCommand(a.poolsGetCommand(), a.poolsCreateCommand(), a.poolsUpdateCommand())
	return cmd
}

func listPools(ctx context.Context, c coordinatorv1.AdminServiceClient) ([]*coordinatorv1.Pool, error) {
	return pages(func(token string) ([]*coordinatorv1.Pool, string, error) {
		page, err := c.ListPools(ctx, &coordinatorv1.ListPoolsRequest{PageSize: pageSize, PageToken: token})
		return page.GetPools(), page.GetNextPageToken(), err
	})
}

func poolGrid(pools []*coordinatorv1.Pool) *output.Grid {
	g := output.NewGrid("POOL", "MODE", "MEMBERS", "ACTIVE", "SUSPECT", "REFERENCE", "REVISION")
	for _, p := range pools {
		mode := output.Name(p.GetSettings().GetMode())
		if p.GetWarmingUp() {
			mode += " (warming up)"
		}
		g.Add(p.GetPool(), mode, number(p.GetMembers()), number(p.GetActive()), number(p.GetSuspect()),
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
	if err := poolGrid([]*coordinatorv1.Pool{p}).Write(w, a.Terminal.Width); err != nil {
		return err
	}
	g := output.NewGrid("SETTING", "VALUE")
	g.Add("mode", output.Name(s.GetMode()))
	for _, d := range durationSettings {
		g.Add(d.flag, d.get(s).AsDuration().String())
	}
	if err := say(w, ""); err != nil {
		return err
	}
	return g.Write(w, a.Terminal.Width)
}

// durationSettings are the settings of a pool that are lengths of time.
var durationSettings = [...]struct { //nolint:gochecknoglobals // a constant table
	flag, help string
	get        func(*coordinatorv1.PoolSettings) *durationpb.Duration
	set        func(*coordinatorv1.PoolSettings, *durationpb.Duration)
}{
	{
		"probe-interval", "how often each watcher probes; 100ms to 10s",
		(*coordinatorv1.PoolSettings).GetProbeInterval,
		func(s *coordinatorv1.PoolSettings, d *durationpb.Duration) { s.ProbeInterval = d },
	},
	{
		"stall-tolerance", "how long probes must fail before a removal; 100ms to 60s",
		(*coordinatorv1.PoolSettings).GetStallTolerance,
		func(s *coordinatorv1.PoolSettings, d *durationpb.Duration) { s.StallTolerance = d },
	},
	{
		"removal-grace", "delays removals, never the suspect mark; up to 10m",
		(*coordinatorv1.PoolSettings).GetRemovalGrace,
		func(s *coordinatorv1.PoolSettings, d *durationpb.Duration) { s.RemovalGrace = d },
	},
	{
		"hold-down", "the first hold-down of a server that returns after a crash; up to 1h",
		(*coordinatorv1.PoolSettings).GetHoldDown,
		func(s *coordinatorv1.PoolSettings, d *durationpb.Duration) { s.HoldDown = d },
	},
	{
		"hold-down-max", "the longest hold-down; up to 24h",
		(*coordinatorv1.PoolSettings).GetHoldDownMax,
		func(s *coordinatorv1.PoolSettings, d *durationpb.Duration) { s.HoldDownMax = d },
	},
}

// settingsFlags are the flags of a pool's settings.
type settingsFlags struct {
	mode      string
	durations [len(durationSettings)]time.Duration
}

func (s *settingsFlags) define(cmd *cobra.Command) {
	modes := coordinatorv1.Mode(0).Descriptor()
	cmd.Flags().StringVar(&s.mode, "mode", "",
		"what happens with a confirmed verdict: "+strings.Join(output.Names(modes), ", "))
	complete(cmd, "mode", enum(modes))
	for i, d := range durationSettings {
		cmd.Flags().DurationVar(&s.durations[i], d.flag, 0, d.help)
	}
}

// parse returns the settings whose flags are set, and their field names.
func (s *settingsFlags) parse(cmd *cobra.Command) (*coordinatorv1.PoolSettings, []string, error) {
	settings := &coordinatorv1.PoolSettings{}
	var fields []string
	if cmd.Flags().Changed("mode") {
		n, err := output.ParseName("mode", settings.Mode.Descriptor(), s.mode)
		if err != nil {
			return nil, nil, err
		}
		settings.Mode = coordinatorv1.Mode(n)
		fields = append(fields, "mode")
	}
	for i, d := range durationSettings {
		if cmd.Flags().Changed(d.flag) {
			d.set(settings, durationpb.New(s.durations[i]))
			fields = append(fields, strings.ReplaceAll(d.flag, "-", "_"))
		}
	}
	return settings, fields, nil
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
