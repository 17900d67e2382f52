package daemon

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/buddyring/buddyring/agent/detector"
	"github.com/buddyring/buddyring/internal/member"
)

// Role says why a server is watched, in words such as "first_buddy".
type Role string

// Subject is a server to watch.
type Subject struct {
	detector.Subject

	Role Role
}

// Assignment is whom the agent watches.
type Assignment struct {
	Revision member.Revision
	// Seq orders the assignments of one epoch.
	Seq      uint64
	Period   time.Duration
	Subjects []Subject
}

// State is what an agent keeps over its own restart. The zero State is that of
// an agent that has never joined.
type State struct {
	Pool        member.Pool
	ID          member.ID
	Incarnation member.Incarnation
	// BootID is the boot of the host in which Incarnation was last confirmed.
	BootID string
	// Leaving says that the agent has asked for the end of Incarnation.
	Leaving bool
	// StoreID is the history that Incarnation and Epoch belong to.
	StoreID string
	// Epoch is the highest seen of that store.
	Epoch      member.Epoch
	Assignment Assignment
	// Coordinators are the addresses that a coordinator has named.
	Coordinators []string
}

// clone returns a deep copy.
func (s State) clone() State {
	s.Assignment.Subjects = slices.Clone(s.Assignment.Subjects)
	s.Coordinators = slices.Clone(s.Coordinators)
	return s
}

// Limits of a state file.
const (
	stateFormat     = 1
	maxStateBytes   = 256 << 10
	maxSubjects     = 256
	maxCoordinators = 16
	maxStoreIDBytes = 128
)

// file is the outer layer of a state file: a checksum around the state.
type file struct {
	Format int `json:"format"`
	// Checksum is the SHA-256 of State without white space, in hexadecimal.
	Checksum string          `json:"sha256"`
	State    json.RawMessage `json:"state"`
}

type stateJSON struct {
	Pool          string        `json:"pool"`
	ServerID      string        `json:"server_id"`
	Incarnation   uint64        `json:"incarnation"`
	BootID        string        `json:"boot_id"`
	Leaving       bool          `json:"leaving"`
	StoreID       string        `json:"store_id"`
	Epoch         uint64        `json:"epoch"`
	Revision      uint64        `json:"revision"`
	AssignmentSeq uint64        `json:"assignment_seq"`
	ProbeInterval time.Duration `json:"probe_interval_ns"`
	Subjects      []subjectJSON `json:"subjects"`
	Coordinators  []string      `json:"coordinators"`
}

type subjectJSON struct {
	ServerID       string        `json:"server_id"`
	Incarnation    uint64        `json:"incarnation"`
	ProbeAddresses []netip.Addr  `json:"probe_addresses"`
	Probe          string        `json:"probe"`
	Role           string        `json:"role"`
	PhaseOffset    time.Duration `json:"phase_offset_ns"`
}

// encodeState returns a state file that a person can read.
func encodeState(s State) ([]byte, error) {
	in := stateJSON{
		Pool: string(s.Pool), ServerID: string(s.ID), Incarnation: uint64(s.Incarnation),
		BootID: s.BootID, Leaving: s.Leaving, StoreID: s.StoreID, Epoch: uint64(s.Epoch),
		Revision: uint64(s.Assignment.Revision), AssignmentSeq: s.Assignment.Seq, ProbeInterval: s.Assignment.Period,
		Subjects: make([]subjectJSON, 0, len(s.Assignment.Subjects)), Coordinators: s.Coordinators,
	}
	for _, sub := range s.Assignment.Subjects {
		in.Subjects = append(in.Subjects, subjectJSON{
			ServerID: string(sub.ID), Incarnation: uint64(sub.Incarnation), ProbeAddresses: sub.Addresses,
			Probe: sub.Probe.String(), Role: string(sub.Role), PhaseOffset: sub.PhaseOffset,
		})
	}
	raw, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	out, err := json.MarshalIndent(file{Format: stateFormat, Checksum: checksum(raw), State: raw}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	return append(out, '\n'), nil
}

func checksum(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// decodeState reads a state file and refuses one that is damaged in any way.
func decodeState(data []byte) (State, error) {
	if len(data) > maxStateBytes {
		return State{}, member.Invalid("state file", "has %d bytes; at most %d are allowed", len(data), maxStateBytes)
	}
	var outer file
	if err := unmarshalStrict(data, &outer); err != nil {
		return State{}, fmt.Errorf("decode state file: %w", err)
	}
	if outer.Format != stateFormat {
		return State{}, member.Invalid("format", "%d is not %d; was it written by a newer agent?", outer.Format, stateFormat)
	}
	var raw bytes.Buffer
	if err := json.Compact(&raw, outer.State); err != nil {
		return State{}, fmt.Errorf("decode state: %w", err)
	}
	if checksum(raw.Bytes()) != outer.Checksum {
		return State{}, member.Invalid("sha256", "does not fit the state")
	}
	var in stateJSON
	if err := unmarshalStrict(raw.Bytes(), &in); err != nil {
		return State{}, fmt.Errorf("decode state: %w", err)
	}
	return parseState(in)
}

func unmarshalStrict(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if dec.More() {
		return errors.New("there is something after its end")
	}
	return nil
}

func parseState(in stateJSON) (State, error) {
	var errs []error
	check := func(err error) { errs = append(errs, err) }
	pool, err := member.ParsePool("pool", in.Pool)
	check(err)
	id, err := member.ParseID("server_id", in.ServerID)
	check(err)
	if len(in.Subjects) > maxSubjects || len(in.Coordinators) > maxCoordinators || len(in.StoreID) > maxStoreIDBytes ||
		len(in.BootID) > maxBootIDBytes {
		check(member.Invalid("state", "is too large"))
		return State{}, errors.Join(errs...)
	}
	for _, c := range in.Coordinators {
		check(member.CheckHostPort("coordinators", c))
	}
	s := State{
		Pool: pool, ID: id, Incarnation: member.Incarnation(in.Incarnation),
		BootID: in.BootID, Leaving: in.Leaving, StoreID: in.StoreID, Epoch: member.Epoch(in.Epoch), Coordinators: in.Coordinators,
		Assignment: Assignment{
			Revision: member.Revision(in.Revision), Seq: in.AssignmentSeq, Period: in.ProbeInterval,
		},
	}
	for _, sub := range in.Subjects {
		parsed, err := parseSavedSubject(sub)
		check(err)
		s.Assignment.Subjects = append(s.Assignment.Subjects, parsed)
	}
	if err := errors.Join(errs...); err != nil {
		return State{}, err
	}
	return s, nil
}

func parseSavedSubject(in subjectJSON) (Subject, error) {
	id, err := member.ParseID("subjects.server_id", in.ServerID)
	if err != nil {
		return Subject{}, err
	}
	probe, err := member.ParseProbe("subjects.probe", in.Probe)
	if err != nil {
		return Subject{}, err
	}
	s := Subject{Role: Role(in.Role), Subject: detector.Subject{
		Key: detector.Key{ID: id, Incarnation: member.Incarnation(in.Incarnation)}, Probe: probe, PhaseOffset: in.PhaseOffset,
	}}
	for _, a := range in.ProbeAddresses {
		a, err := member.ParseProbeAddress("subjects.probe_addresses", a.String(), true)
		if err != nil {
			return Subject{}, err
		}
		s.Addresses = append(s.Addresses, a)
	}
	return s, nil
}
