package command

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buddyring/buddyring/buddyctl/output"
	"github.com/buddyring/buddyring/internal/member"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func (a *app) serversCommand() *cobra.Command {
	var phases, labels []string
	var zone string
	var suspect bool
	cmd := &cobra.Command{
		Use:               "servers",
		Short:             "List the servers of a pool; show and change one",
		Example:           "  buddyctl servers --phase active --zone a\n  buddyctl servers get web-3\n  buddyctl servers update web-3 --weight 50 --reason \"half a machine\"",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req := &coordinatorv1.ListServersRequest{Pool: a.pool, Zone: zone}
			var err error
			if req.Phases, err = parsePhases(phases); err != nil {
				return err
			}
			if req.Labels, err = parseLabels(labels); err != nil {
				return err
			}
			if cmd.Flags().Changed("suspect") {
				req.Suspect = &suspect
			}
			var list *coordinatorv1.ListServersResponse
			err = a.askAdmin(cmd.Context(), func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
				list, err = listServers(ctx, c, req)
				return err
			})
			if err != nil {
				return err
			}
			return a.show(list, func(w io.Writer) error { return a.writeServers(w, list.GetServers()) })
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&phases, "phase", nil, "only servers in these phases")
	f.StringVar(&zone, "zone", "", "only servers in this zone")
	f.StringArrayVar(&labels, "label", nil, "only servers with this `KEY=VALUE`; repeatable")
	f.BoolVar(&suspect, "suspect", false, "only suspect servers; --suspect=false for only others")
	complete(cmd, "phase", enum(coordinatorv1.Phase(0).Descriptor()))
	cmd.AddCommand(a.serversGetCommand(), a.serversUpdateCommand())
	return cmd
}

func parsePhases(names []string) ([]coordinatorv1.Phase, error) {
	var phases []coordinatorv1.Phase
	for _, name := range names {
		n, err := output.ParseName("phase", coordinatorv1.Phase(0).Descriptor(), name)
		if err != nil {
			return nil, err
		}
		phases = append(phases, coordinatorv1.Phase(n))
	}
	return phases, nil
}

func parseLabels(pairs []string) (map[string]string, error) {
	labels := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, member.Invalid("label", "%q is not KEY=VALUE", pair)
		}
		labels[key] = value
	}
	return labels, nil
}

// listServers returns all members that match, as one page.
func listServers(
	ctx context.Context, c coordinatorv1.AdminServiceClient, req *coordinatorv1.ListServersRequest,
) (*coordinatorv1.ListServersResponse, error) {
	list := &coordinatorv1.ListServersResponse{}
	servers, err := pages(func(token string) ([]*coordinatorv1.Server, string, error) {
		req.PageSize, req.PageToken = pageSize, token
		page, err := c.ListServers(ctx, req)
		list.Revision = page.GetRevision()
		return page.GetServers(), page.GetNextPageToken(), err
	})
	list.Servers = servers
	return list, err
}

func (a *app) writeServers(w io.Writer, servers []*coordinatorv1.Server) error {
	if len(servers) == 0 {
		return say(w, "no servers")
	}
	g := output.NewGrid("SERVER", "STATE", "FOR", "AGENT", "FIRST_BUDDY", "SECOND_BUDDY", "ZONE/RACK", "WEIGHT", "ENDPOINTS")
	for _, s := range servers {
		agent := "gone"
		if s.GetAgentConnected() {
			agent = "here"
		}
		place := strings.TrimSuffix(s.GetSpec().GetZone()+"/"+s.GetSpec().GetRack(), "/")
		g.Add(s.GetServerId(), state(s), output.Since(a.Now(), s.GetPhaseSince()), agent, s.GetFirstBuddy(),
			s.GetSecondBuddy(), place, weight(s.GetSpec()), endpoints(s.GetSpec().GetEndpoints()))
	}
	if err := g.Write(w, a.Terminal.Width); err != nil {
		return err
	}
	for _, s := range servers {
		if s.GetWaitingFor() == "" {
			continue
		}
		if err := say(w, "%s waits for %s", s.GetServerId(), s.GetWaitingFor()); err != nil {
			return err
		}
	}
	return nil
}

// state is a server's phase, the operator's wish if there is one, and whether
// it is suspect or its service down though the phase does not say so.
func state(s *coordinatorv1.Server) string {
	text := output.Name(s.GetPhase())
	if s.GetIntent() > coordinatorv1.Wish_WISH_ACTIVE {
		text += "+" + output.Name(s.GetIntent())
	}
	if s.GetSuspect() {
		text += "+suspect"
	}
	if s.GetServiceText() != "" && s.GetPhase() != coordinatorv1.Phase_PHASE_SERVICE_DOWN {
		text += "+service_down"
	}
	return text
}

func weight(s *coordinatorv1.ServerSpec) string {
	if s.Weight == nil {
		return number(member.DefaultWeight)
	}
	return number(s.GetWeight())
}

// endpoints writes them as parseEndpoint reads them, without the protocols.
func endpoints(list []*coordinatorv1.Endpoint) string {
	texts := make([]string, len(list))
	for i, e := range list {
		texts[i] = e.GetAddress()
		if e.GetName() != "" {
			texts[i] = e.GetName() + "=" + texts[i]
		}
	}
	return strings.Join(texts, ",")
}

func (a *app) serversGetCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "get SERVER",
		Short:             "Show all that is known of a server",
		Args:              exactly("SERVER"),
		ValidArgsFunction: arguments(a.completeServers),
		RunE: func(cmd *cobra.Command, args []string) error {
			var answer *coordinatorv1.GetServerResponse
			err := a.askAdmin(cmd.Context(), func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
				answer, err = c.GetServer(ctx, &coordinatorv1.GetServerRequest{Pool: a.pool, ServerId: args[0]})
				return err
			})
			if err != nil {
				return err
			}
			return a.show(answer, func(w io.Writer) error { return a.writeServer(w, answer.GetServer()) })
		},
	}
}

func (a *app) writeServer(w io.Writer, s *coordinatorv1.Server) error {
	spec := s.GetSpec()
	labels := make([]string, 0, len(spec.GetLabels()))
	for k, v := range spec.GetLabels() {
		labels = append(labels, k+"="+v)
	}
	slices.Sort(labels)
	probe := spec.GetProbe()
	if probe == "" {
		probe = "icmp"
	}
	g := output.NewGrid("SERVER", s.GetServerId())
	for _, row := range [][2]string{
		{"pool", s.GetPool()},
		{"phase", output.Name(s.GetPhase()) + " for " + output.Since(a.Now(), s.GetPhaseSince())},
		{"waiting for", s.GetWaitingFor()},
		{"held for another", output.Until(a.Now(), s.GetHeldUntil())},
		{"suspect", yesNo(s.GetSuspect())},
		{"service", cmp.Or(s.GetServiceText(), "up, as far as its agent says")},
		{"operator's wish", output.Name(s.GetIntent())},
		{"agent connected", yesNo(s.GetAgentConnected())},
		{"first buddy", s.GetFirstBuddy()},
		{"second buddy", s.GetSecondBuddy()},
		{"incarnation", fmt.Sprint(s.GetIncarnation())},
		{"joined", a.moment(s.GetJoinedAt())},
		{"probe addresses", strings.Join(spec.GetProbeAddresses(), ", ")},
		{"probe", probe},
		{"endpoints", endpoints(spec.GetEndpoints())},
		{"zone", spec.GetZone()},
		{"rack", spec.GetRack()},
		{"weight", weight(spec)},
		{"labels", strings.Join(labels, ", ")},
	} {
		g.Add(row[0], row[1])
	}
	return g.Write(w, a.Terminal.Width)
}

// moment is a point in time with its age.
func (a *app) moment(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return t.AsTime().In(a.Now().Location()).Format(time.DateTime+" MST") + ", " + output.Since(a.Now(), t) + " ago"
}

// specFlags are the flags of what can be changed of a server.
type specFlags struct {
	addresses, endpoints, labels []string
	probe, zone, rack            string
	weight                       uint32
}

func (s *specFlags) define(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&s.addresses, "probe-address", nil, "what buddies ping; replaces all: at most one per address family")
	f.StringVar(&s.probe, "probe", "", "how buddies probe: icmp or tcp://:PORT")
	f.StringArrayVar(&s.endpoints, "endpoint", nil, "where clients reach it, as `[NAME=][PROTOCOL://]HOST:PORT`; repeatable, replaces all")
	f.StringVar(&s.zone, "zone", "", "zone of the host")
	f.StringVar(&s.rack, "rack", "", "failure domain within the zone")
	f.Uint32Var(&s.weight, "weight", member.DefaultWeight, "share of new work; 0 means none")
	f.StringArrayVar(&s.labels, "label", nil, "a label as `KEY=VALUE`; repeatable, replaces all; --label= alone for none")
	complete(cmd, "probe", fixed("icmp", "tcp://:"))
}

// parse returns a spec with the fields whose flags are set, and their names.
func (s *specFlags) parse(cmd *cobra.Command) (*coordinatorv1.ServerSpec, []string, error) {
	spec := &coordinatorv1.ServerSpec{ProbeAddresses: s.addresses, Probe: s.probe, Zone: s.zone, Rack: s.rack}
	if cmd.Flags().Changed("weight") {
		spec.Weight = &s.weight
	}
	for _, e := range s.endpoints {
		spec.Endpoints = append(spec.Endpoints, parseEndpoint(e))
	}
	labels, err := parseLabels(slices.DeleteFunc(slices.Clone(s.labels), func(pair string) bool { return pair == "" }))
	if err != nil {
		return nil, nil, err
	}
	spec.Labels = labels
	var fields []string
	for _, f := range [][2]string{
		{"probe-address", "probe_addresses"},
		{"probe", "probe"},
		{"endpoint", "endpoints"},
		{"zone", "zone"},
		{"rack", "rack"},
		{"weight", "weight"},
		{"label", "labels"},
	} {
		if cmd.Flags().Changed(f[0]) {
			fields = append(fields, f[1])
		}
	}
	return spec, fields, nil
}

// parseEndpoint reads [NAME=][PROTOCOL://]HOST:PORT; the server checks the parts.
func parseEndpoint(text string) *coordinatorv1.Endpoint {
	e := &coordinatorv1.Endpoint{Address: text}
	if name, rest, ok := strings.Cut(e.GetAddress(), "="); ok {
		e.Name, e.Address = name, rest
	}
	if protocol, rest, ok := strings.Cut(e.GetAddress(), "://"); ok {
		e.Protocol, e.Address = protocol, rest
	}
	return e
}

// anyOf refuses a change that changes nothing.
func anyOf(cmd *cobra.Command, fields []string) error {
	if len(fields) > 0 {
		return nil
	}
	return member.Invalid(cmd.Name(), "nothing to change; see %q", cmd.CommandPath()+" --help")
}

func (a *app) serversUpdateCommand() *cobra.Command {
	var m mutation
	var flags specFlags
	cmd := &cobra.Command{
		Use:               "update SERVER",
		Short:             "Change what a server says about itself, until its next join",
		Args:              exactly("SERVER"),
		ValidArgsFunction: arguments(a.completeServers),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, fields, err := flags.parse(cmd)
			if err != nil {
				return err
			}
			if err := anyOf(cmd, fields); err != nil {
				return err
			}
			req := &coordinatorv1.UpdateServerRequest{
				Pool: a.pool, ServerId: args[0], Spec: spec, UpdateMask: &fieldmaskpb.FieldMask{Paths: fields},
				ExpectedRevision: m.revision, RequestId: m.requestID, Reason: m.reason, ValidateOnly: m.validateOnly,
			}
			var answer *coordinatorv1.UpdateServerResponse
			err = a.askAdmin(cmd.Context(), func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
				answer, err = c.UpdateServer(ctx, req)
				return err
			})
			if err != nil {
				return m.unsure(err)
			}
			return a.changed(&m, answer, fmt.Sprintf("changed %s of %s at revision %d",
				strings.Join(fields, ", "), args[0], answer.GetRevision()))
		},
	}
	flags.define(cmd)
	m.flags(cmd, true)
	return cmd
}
