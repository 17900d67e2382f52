package server

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// RepairRing makes right what CheckRing finds. What is only on its way has arrived
// when the check has ended; the table is read anew while the pool changes.
func (a *adminService) RepairRing(ctx context.Context, req *pb.RepairRingRequest) (*pb.RepairRingResponse, error) {
	o, err := a.order(ctx, req, req.ExpectedRevision)
	if err != nil {
		return nil, err
	}
	if _, err := a.check(ctx, o.host); err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		res, err := a.repairOnce(ctx, o)
		if !errors.Is(err, pool.ErrMoved) || try == checkTries {
			return res, err
		}
		select {
		case <-time.After(checkPause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (a *adminService) repairOnce(ctx context.Context, o order) (*pb.RepairRingResponse, error) {
	table, err := a.table.Servers(ctx, o.host.pool)
	if err != nil {
		return nil, err
	}
	res := &pb.RepairRingResponse{}
	command := func(c pool.Call) pool.Input {
		return pool.RepairRing{Call: c, Rows: table.Servers, Unreadable: slices.Collect(maps.Keys(table.Unreadable)), At: table.At}
	}
	err = o.give(ctx, command, func(_ *pool.Machine, r pool.Reply) {
		res.Revision = uint64(r.Revision)
		for _, repair := range r.Repairs {
			res.Repairs = append(res.Repairs, &pb.RingRepair{ServerId: string(repair.ID), Kind: string(repair.Kind), Text: repair.Text})
		}
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}
