package server

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// maxTokenBytes bounds identifiers that only their maker understands: boot and
// instance ids, versions, request ids.
const maxTokenBytes = 128

// parseText accepts text for people and opaque identifiers: bounded, and
// without control characters, which would garble logs and tables.
func parseText(field, s string, limit int) (string, error) {
	if len(s) > limit {
		return "", member.Invalid(field, "has %d bytes; at most %d are allowed", len(s), limit)
	}
	if i := strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }); i >= 0 {
		return "", member.Invalid(field, "has a control character at byte %d", i)
	}
	return s, nil
}

// checkNeeded is parseText of a text that must be there.
func checkNeeded(field, s string, limit int) error {
	if s == "" {
		return member.Invalid(field, "must not be empty")
	}
	_, err := parseText(field, s, limit)
	return err
}

// parseDuration accepts an unset duration as zero and refuses negative ones.
func parseDuration(field string, d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if err := d.CheckValid(); err != nil {
		return 0, member.Invalid(field, "is not a duration")
	}
	if v := d.AsDuration(); v >= 0 {
		return v, nil
	}
	return 0, member.Invalid(field, "%s is negative", d.AsDuration())
}

// parseSet is parseDuration of one that must be set.
func parseSet(field string, d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, member.Invalid(field, "must be set")
	}
	return parseDuration(field, d)
}

// parseSpec parses all of a spec but its presence of addresses and its limits,
// for which see member.CheckSpec. allowLocal is for the scope of addresses.
func parseSpec(prefix string, in *pb.ServerSpec, allowLocal bool) (member.Spec, error) {
	spec := member.Spec{
		Zone: in.GetZone(), Rack: in.GetRack(), Weight: member.DefaultWeight, Labels: in.GetLabels(),
	}
	if in != nil && in.Weight != nil {
		spec.Weight = in.GetWeight()
	}
	for _, text := range in.GetProbeAddresses() {
		a, err := member.ParseProbeAddress(prefix+".probe_addresses", text, allowLocal)
		if err != nil {
			return member.Spec{}, err
		}
		spec.ProbeAddresses = append(spec.ProbeAddresses, a)
	}
	probe, err := member.ParseProbe(prefix+".probe", in.GetProbe())
	if err != nil {
		return member.Spec{}, err
	}
	spec.Probe = probe
	for _, e := range in.GetEndpoints() {
		spec.Endpoints = append(spec.Endpoints, member.Endpoint{
			Name: e.GetName(), Address: e.GetAddress(), Protocol: e.GetProtocol(),
		})
	}
	return spec, nil
}

// parseEnum maps a number of the contract to the vocabulary's of the same
// meaning. UNSPECIFIED and numbers this version does not know are refused.
func parseEnum[D, P ~uint8 | ~int32](field string, value P, last D) (D, error) {
	if value < 1 || int32(value) > int32(last) {
		return 0, member.Invalid(field, "%d is not a value this coordinator knows", value)
	}
	return D(value), nil
}

// parsePhases parses a filter; empty means all.
func parsePhases(field string, in []pb.Phase) ([]member.Phase, error) {
	var phases []member.Phase
	for _, p := range in {
		phase, err := parseEnum(field, p, member.PhaseHeld)
		if err != nil {
			return nil, err
		}
		phases = append(phases, phase)
	}
	slices.Sort(phases)
	return slices.Compact(phases), nil
}
