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
		visits.Go(func() { r.tell(r.visitAsAgent(visiting, p, hello)) })
	}
	for _, w := range r.watchers {
		if hello := w.stands(p.later); len(hello.GetResume()) > 0 {
			visits.Go(func() { r.tell(r.visitAsRouter(visiting, p, hello)) })
		}
	}
	sleep(ctx, earlyTime)
	p.gates.slow(unawareTime)
	err = p.proc.Signal(syscall.SIGCONT)
	visits.Wait()
	p.gates.slow(0)
	return err
}

// tell notes what a visitor was told: the epoch of an effect, or an error.
func (r *run) tell(who string, epoch, later uint64, err error) {
	r.visits.Lock()
	defer r.visits.Unlock()
	switch {
	case err == nil && epoch < later:
		r.report.StaleEffects = append(r.report.StaleEffects,
			fmt.Sprintf("%s, who had said that there is epoch %d, got an effect of epoch %d", who, later, epoch))
	case errors.As(err, new(*member.NotLeaderError)):
		r.report.Visits++
	}
}

// visitAsAgent says hello as a member that comes back.
func (r *run) visitAsAgent(ctx context.Context, p past, hello *pb.Hello) (who string, epoch, later uint64, err error) {
	who, later = hello.GetServerId(), p.later
	conn, err := r.site.dial(p.address)
	if err != nil {
		return who, 0, later, err
	}
	defer func() { _ = conn.Close() }()
	stream, err := pb.NewAgentServiceClient(conn).Session(ctx)
	if err != nil {
		return who, 0, later, err
	}
	hello = proto.CloneOf(hello)
	hello.Epoch = later
	_ = stream.Send(&pb.SessionRequest{Message: &pb.SessionRequest_Hello{Hello: hello}}) // Recv says why it fails
	m, err := stream.Recv()
	return who, m.GetEpoch(), later, err
}

// visitAsRouter resumes a stream.
func (r *run) visitAsRouter(
	ctx context.Context, p past, hello *pb.SubscribeHello,
) (who string, epoch, later uint64, err error) {
	who, later = hello.GetRouterId(), p.later
	conn, err := r.site.dial(p.address)
	if err != nil {
		return who, 0, later, err
	}
	defer func() { _ = conn.Close() }()
	stream, err := pb.NewMembershipServiceClient(conn).Subscribe(ctx)
	if err != nil {
		return who, 0, later, err
	}
	_ = stream.Send(&pb.SubscribeRequest{Message: &pb.SubscribeRequest_Hello{Hello: hello}}) // Recv says why it fails
	m, err := stream.Recv()
	return who, m.GetStart().GetEpoch(), later, err
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
