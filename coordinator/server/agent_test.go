package server_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// network says which hosts answer.
type network struct {
	mu   sync.Mutex
	down map[string]bool
}

func newNetwork() *network { return &network{down: map[string]bool{}} }

func (n *network) set(id string, down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down[id] = down
}

func (n *network) sight(id string) pb.Sight {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down[id] {
		return pb.Sight_SIGHT_DOWN
	}
	return pb.Sight_SIGHT_UP
}

// agent is a scripted agent: it probes what it is assigned, reports changes,
// answers questions and echoes challenges, as the contract says.
type agent struct {
	// w is for the test's own goroutine.
	w     *world
	id    string
	hello *pb.Hello
	// network is that of w.
	network atomic.Pointer[network]

	mu       sync.Mutex
	stream   pb.AgentService_SessionClient
	cancel   context.CancelFunc
	subjects []*pb.Subject
	seen     map[string]pb.Sight
	// checked is what its checks found last, nil without checks.
	checked *pb.ServiceHealth
	// dead says that its host does nothing any more.
	dead    bool
	welcome *pb.Welcome
	left    *pb.LeaveResult
	acks    int
	// over has the end of the session.
	over chan error
}

func (w *world) newAgent(id string) *agent {
	a := &agent{
		w: w, id: id,
		hello: &pb.Hello{
			Pool: "default", ServerId: id, BootId: "boot-" + id, InstanceId: "run-" + id, Version: "test",
			Spec: &pb.ServerSpec{
				ProbeAddresses: []string{addressOf(id)},
				Endpoints:      []*pb.Endpoint{{Address: addressOf(id) + ":80", Protocol: "http"}},
			},
		},
	}
	a.network.Store(w.network)
	return a
}

// addressOf gives every id its own address.
func addressOf(id string) string {
	var sum [3]byte
	for i := range len(id) {
		sum[i%3] = sum[i%3]*31 + id[i]
	}
	return fmt.Sprintf("10.%d.%d.%d", sum[0], sum[1], sum[2])
}

// connect opens a session and runs it in the background.
func (a *agent) connect() {
	a.w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := pb.NewAgentServiceClient(a.w.connect("agent")).Session(ctx)
	if err != nil {
		a.w.t.Fatalf("session of %s: %v", a.id, err)
	}
	a.mu.Lock()
	a.stream, a.cancel, a.seen, a.welcome = stream, cancel, map[string]pb.Sight{}, nil
	a.over = make(chan error, 1)
	over := a.over
	a.mu.Unlock()
	a.w.t.Cleanup(cancel)
	a.send(&pb.SessionRequest{Message: &pb.SessionRequest_Hello{Hello: a.hello}})
	go a.receive(stream, over)
	go a.probe(ctx)
}

func (a *agent) send(r *pb.SessionRequest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.dead {
		_ = a.stream.Send(r) // the receiver sees the end
	}
}

func (a *agent) receive(stream pb.AgentService_SessionClient, over chan<- error) {
	for {
		res, err := stream.Recv()
		if err != nil {
			over <- err
			return
		}
		a.mu.Lock()
		dead := a.dead
		a.mu.Unlock()
		if !dead {
			a.take(res)
		}
	}
}

func (a *agent) take(res *pb.SessionResponse) {
	switch m := res.GetMessage().(type) {
	case *pb.SessionResponse_Welcome:
		a.mu.Lock()
		a.welcome = m.Welcome
		a.hello.Incarnation, a.hello.StoreId, a.hello.Epoch = m.Welcome.GetIncarnation(), m.Welcome.GetStoreId(), res.GetEpoch()
		a.mu.Unlock()
		a.assign(m.Welcome.GetAssignment())
		a.digest()
	case *pb.SessionResponse_Assignment:
		a.assign(m.Assignment)
	case *pb.SessionResponse_Challenge:
		a.send(&pb.SessionRequest{Message: &pb.SessionRequest_Echo{Echo: &pb.Echo{Nonce: m.Challenge.GetNonce()}}})
	case *pb.SessionResponse_Question:
		go a.answer(m.Question)
	case *pb.SessionResponse_DigestAck:
		a.mu.Lock()
		a.acks++
		a.mu.Unlock()
	case *pb.SessionResponse_LeaveResult:
		a.mu.Lock()
		a.left = m.LeaveResult
		a.mu.Unlock()
	}
}

func (a *agent) assign(as *pb.Assignment) {
	a.mu.Lock()
	a.subjects = as.GetSubjects()
	a.mu.Unlock()
	a.send(&pb.SessionRequest{Message: &pb.SessionRequest_AssignmentAck{AssignmentAck: &pb.AssignmentAck{Seq: as.GetSeq()}}})
	a.look()
}

// probe looks at the subjects every period and sends digests.
func (a *agent) probe(ctx context.Context) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		a.look()
		if n%10 == 0 {
			a.digest()
		}
	}
}

// look reports the subjects whose sight has changed.
func (a *agent) look() {
	a.mu.Lock()
	var reports []*pb.Report
	for _, s := range a.subjects {
		key := fmt.Sprintf("%s/%d", s.GetServerId(), s.GetIncarnation())
		if sight := a.network.Load().sight(s.GetServerId()); sight != a.seen[key] {
			a.seen[key] = sight
			reports = append(reports, &pb.Report{
				ServerId: s.GetServerId(), Incarnation: s.GetIncarnation(), Evidence: evidence(sight, 1),
			})
		}
	}
	a.mu.Unlock()
	for _, r := range reports {
		a.send(&pb.SessionRequest{Message: &pb.SessionRequest_Report{Report: r}})
	}
}

func (a *agent) digest() {
	a.mu.Lock()
	d := &pb.Digest{Seq: 1, ServiceHealth: a.checked}
	if a.welcome == nil {
		a.mu.Unlock()
		return
	}
	for _, s := range a.subjects {
		d.Subjects = append(d.Subjects, &pb.SubjectDigest{
			ServerId: s.GetServerId(), Incarnation: s.GetIncarnation(), Evidence: evidence(a.network.Load().sight(s.GetServerId()), 10),
		})
	}
	a.mu.Unlock()
	a.send(&pb.SessionRequest{Message: &pb.SessionRequest_Digest{Digest: d}})
}

// answer examines a server as the contract says: a reply is told at once, the
// first lost probe without being final, the end of the probes as final.
func (a *agent) answer(q *pb.Question) {
	id, timeout := q.GetSubject().GetServerId(), q.GetProbeTimeout().AsDuration()
	if a.network.Load().sight(id) == pb.Sight_SIGHT_DOWN {
		time.Sleep(timeout)
		first := evidence(pb.Sight_SIGHT_DOWN, 1)
		first.FirstLostAge = durationpb.New(timeout)
		a.tell(q, first, false)
		time.Sleep(q.GetOver().AsDuration())
	}
	seen := evidence(a.network.Load().sight(id), q.GetProbes())
	if seen.GetSight() == pb.Sight_SIGHT_DOWN {
		seen.FirstLostAge = durationpb.New(timeout + q.GetOver().AsDuration())
	}
	a.tell(q, seen, true)
}

func (a *agent) tell(q *pb.Question, seen *pb.Evidence, final bool) {
	a.send(&pb.SessionRequest{Message: &pb.SessionRequest_Answer{Answer: &pb.Answer{
		Round: q.GetRound(), ServerId: q.GetSubject().GetServerId(), Incarnation: q.GetSubject().GetIncarnation(),
		Evidence: seen, Final: &final,
	}}})
}

func evidence(sight pb.Sight, probes uint32) *pb.Evidence {
	e := &pb.Evidence{Sight: sight, Sent: probes}
	if sight == pb.Sight_SIGHT_UP {
		e.Rtt, e.LastReplyAge = durationpb.New(300*time.Microsecond), durationpb.New(0)
		return e
	}
	e.Lost, e.FirstLostAge = probes, durationpb.New(50*time.Millisecond)
	return e
}

// leave says goodbye and waits for the answer.
func (a *agent) leave() *pb.LeaveResult { return a.leaving(&pb.Leave{}) }

// leaveAfter drains first.
func (a *agent) leaveAfter(drain time.Duration) *pb.LeaveResult {
	return a.leaving(&pb.Leave{DrainTimeout: durationpb.New(drain)})
}

func (a *agent) leaving(l *pb.Leave) *pb.LeaveResult {
	a.w.t.Helper()
	l.Incarnation, l.Reason = a.incarnation(), "test"
	a.send(&pb.SessionRequest{Message: &pb.SessionRequest_Leave{Leave: l}})
	var result *pb.LeaveResult
	eventually(a.w.t, 20*time.Second, func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if result = a.left; result == nil {
			return fmt.Errorf("no answer to the leave of %s", a.id)
		}
		return nil
	})
	return result
}

// crash silences the host, its kernel included.
func (a *agent) crash() {
	a.mu.Lock()
	a.dead = true
	a.mu.Unlock()
	a.network.Load().set(a.id, true)
}

// revive ends a crash that was a hang of the host.
func (a *agent) revive() {
	a.mu.Lock()
	a.dead = false
	a.mu.Unlock()
	a.network.Load().set(a.id, false)
}

// check lets its checks find something; it says so from its next digest on.
func (a *agent) check(found *pb.ServiceHealth) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.checked = found
}

// kill ends the agent alone.
func (a *agent) kill() { a.cancel() }

func (a *agent) incarnation() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.hello.GetIncarnation()
}

// welcomed waits for the Welcome of the present session.
func (a *agent) welcomed() *pb.Welcome {
	a.w.t.Helper()
	var welcome *pb.Welcome
	eventually(a.w.t, 20*time.Second, func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if welcome = a.welcome; welcome == nil {
			return fmt.Errorf("%s was not welcomed", a.id)
		}
		return nil
	})
	return welcome
}
