package server

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const (
	maxFeatures = 32
	// featureRemoved is that of agents that want to be told of a removal.
	featureRemoved = "removed"
	maxSubjects    = 256
	maxTrouble     = 256
	maxSent        = 1 << 20
)

// greeting is a Hello that was parsed: the pool it is for, the input, and what
// the shell itself needs of it.
type greeting struct {
	pool  member.Pool
	hello pool.Hello
	// epoch and storeID tell which history the agent's state comes from.
	epoch   member.Epoch
	storeID string
}

// parseHello parses everything in a Hello and checks that the peer may speak
// for the server it names.
func parseHello(in *pb.Hello, from peerInfo, allowLocal bool) (greeting, error) {
	name, err := member.ParsePool("hello.pool", in.GetPool())
	if err != nil {
		return greeting{}, err
	}
	id, err := member.ParseID("hello.server_id", in.GetServerId())
	if err != nil {
		return greeting{}, err
	}
	if err := from.maySpeakFor(name, id); err != nil {
		return greeting{}, err
	}
	spec, err := parseJoinSpec(in.GetSpec(), from, allowLocal)
	if err != nil {
		return greeting{}, err
	}
	if err := checkHelloTexts(in); err != nil {
		return greeting{}, err
	}
	return greeting{
		pool:    name,
		epoch:   member.Epoch(in.GetEpoch()),
		storeID: in.GetStoreId(),
		hello: pool.Hello{
			ID:          id,
			Spec:        spec,
			BootID:      in.GetBootId(),
			InstanceID:  in.GetInstanceId(),
			Incarnation: member.Incarnation(in.GetIncarnation()),
			TellRemoval: slices.Contains(in.GetFeatures(), featureRemoved),
			Identity:    from.identity.String(),
			Version:     in.GetVersion(),
			Peer:        from.address,
		},
	}, nil
}

// parseJoinSpec fills in the connection's source address where the agent names
// none.
func parseJoinSpec(in *pb.ServerSpec, from peerInfo, allowLocal bool) (member.Spec, error) {
	const prefix = "hello.spec"
	spec, err := parseSpec(prefix, in, allowLocal)
	if err != nil {
		return member.Spec{}, err
	}
	if len(spec.ProbeAddresses) == 0 && from.ip.IsValid() {
		a, err := member.ParseProbeAddress(prefix+".probe_addresses", from.ip.String(), allowLocal)
		if err != nil {
			return member.Spec{}, err
		}
		spec.ProbeAddresses = []netip.Addr{a}
	}
	return spec, member.CheckSpec(prefix, spec)
}

func checkHelloTexts(in *pb.Hello) error {
	for _, f := range []struct{ field, value string }{
		{"hello.boot_id", in.GetBootId()}, {"hello.instance_id", in.GetInstanceId()},
	} {
		if err := checkNeeded(f.field, f.value, maxTokenBytes); err != nil {
			return err
		}
	}
	for _, f := range []struct{ field, value string }{
		{"hello.version", in.GetVersion()}, {"hello.store_id", in.GetStoreId()},
	} {
		if _, err := parseText(f.field, f.value, maxTokenBytes); err != nil {
			return err
		}
	}
	if n := len(in.GetFeatures()); n > maxFeatures {
		return member.Invalid("hello.features", "has %d entries; at most %d are allowed", n, maxFeatures)
	}
	for _, f := range in.GetFeatures() {
		if err := checkNeeded("hello.features", f, maxTokenBytes); err != nil {
			return err
		}
	}
	return nil
}

// maySpeakFor checks the peer's certificate against the server that a message
// names. Without TLS nobody can be identified and everybody may.
func (p peerInfo) maySpeakFor(name member.Pool, id member.ID) error {
	if !p.secured {
		return nil
	}
	if p.identity.Role == rpc.RoleAgent && p.identity.Pool == name && p.identity.Name == string(id) {
		return nil
	}
	return fmt.Errorf("%w: the certificate is for %q and may not speak for agent %s of pool %s",
		member.ErrPermission, p.identity.String(), id, name)
}

// parseMessage parses an agent's message after its Hello. It returns nil for a
// kind that this version does not know.
func parseMessage(id pool.SessionID, req *pb.SessionRequest) (pool.Input, error) {
	switch m := req.GetMessage().(type) {
	case *pb.SessionRequest_Hello:
		return nil, member.Invalid("hello", "was already sent on this stream")
	case *pb.SessionRequest_Report:
		return parseReport(id, m.Report)
	case *pb.SessionRequest_Digest:
		return parseDigest(id, m.Digest)
	case *pb.SessionRequest_ServiceHealth:
		health, err := parseHealth(id, "service_health", m.ServiceHealth)
		if err != nil {
			return nil, err
		}
		return *health, nil
	case *pb.SessionRequest_Answer:
		return parseAnswer(id, m.Answer)
	case *pb.SessionRequest_Echo:
		return pool.Echo{Session: id, Nonce: m.Echo.GetNonce()}, nil
	case *pb.SessionRequest_AssignmentAck:
		return pool.AssignmentAck{Session: id, Seq: m.AssignmentAck.GetSeq()}, nil
	case *pb.SessionRequest_Leave:
		return parseLeave(id, m.Leave)
	}
	return nil, nil
}

func parseReport(session pool.SessionID, in *pb.Report) (pool.Input, error) {
	id, incarnation, err := parseSubjectName("report", in.GetServerId(), in.GetIncarnation())
	if err != nil {
		return nil, err
	}
	if in.GetLostOfTen() > 10 {
		return nil, member.Invalid("report.lost_of_ten", "%d is more than 10", in.GetLostOfTen())
	}
	evidence, err := parseEvidence("report.evidence", in.GetEvidence())
	return pool.Report{
		Session: session, Subject: id, Incarnation: incarnation, Evidence: evidence, LostOfTen: int(in.GetLostOfTen()),
	}, err
}

func parseDigest(session pool.SessionID, in *pb.Digest) (pool.Input, error) {
	if n := len(in.GetSubjects()); n > maxSubjects {
		return nil, member.Invalid("digest.subjects", "has %d entries; at most %d are allowed", n, maxSubjects)
	}
	trouble, err := parseText("digest.state_trouble", in.GetStateTrouble(), maxTrouble)
	if err != nil {
		return nil, err
	}
	digest := pool.Digest{Session: session, SelfScore: int(in.GetSelfScore()), StateTrouble: trouble}
	for _, s := range in.GetSubjects() {
		subject, err := parseSubjectDigest(s)
		if err != nil {
			return nil, err
		}
		digest.Subjects = append(digest.Subjects, subject)
	}
	if in.GetServiceHealth() == nil {
		return digest, nil
	}
	digest.Health, err = parseHealth(session, "digest.service_health", in.GetServiceHealth())
	return digest, err
}

// parseHealth takes states of a later version, like one not said, for undecided.
func parseHealth(session pool.SessionID, prefix string, in *pb.ServiceHealth) (*pool.ServiceHealth, error) {
	if in.GetIncarnation() == 0 {
		return nil, member.Invalid(prefix+".incarnation", "must be set")
	}
	text, err := parseText(prefix+".text", in.GetText(), maxTrouble)
	if err != nil {
		return nil, err
	}
	health := &pool.ServiceHealth{
		Session: session, Incarnation: member.Incarnation(in.GetIncarnation()), Text: text, Undecided: true,
	}
	switch in.GetState() {
	case pb.ServiceState_SERVICE_STATE_UP:
		health.Undecided = false
	case pb.ServiceState_SERVICE_STATE_DOWN:
		health.Undecided, health.Down = false, true
	case pb.ServiceState_SERVICE_STATE_UNSPECIFIED:
	}
	return health, nil
}

func parseSubjectDigest(in *pb.SubjectDigest) (pool.SubjectDigest, error) {
	const prefix = "digest.subjects"
	id, incarnation, err := parseSubjectName(prefix, in.GetServerId(), in.GetIncarnation())
	if err != nil {
		return pool.SubjectDigest{}, err
	}
	evidence, err := parseEvidence(prefix+".evidence", in.GetEvidence())
	if err != nil {
		return pool.SubjectDigest{}, err
	}
	if in.GetLostOfTen() > 10 {
		return pool.SubjectDigest{}, member.Invalid(prefix+".lost_of_ten", "%d is more than 10", in.GetLostOfTen())
	}
	if _, err := parseDuration(prefix+".jitter", in.GetJitter()); err != nil {
		return pool.SubjectDigest{}, err
	}
	return pool.SubjectDigest{
		Subject: id, Incarnation: incarnation, Evidence: evidence, LostOfTen: int(in.GetLostOfTen()),
	}, nil
}

func parseAnswer(session pool.SessionID, in *pb.Answer) (pool.Input, error) {
	id, incarnation, err := parseSubjectName("answer", in.GetServerId(), in.GetIncarnation())
	if err != nil {
		return nil, err
	}
	evidence, err := parseEvidence("answer.evidence", in.GetEvidence())
	return pool.Answer{
		Session: session, Round: in.GetRound(), Subject: id, Incarnation: incarnation,
		Evidence: evidence, Final: in.GetFinal(), SelfScore: int(in.GetSelfScore()),
	}, err
}

func parseLeave(session pool.SessionID, in *pb.Leave) (pool.Input, error) {
	if in.GetIncarnation() == 0 {
		return nil, member.Invalid("leave.incarnation", "must be set")
	}
	reason, err := parseText("leave.reason", in.GetReason(), member.MaxReasonBytes)
	if err != nil {
		return nil, err
	}
	drain, err := parseDrainTime("leave.drain_timeout", in.GetDrainTimeout())
	if err == nil && in.GetDrainTimeout() != nil {
		drain = max(drain, 1) // zero is to leave at once
	}
	return pool.Leave{Session: session, Incarnation: member.Incarnation(in.GetIncarnation()), Reason: reason, Drain: drain}, err
}

// parseSubjectName parses the server that an agent's message is about. Whether
// it is one of the agent's subjects is for the machine to judge.
func parseSubjectName(prefix, id string, incarnation uint64) (member.ID, member.Incarnation, error) {
	subject, err := member.ParseID(prefix+".server_id", id)
	if err != nil {
		return "", 0, err
	}
	if incarnation == 0 {
		return "", 0, member.Invalid(prefix+".incarnation", "must be set")
	}
	return subject, member.Incarnation(incarnation), nil
}

func parseEvidence(prefix string, in *pb.Evidence) (pool.Evidence, error) {
	sight, err := parseSight(prefix+".sight", in.GetSight())
	if err != nil {
		return pool.Evidence{}, err
	}
	if in.GetSent() > maxSent {
		return pool.Evidence{}, member.Invalid(prefix+".sent", "%d is more than %d", in.GetSent(), maxSent)
	}
	if in.GetLost() > in.GetSent() {
		return pool.Evidence{}, member.Invalid(prefix+".lost", "%d is more than were sent (%d)", in.GetLost(), in.GetSent())
	}
	trouble, err := parseText(prefix+".trouble", in.GetTrouble(), maxTrouble)
	if err != nil {
		return pool.Evidence{}, err
	}
	evidence := pool.Evidence{
		Sight: sight, Sent: int(in.GetSent()), Lost: int(in.GetLost()), Trouble: trouble, Connect: parseConnect(in.GetConnect()),
	}
	for _, f := range []struct {
		name string
		from *durationpb.Duration
		to   *time.Duration
	}{
		{"rtt", in.GetRtt(), &evidence.RTT},
		{"first_lost_age", in.GetFirstLostAge(), &evidence.FirstLostAge},
		{"last_reply_age", in.GetLastReplyAge(), &evidence.LastReplyAge},
	} {
		if *f.to, err = parseAge(prefix+"."+f.name, f.from); err != nil {
			return pool.Evidence{}, err
		}
	}
	return evidence, nil
}

// parseConnect takes outcomes of a later version for none: no evidence.
func parseConnect(in pb.Connect) verdict.Connect {
	switch in {
	case pb.Connect_CONNECT_ANSWERED:
		return verdict.ConnectAnswered
	case pb.Connect_CONNECT_UNANSWERED:
		return verdict.ConnectUnanswered
	case pb.Connect_CONNECT_UNSPECIFIED, pb.Connect_CONNECT_CANNOT_JUDGE:
	}
	return verdict.ConnectNone
}

// parseAge keeps "unset" apart from "just now": the vocabulary says unset by
// zero.
func parseAge(field string, d *durationpb.Duration) (time.Duration, error) {
	v, err := parseDuration(field, d)
	if err == nil && d != nil {
		v = max(v, 1)
	}
	return v, err
}

// parseSight takes sights of a later version for unknown: no evidence.
func parseSight(field string, in pb.Sight) (pool.Sight, error) {
	switch in {
	case pb.Sight_SIGHT_UNSPECIFIED:
		return 0, member.Invalid(field, "must be set")
	case pb.Sight_SIGHT_UP:
		return verdict.SightUp, nil
	case pb.Sight_SIGHT_DOWN:
		return verdict.SightDown, nil
	case pb.Sight_SIGHT_CANNOT_JUDGE:
		return verdict.SightCannotJudge, nil
	}
	return verdict.SightUnknown, nil
}
