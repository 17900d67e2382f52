package server

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/buddyring/buddyring/coordinator/lease"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const (
	// peersEvery is how often a leader without the lease asks the others.
	peersEvery = time.Second
	// peerTime bounds one answer.
	peerTime = time.Second
	// tellTime bounds the telling that the lease is free: a standby that does not hear
	// of it sees it by itself.
	tellTime = lease.PollEvery
)

// peerService tells the other coordinators what this one knows of the lead.
type peerService struct {
	pb.UnimplementedPeerServiceServer

	lease func(time.Time) member.Lease
	// asked hears of each question.
	asked func()
}

// GetLead tells who leads. A standby then looks by itself: whoever asks may have given
// the lease back.
func (p *peerService) GetLead(context.Context, *pb.GetLeadRequest) (*pb.GetLeadResponse, error) {
	p.asked()
	l := p.lease(time.Now())
	return &pb.GetLeadResponse{
		StoreId: l.StoreID, Epoch: uint64(l.Epoch), LeaderId: string(l.Holder), Leader: l.Advertise,
	}, nil
}

// lease is the lease as this coordinator has it or has seen it, also its own while the
// term loads; without a holder where none has been seen to renew it for a while.
func (s *Server) lease(now time.Time) member.Lease {
	if own := s.loading.Load(); own != nil {
		return *own
	}
	at := s.standing(now)
	return member.Lease{StoreID: at.storeID, Epoch: at.epoch, Holder: at.leaderID, Advertise: at.leader}
}

// askPeers ends the term when another coordinator knows of a later leader, until
// ctx ends. It asks while the lease may have been taken over and the database
// does not say so: agents and routers that stay here would hear nothing from
// whoever leads. Where nobody knows of one, the leader goes on softly.
func (t *term) askPeers(ctx context.Context) {
	tick := time.NewTicker(peersEvery)
	defer tick.Stop()
	peers := peers{Server: t.Server, conns: map[string]*grpc.ClientConn{}}
	defer peers.close()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if t.tenure.age(now) < lease.Life {
				continue
			}
		}
		if l := peers.lead(ctx, t.lead.storeID); l.Epoch > t.lead.epoch {
			t.known.See(l.StoreID, l.Epoch)
			t.see(lease.Sight{Lease: l, MovedAt: time.Now()})
			t.over.end(fmt.Errorf("epoch %d is over, %d leads, as another coordinator says: %w", t.lead.epoch, l.Epoch, member.ErrFenced))
			return
		}
	}
}

// tellPeers has the other coordinators look at the lease, which is free. The first one
// that sees it takes it.
func (t *term) tellPeers(ctx context.Context) {
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellTime)
	defer cancel()
	peers := peers{Server: t.Server, conns: map[string]*grpc.ClientConn{}}
	defer peers.close()
	peers.lead(within, t.lead.storeID)
}

// peers are the connections to the other coordinators.
type peers struct {
	*Server

	conns map[string]*grpc.ClientConn
}

func (p *peers) close() {
	for _, c := range p.conns {
		_ = c.Close() // nothing is under way
	}
}

// lead asks all at once and returns the lease of the highest epoch of this store that
// any of them knows, epoch 0 for none.
func (p *peers) lead(ctx context.Context, storeID string) (highest member.Lease) {
	within, cancel := context.WithTimeout(ctx, peerTime)
	defer cancel()
	var mu sync.Mutex
	var asked sync.WaitGroup
	for _, address := range *p.others.Load() {
		conn, err := p.conn(address)
		if err != nil {
			p.deps.Logger.WarnContext(ctx, "other coordinator not asked", "address", address, "error", err)
			continue
		}
		asked.Go(func() {
			res, err := pb.NewPeerServiceClient(conn).GetLead(within, &pb.GetLeadRequest{})
			if err != nil {
				return // it is asked again
			}
			mu.Lock()
			defer mu.Unlock()
			if e := member.Epoch(res.GetEpoch()); res.GetStoreId() == storeID && e > highest.Epoch {
				highest = member.Lease{
					StoreID: res.GetStoreId(), Epoch: e, Holder: member.ID(res.GetLeaderId()), Advertise: res.GetLeader(),
				}
			}
		})
	}
	asked.Wait()
	return highest
}

func (p *peers) conn(address string) (*grpc.ClientConn, error) {
	if c := p.conns[address]; c != nil {
		return c, nil
	}
	c, err := rpc.Dial(rpc.DialConfig{
		Addresses: []string{address}, Credentials: p.deps.Credentials, ServerRole: rpc.RoleCoordinator,
		Logger: p.deps.Logger, Dialer: p.deps.PeerDialer,
	})
	if err != nil {
		return nil, fmt.Errorf("ask %s who leads: %w", address, err)
	}
	p.conns[address] = c
	return c, nil
}
