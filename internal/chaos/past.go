package chaos

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const (
	// earlyTime is how long before it goes on they ask. Real agents give up after 2 s.
	earlyTime = 500 * time.Millisecond
	// answerTime is how long it may take to answer.
	answerTime = 5 * time.Second
	// unawareTime is by how much its link to the database is late meanwhile, each way:
	// what it does before it reads there that it was succeeded is what matters.
	unawareTime = 200 * time.Millisecond
)

// Visits are the questions to leaders of the past of those who have seen a later one.
type Visits struct {
	// Agents and Routers were refused; Unanswered got neither that nor an effect.
	Agents, Routers, Unanswered int
}

func (v *Visits) add(o Visits) {
	v.Agents, v.Routers, v.Unanswered = v.Agents+o.Agents, v.Routers+o.Routers, v.Unanswered+o.Unanswered
}

func (v Visits) String() string {
	return fmt.Sprintf("leaders of the past refused %d members and %d routers, and left %d without an answer", v.Agents, v.Routers, v.Unanswered)
}

// past is a leader that was stopped, and succeeded meanwhile.
type past struct {
	*coordinator

	// members are those that it has when it is stopped, as they said hello.
	members []*pb.Hello
	// later is the epoch of its successor.
	later uint64
}

// past is what the leader will be.
func (r *run) past(leader *coordinator) past {
	p := past{coordinator: leader}
	for _, a := range r.agents {
		if hello := a.said.Load(); hello != nil {
			p.members = append(p.members, hello)
		}
	}
	return p
}

// wake lets a leader of the past go on. Those who know its successor are the first
// whom it hears: members, routers, and a real agent and a real router that are started
// again and ask it before the others. Nothing that it says is of use to them.
func (r *run) wake(ctx context.Context, p past) error {
	_, later, err := r.site.leader(ctx)
	if err != nil {
		return err
	}
	p.later = later
	if err := r.real.turnTo(p.front.address); err != nil {
		return err
	}
	visiting, cancel := context.WithTimeout(ctx, earlyTime+answerTime)
	defer cancel()
	var visits sync.WaitGroup
	for _, hello := range p.members {
		visits.Go(func() {
			epoch, err := r.visitAsAgent(visiting, p, hello)
			r.tell(visitor{hello.GetServerId(), p.later, &r.report.Visits.Agents}, epoch, err)
		})
	}
	for _, w := range r.watchers {
		if hello := w.stands(p.later); len(hello.GetResume()) > 0 {
			visits.Go(func() {
				epoch, err := r.visitAsRouter(visiting, p, hello)
				r.tell(visitor{hello.GetRouterId(), p.later, &r.report.Visits.Routers}, epoch, err)
			})
		}
	}
	sleep(ctx, earlyTime)
	p.gates.slow(unawareTime)
	err = p.proc.Signal(syscall.SIGCONT)
	visits.Wait()
	p.gates.slow(0)
	return err
}

// visitor is somebody who has seen a later epoch; refused counts those like it who were
// refused.
type visitor struct {
	id      string
	later   uint64
	refused *int
}

// tell notes what a visitor was told: the epoch of an effect, or an error.
func (r *run) tell(v visitor, epoch uint64, err error) {
	r.visits.Lock()
	defer r.visits.Unlock()
	switch {
	case err == nil && epoch < v.later:
		r.report.StaleEffects = append(r.report.StaleEffects,
			fmt.Sprintf("%s, who had said that there is epoch %d, got an effect of epoch %d", v.id, v.later, epoch))
	case errors.As(err, new(*member.NotLeaderError)):
		*v.refused++
	default:
		r.report.Visits.Unanswered++
	}
}

// visitAsAgent says hello as a member that comes back.
func (r *run) visitAsAgent(ctx context.Context, p past, hello *pb.Hello) (epoch uint64, err error) {
	conn, err := r.site.dial(p.address)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	stream, err := pb.NewAgentServiceClient(conn).Session(ctx)
	if err != nil {
		return 0, err
	}
	hello = proto.CloneOf(hello)
	hello.Epoch = p.later
	_ = stream.Send(&pb.SessionRequest{Message: &pb.SessionRequest_Hello{Hello: hello}}) // Recv says why it fails
	m, err := stream.Recv()
	return m.GetEpoch(), err
}

// visitAsRouter resumes a stream.
func (r *run) visitAsRouter(ctx context.Context, p past, hello *pb.SubscribeHello) (epoch uint64, err error) {
	conn, err := r.site.dial(p.address)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	stream, err := pb.NewMembershipServiceClient(conn).Subscribe(ctx)
	if err != nil {
		return 0, err
	}
	_ = stream.Send(&pb.SubscribeRequest{Message: &pb.SubscribeRequest_Hello{Hello: hello}}) // Recv says why it fails
	m, err := stream.Recv()
	return m.GetStart().GetEpoch(), err
}

// stands is a hello that resumes where the watcher is, as one that has seen an epoch.
func (w *watcher) stands(epoch uint64) *pb.SubscribeHello {
	w.mu.Lock()
	defer w.mu.Unlock()
	hello := &pb.SubscribeHello{RouterId: w.id, Version: "chaos", StoreId: w.storeID}
	for _, p := range w.pools {
		hello.Resume = append(hello.Resume, &pb.Position{Pool: p.Pool, Epoch: epoch, Revision: p.Revision, ChangeId: p.ChangeID})
	}
	return hello
}

// staleEffects are those at agents and routers.
func (r *run) staleEffects() ([]string, error) {
	all, err := r.real.staleEffects()
	all = append(all, r.ledger.staleEffect...)
	for _, w := range r.watchers {
		w.mu.Lock()
		all = append(all, w.stale...)
		w.mu.Unlock()
	}
	return all, err
}
