package server

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// mutation is what all requests that change something have in common.
type mutation interface {
	proto.Message
	GetRequestId() string
	GetReason() string
	GetValidateOnly() bool
}

// parseCall parses the common part of a mutation; expected is its
// expected_revision.
func parseCall(req mutation, expected *uint64, from peerInfo) (pool.Call, error) {
	id, err := parseText("request_id", req.GetRequestId(), maxTokenBytes)
	if err != nil {
		return pool.Call{}, err
	}
	if strings.TrimSpace(id) != id {
		// Databases differ in whether such ids are equal.
		return pool.Call{}, member.Invalid("request_id", "%q begins or ends with a space", id)
	}
	reason, err := parseText("reason", req.GetReason(), member.MaxReasonBytes)
	if err != nil {
		return pool.Call{}, err
	}
	call := pool.Call{
		RequestID: id, Hash: requestHash(req), Reason: reason, Actor: from.actor(), ValidateOnly: req.GetValidateOnly(),
	}
	if expected != nil {
		revision := member.Revision(*expected)
		call.ExpectedRevision = &revision
	}
	return call, nil
}

// requestHash tells apart the requests that use one request id.
func requestHash(req mutation) string {
	sum := sha256.Sum256(canonical(req, "request_id", "validate_only"))
	return hex.EncodeToString(sum[:])
}

// specEdit replaces fields of a spec.
type specEdit = func(member.Spec) (member.Spec, error)

// parseSpecEdit parses the fields of a spec that the mask names; the other
// fields are left alone, and are not looked at.
func parseSpecEdit(in *pb.ServerSpec, mask *fieldmaskpb.FieldMask, allowLocal bool) (specEdit, error) {
	paths := mask.GetPaths()
	if len(paths) == 0 {
		return nil, member.Invalid("update_mask", "must name at least one field of spec")
	}
	wanted := &pb.ServerSpec{}
	for _, path := range paths {
		switch path {
		case "probe_addresses":
			wanted.ProbeAddresses = in.GetProbeAddresses()
		case "probe":
			wanted.Probe = in.GetProbe()
		case "endpoints":
			wanted.Endpoints = in.GetEndpoints()
		case "zone":
			wanted.Zone = in.GetZone()
		case "rack":
			wanted.Rack = in.GetRack()
		case "weight":
			if in != nil {
				wanted.Weight = in.Weight
			}
		case "labels":
			wanted.Labels = in.GetLabels()
		default:
			return nil, member.Invalid("update_mask", "%q is not a field of spec", path)
		}
	}
	spec, err := parseSpec("spec", wanted, allowLocal)
	if err != nil {
		return nil, err
	}
	return func(present member.Spec) (member.Spec, error) {
		for _, path := range paths {
			editSpec(&present, spec, path)
		}
		return present, member.CheckSpec("spec", present)
	}, nil
}

func editSpec(to *member.Spec, from member.Spec, path string) {
	switch path {
	case "probe_addresses":
		to.ProbeAddresses = from.ProbeAddresses
	case "probe":
		to.Probe = from.Probe
	case "endpoints":
		to.Endpoints = from.Endpoints
	case "zone":
		to.Zone = from.Zone
	case "rack":
		to.Rack = from.Rack
	case "weight":
		to.Weight = from.Weight
	case "labels":
		to.Labels = from.Labels
	}
}

// parseIntent parses what SetIntent is about.
func parseIntent(req *pb.SetIntentRequest) (pool.SetIntent, error) {
	id, err := member.ParseID("server_id", req.GetServerId())
	if err != nil {
		return pool.SetIntent{}, err
	}
	wish, err := parseEnum("wish", req.GetWish(), member.WishBanned)
	if err != nil {
		return pool.SetIntent{}, err
	}
	expires, err := parseDuration("expires_in", req.GetExpiresIn())
	switch {
	case err != nil:
		return pool.SetIntent{}, err
	case req.GetExpiresIn() != nil && expires == 0:
		return pool.SetIntent{}, member.Invalid("expires_in", "must be more than zero, or unset for no end")
	case expires > 0 && wish == member.WishActive:
		return pool.SetIntent{}, member.Invalid("expires_in", "has no meaning with WISH_ACTIVE")
	}
	return pool.SetIntent{ID: id, Wish: wish, ExpiresIn: expires}, nil
}

// parseKinds parses a filter for events; empty means all.
func parseKinds(field string, in []string) ([]member.EventKind, error) {
	var kinds []member.EventKind
	for _, text := range in {
		kind, err := parseKind(field, text)
		if err != nil {
			return nil, err
		}
		kinds = append(kinds, kind)
	}
	return kinds, nil
}

func parseKind(field, text string) (member.EventKind, error) {
	switch kind := member.EventKind(text); kind {
	case member.EventJoined, member.EventActivated, member.EventAdopted, member.EventHeld, member.EventReleased,
		member.EventRemoved, member.EventNotRemoved, member.EventUpdated, member.EventIntent,
		member.EventPoolCreated, member.EventPoolUpdated, member.EventAlarmRaised, member.EventAlarmCleared,
		member.EventContradicted, member.EventServiceDown, member.EventServiceUp, member.EventBraked, member.EventUnbraked,
		member.EventMoved, member.EventRestored, member.EventDraining, member.EventRepaired, member.EventReplaced, member.EventPoolDeleted:
		return kind, nil
	}
	return "", member.Invalid(field, "%q is not a kind of event", text)
}

// checkStepDown checks a request against the present epoch.
func checkStepDown(req *pb.StepDownRequest, epoch member.Epoch) error {
	if _, err := parseText("reason", req.GetReason(), member.MaxReasonBytes); err != nil {
		return err
	}
	if want := req.GetExpectedEpoch(); want != 0 && want != uint64(epoch) {
		return fmt.Errorf("step down in epoch %d: %w: the present epoch is %d", want, member.ErrStale, epoch)
	}
	return nil
}
