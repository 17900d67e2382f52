package daemon

import (
	"math"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/agent/detector"
	"github.com/buddyring/buddyring/agent/health"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const (
	// maxTroubleBytes is how much a coordinator takes of a text.
	maxTroubleBytes = 256
	// featureRemoved asks to be told of a removal before joining again.
	featureRemoved = "removed"
	// maxConnects is how many addresses of a question are connected to.
	maxConnects = 32
)

// The bounds of a probing period; what a coordinator says is brought between
// them.
const (
	minPeriod = detector.MinPeriod
	maxPeriod = time.Minute
)

// welcome is a Welcome that was parsed.
type welcome struct {
	// at is when it was taken.
	at          time.Time
	incarnation member.Incarnation
	storeID     string
	spread      time.Duration
	digestEvery time.Duration
	resumed     bool
	// coordinators are those whose addresses can be dialled.
	coordinators []string
	assignment   Assignment
	// standing is nil where the coordinator does not say.
	standing *standing
}

// standing is what an operator wants of the server. The zero value is that nobody
// keeps work away from it, as far as is known.
type standing struct {
	drained       bool
	actor, reason string
}

// text says it in a line, "" for the zero value.
func (s standing) text() string {
	switch {
	case !s.drained:
		return ""
	case s.reason == "":
		return "drained by " + s.actor
	}
	return "drained by " + s.actor + ": " + s.reason
}

// parseStanding takes what is for people only.
func parseStanding(in *pb.Standing) standing {
	return standing{in.GetDrained(), printable(in.GetActor()), printable(in.GetReason())}
}

const (
	defaultSpread, maxSpread      = time.Second, 10 * time.Minute
	defaultDigest                 = 5 * time.Second
	minDigestEvery, maxDigest     = 100 * time.Millisecond, time.Minute
	errNoIncarnation, errNoPeriod = "must be set", "must be above zero"
)

func parseWelcome(in *pb.Welcome) (welcome, error) {
	if in.GetIncarnation() == 0 {
		return welcome{}, member.Invalid("welcome.incarnation", errNoIncarnation)
	}
	if id := in.GetStoreId(); id == "" || len(id) > maxStoreIDBytes {
		return welcome{}, member.Invalid("welcome.store_id", "must have 1 to %d bytes", maxStoreIDBytes)
	}
	a, err := parseAssignment(in.GetAssignment())
	if err != nil {
		return welcome{}, err
	}
	w := welcome{
		incarnation: member.Incarnation(in.GetIncarnation()), storeID: in.GetStoreId(),
		spread: defaultSpread, digestEvery: defaultDigest, resumed: in.GetResumed(), assignment: a,
	}
	if d := in.GetReconnectSpread(); d.IsValid() && d.AsDuration() >= 0 {
		w.spread = min(d.AsDuration(), maxSpread)
	}
	if d := in.GetDigestInterval(); d.IsValid() && d.AsDuration() > 0 {
		w.digestEvery = min(max(d.AsDuration(), minDigestEvery), maxDigest)
	}
	if in.GetStanding() != nil {
		w.standing = new(parseStanding(in.GetStanding()))
	}
	for _, c := range in.GetCoordinators() {
		if member.CheckHostPort("welcome.coordinators", c) == nil && len(w.coordinators) < maxCoordinators {
			w.coordinators = append(w.coordinators, c)
		}
	}
	return w, nil
}

// parseAssignment takes a missing assignment for one without subjects.
func parseAssignment(in *pb.Assignment) (Assignment, error) {
	a := Assignment{
		Revision: member.Revision(in.GetRevision()), Seq: in.GetSeq(), Period: member.DefaultSettings().ProbeInterval,
	}
	if n := len(in.GetSubjects()); n > maxSubjects {
		return Assignment{}, member.Invalid("assignment.subjects", "has %d entries; at most %d are allowed", n, maxSubjects)
	}
	if d := in.GetProbeInterval(); d != nil {
		if !d.IsValid() || d.AsDuration() <= 0 {
			return Assignment{}, member.Invalid("assignment.probe_interval", errNoPeriod)
		}
		a.Period = min(max(d.AsDuration(), minPeriod), maxPeriod)
	}
	for _, s := range in.GetSubjects() {
		subject, err := parseSubject("assignment.subjects", s)
		if err != nil {
			return Assignment{}, err
		}
		a.Subjects = append(a.Subjects, subject)
	}
	return a, nil
}

func parseSubject(field string, in *pb.Subject) (Subject, error) {
	id, err := member.ParseID(field+".server_id", in.GetServerId())
	if err != nil {
		return Subject{}, err
	}
	if in.GetIncarnation() == 0 {
		return Subject{}, member.Invalid(field+".incarnation", errNoIncarnation)
	}
	probe, err := member.ParseProbe(field+".probe", in.GetProbe())
	if err != nil {
		return Subject{}, err
	}
	s := Subject{Role: roleName(in.GetRole()), Subject: detector.Subject{
		Key:   detector.Key{ID: id, Incarnation: member.Incarnation(in.GetIncarnation())},
		Probe: probe,
	}}
	if d := in.GetPhaseOffset(); d.IsValid() {
		s.PhaseOffset = d.AsDuration()
	}
	s.Addresses, err = parseAddresses(field+".probe_addresses", in.GetProbeAddresses())
	return s, err
}

// parseAddresses allows loopback addresses: whether a pool may have them is for
// its coordinator to say.
func parseAddresses(field string, in []string) ([]netip.Addr, error) {
	const most = 8
	if len(in) > most {
		return nil, member.Invalid(field, "has %d entries; at most %d are allowed", len(in), most)
	}
	var out []netip.Addr
	for _, s := range in {
		a, err := member.ParseProbeAddress(field, s, true)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

func roleName(r pb.Role) Role {
	switch r {
	case pb.Role_ROLE_FIRST_BUDDY:
		return "first_buddy"
	case pb.Role_ROLE_SECOND_BUDDY:
		return "second_buddy"
	case pb.Role_ROLE_TEMPORARY:
		return "temporary"
	case pb.Role_ROLE_UNSPECIFIED:
	}
	return ""
}

// question is a Question that was parsed.
type question struct {
	round  uint64
	detail detector.Question
}

func parseQuestion(in *pb.Question) (question, error) {
	s, err := parseSubject("question.subject", in.GetSubject())
	if err != nil {
		return question{}, err
	}
	q := question{round: in.GetRound(), detail: detector.Question{Subject: s.Subject, Probes: math.MaxInt32}}
	if n := in.GetProbes(); n < math.MaxInt32 {
		q.detail.Probes = int(n)
	}
	if d := in.GetOver(); d.IsValid() {
		q.detail.Over = d.AsDuration()
	}
	if d := in.GetProbeTimeout(); d.IsValid() {
		q.detail.Timeout = d.AsDuration()
	}
	q.detail.Connect = parseConnect(in.GetConnectAddresses())
	q.detail.Exhaustive = in.GetExhaustive()
	return q, nil
}

// parseConnect takes the addresses that are unicast, and leaves out names: an
// observer does not wait for a resolver.
func parseConnect(in []string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, s := range in {
		to, err := netip.ParseAddrPort(s)
		if err != nil || to.Port() == 0 || len(out) == maxConnects {
			continue
		}
		if a, err := member.ParseProbeAddress("question.connect_addresses", to.Addr().String(), true); err == nil {
			out = append(out, netip.AddrPortFrom(a, to.Port()))
		}
	}
	return out
}

func toHello(id identity, s State, spec member.Spec) *pb.SessionRequest {
	return &pb.SessionRequest{Message: &pb.SessionRequest_Hello{Hello: &pb.Hello{
		Pool:        string(id.pool),
		ServerId:    string(id.server),
		BootId:      id.bootID,
		InstanceId:  id.instanceID,
		Incarnation: uint64(s.Incarnation),
		Spec:        toSpec(spec),
		Version:     id.version,
		Features:    []string{featureRemoved},
		Epoch:       uint64(s.Epoch),
		StoreId:     s.StoreID,
	}}}
}

func toSpec(s member.Spec) *pb.ServerSpec {
	out := &pb.ServerSpec{
		Probe: s.Probe.String(), Zone: s.Zone, Rack: s.Rack, Weight: &s.Weight, Labels: s.Labels,
	}
	for _, a := range s.ProbeAddresses {
		out.ProbeAddresses = append(out.ProbeAddresses, a.String())
	}
	for _, e := range s.Endpoints {
		out.Endpoints = append(out.Endpoints, &pb.Endpoint{Name: e.Name, Address: e.Address, Protocol: e.Protocol})
	}
	return out
}

func toReport(r detector.Report) *pb.SessionRequest {
	return &pb.SessionRequest{Message: &pb.SessionRequest_Report{Report: &pb.Report{
		ServerId: string(r.ID), Incarnation: uint64(r.Incarnation), Evidence: toEvidence(r.Evidence),
		LostOfTen: count(r.LostOfTen),
	}}}
}

// toDigest leaves out subjects of which nothing is known yet.
func toDigest(seq uint64, s sighting, h *pb.ServiceHealth) *pb.SessionRequest {
	d := &pb.Digest{Seq: seq, SelfScore: count(s.score), ServiceHealth: h}
	for _, v := range s.views {
		if v.Evidence.Sight == detector.Unknown {
			continue
		}
		d.Subjects = append(d.Subjects, &pb.SubjectDigest{
			ServerId: string(v.ID), Incarnation: uint64(v.Incarnation), Evidence: toEvidence(v.Evidence),
			Jitter: durationpb.New(v.Jitter), LostOfTen: count(v.LostOfTen),
		})
	}
	return &pb.SessionRequest{Message: &pb.SessionRequest_Digest{Digest: d}}
}

// toHealth turns nil into nil.
func toHealth(incarnation member.Incarnation, v *health.Verdict) *pb.ServiceHealth {
	if v == nil {
		return nil
	}
	return &pb.ServiceHealth{Incarnation: uint64(incarnation), State: toState(v.State), Text: printable(v.Text)}
}

func toState(s health.State) pb.ServiceState {
	switch s {
	case health.Up:
		return pb.ServiceState_SERVICE_STATE_UP
	case health.Down:
		return pb.ServiceState_SERVICE_STATE_DOWN
	case health.Unknown:
	}
	return pb.ServiceState_SERVICE_STATE_UNSPECIFIED
}

func toAnswer(q question, a detector.Answer, score int) *pb.SessionRequest {
	return &pb.SessionRequest{Message: &pb.SessionRequest_Answer{Answer: &pb.Answer{
		Round: q.round, ServerId: string(q.detail.Subject.ID), Incarnation: uint64(q.detail.Subject.Incarnation),
		Evidence: toEvidence(a.Evidence), Final: &a.Final, SelfScore: count(score),
	}}}
}

// toEvidence turns moments into ages: clocks of two hosts are never compared.
func toEvidence(e detector.Evidence) *pb.Evidence {
	out := &pb.Evidence{
		Sight: toSight(e.Sight), Sent: count(e.Sent), Lost: count(e.Lost), Trouble: printable(e.Trouble),
		Connect: toConnect(e.Connect),
	}
	if e.RTT > 0 {
		out.Rtt = durationpb.New(e.RTT)
	}
	if !e.FirstLost.IsZero() {
		out.FirstLostAge = durationpb.New(max(0, time.Since(e.FirstLost)))
	}
	if !e.LastReply.IsZero() {
		out.LastReplyAge = durationpb.New(max(0, time.Since(e.LastReply)))
	}
	return out
}

func toSight(s detector.Sight) pb.Sight {
	switch s {
	case detector.Up:
		return pb.Sight_SIGHT_UP
	case detector.Down:
		return pb.Sight_SIGHT_DOWN
	case detector.CannotJudge:
		return pb.Sight_SIGHT_CANNOT_JUDGE
	case detector.Unknown:
	}
	return pb.Sight_SIGHT_UNSPECIFIED
}

func toConnect(c detector.Connect) pb.Connect {
	switch c {
	case detector.ConnectAnswered:
		return pb.Connect_CONNECT_ANSWERED
	case detector.ConnectUnanswered:
		return pb.Connect_CONNECT_UNANSWERED
	case detector.ConnectNotSent:
		return pb.Connect_CONNECT_CANNOT_JUDGE
	case detector.ConnectNone:
	}
	return pb.Connect_CONNECT_UNSPECIFIED
}

func count(n int) uint32 {
	return uint32(min(max(n, 0), math.MaxInt32))
}

// printable makes a text fit for the wire: one short line of valid UTF-8.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return ' '
		}
		return r
	}, s)
	if len(s) > maxTroubleBytes {
		s = strings.ToValidUTF8(s[:maxTroubleBytes-len("…")], "") + "…"
	}
	return s
}
