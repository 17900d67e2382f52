package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/buddyring/buddyring/buddyctl/output"
	"github.com/buddyring/buddyring/internal/member"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

func (a *app) pickCommand() *cobra.Command {
	var policy, endpoint, key, zone string
	var count uint32
	var exclude []string
	var all bool
	policies := routerv1.Policy(0).Descriptor()
	cmd := &cobra.Command{
		Use:   "pick",
		Short: "Let a router choose servers for a piece of work",
		Example: "  buddyctl pick\n  buddyctl pick -n 2 --policy round_robin --exclude web-3\n" +
			"  buddyctl pick --key session-7 --zone eu-1\n  buddyctl pick --all",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if all {
				return a.resolve(cmd.Context(), &routerv1.ResolveRequest{Pool: a.pool, Endpoint: endpoint, Zone: zone})
			}
			req := &routerv1.PickRequest{
				Pool: a.pool, Count: count, Endpoint: endpoint, Exclude: exclude, Key: key, Zone: zone,
			}
			if policy != "" {
				n, err := output.ParseName("policy", policies, policy)
				if err != nil {
					return err
				}
				req.Policy = routerv1.Policy(n)
			}
			return a.pick(cmd.Context(), req)
		},
	}
	f := cmd.Flags()
	f.StringVar(&policy, "policy", "", "how to choose: "+strings.Join(output.Names(policies), ", "))
	f.Uint32VarP(&count, "count", "n", 1, "how many different servers, at most 100")
	f.StringVar(&endpoint, "endpoint", "", "only servers that have an endpoint of this name")
	f.StringSliceVar(&exclude, "exclude", nil, "servers not to choose")
	f.StringVar(&key, "key", "", "choose by this, such as a session: the same key gets the same server (policy maglev)")
	f.StringVar(&zone, "zone", "", "prefer the servers of this zone as long as it can bear it")
	f.BoolVar(&all, "all", false, "list all servers that may get work, in order of preference")
	cmd.MarkFlagsMutuallyExclusive("all", "policy")
	cmd.MarkFlagsMutuallyExclusive("all", "count")
	cmd.MarkFlagsMutuallyExclusive("all", "exclude")
	cmd.MarkFlagsMutuallyExclusive("all", "key")
	complete(cmd, "policy", enum(policies))
	complete(cmd, "exclude", a.completeServers)
	return cmd
}

func (a *app) pick(ctx context.Context, req *routerv1.PickRequest) error {
	var answer *routerv1.PickResponse
	err := a.askRouter(ctx, func(ctx context.Context, c routerv1.RouterServiceClient) (err error) {
		answer, err = c.Pick(ctx, req)
		return noServer(err)
	})
	if err != nil {
		return err
	}
	return a.show(answer, func(w io.Writer) error {
		g := output.NewGrid("SERVER", "ADDRESS", "STATE")
		for _, c := range answer.GetChoices() {
			g.Add(c.GetServerId(), c.GetAddress(), output.Name(c.GetState()))
		}
		return a.writeFresh(w, g, answer.GetPool(), answer.GetFreshness())
	})
}

func (a *app) resolve(ctx context.Context, req *routerv1.ResolveRequest) error {
	var answer *routerv1.ResolveResponse
	err := a.askRouter(ctx, func(ctx context.Context, c routerv1.RouterServiceClient) (err error) {
		answer, err = c.Resolve(ctx, req)
		return noServer(err)
	})
	if err != nil {
		return err
	}
	if err := a.show(answer, func(w io.Writer) error {
		g := output.NewGrid("SERVER", "STATE", "ZONE", "WEIGHT", "ADDRESSES")
		for _, s := range answer.GetServers() {
			addresses := make([]string, len(s.GetEndpoints()))
			for i, e := range s.GetEndpoints() {
				addresses[i] = e.GetAddress()
			}
			share := number(member.DefaultWeight)
			if s.Weight != nil {
				share = number(s.GetWeight())
			}
			g.Add(s.GetServerId(), output.Name(s.GetState()), s.GetZone(), share, strings.Join(addresses, ","))
		}
		return a.writeFresh(w, g, answer.GetPool(), answer.GetFreshness())
	}); err != nil {
		return err
	}
	if len(answer.GetServers()) == 0 {
		return &noError{"no server may get work"}
	}
	return nil
}

// noServer makes a router's answer that it has nothing to give a no: the
// router itself was reached.
func noServer(err error) error {
	if answered(err) && errors.Is(err, member.ErrUnavailable) {
		return &noError{err.Error()}
	}
	return err
}

// writeFresh writes a table and how old it may be.
func (a *app) writeFresh(w io.Writer, g *output.Grid, pool string, f *routerv1.Freshness) error {
	if err := g.Write(w, a.Terminal.Width); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	stale := ""
	switch {
	case f.GetNotServed():
		stale = "; the coordinator does not serve the pool at present: see buddyctl alarms"
	case f.GetStale():
		stale = "; the router does not reach a coordinator"
	}
	return say(w, "pool %s at revision %d, confirmed %s ago%s",
		pool, f.GetRevision(), output.Milliseconds(f.GetAge().AsDuration()), stale)
}
