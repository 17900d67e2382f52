package server

import (
	"context"
	"time"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/xds"
)

// xdsGrace is how long a router that has only the views of an earlier run waits
// for a coordinator before it answers xDS clients from them: to such a client, a
// pool that was made meanwhile and is not in an answer would be deleted.
const xdsGrace = 2 * time.Second

// serveXDS keeps the door for xDS clients up with the pools, and opens it once
// what is not known does not exist.
func (s *Server) serveXDS(ctx context.Context, restored bool) {
	if restored {
		grace := time.AfterFunc(xdsGrace, s.pools.suffice)
		defer grace.Stop()
	}
	s.xds.Run(ctx, s.pools.replaced, func() ([]xds.Pool, bool) {
		// Asked first: what is certain is in the editions then.
		enough := s.pools.enough.Load()
		var all []xds.Pool
		for _, e := range s.pools.editions() {
			all = append(all, xds.Pool{Seq: e.seq, View: e.view, Table: e.table})
		}
		return all, enough
	})
}

// settle says that the pools which are not known do not exist.
func (p *pools) settle() {
	p.see()
	p.certain.Store(true)
	p.suffice()
}

// suffice lets xDS clients be answered.
func (p *pools) suffice() {
	if !p.enough.Swap(true) {
		p.replaced.set()
	}
}

// xdsDoor is the settler of xDS clients.
type xdsDoor struct{ door *xds.Door }

func (d xdsDoor) settle(ctx context.Context, editions []*edition) error {
	seqs := make(map[member.Pool]uint64, len(editions))
	for _, e := range editions {
		seqs[e.pool] = e.seq
	}
	return d.door.Settled(ctx, seqs)
}
