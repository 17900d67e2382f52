package server

import (
	"context"

	"github.com/buddyring/buddyring/coordinator/pool"
)

// order is an operator's change on its way to the machine of a pool.
type order struct {
	host *host
	call pool.Call
}

// changeRequest asks for a change of one pool.
type changeRequest interface {
	mutation
	GetPool() string
}

// order parses what all changes of a pool have in common; expected is the
// expected_revision of the request.
func (a *adminService) order(ctx context.Context, req changeRequest, expected *uint64) (order, error) {
	h, err := a.pools.pick(req.GetPool())
	if err != nil {
		return order{}, err
	}
	call, err := parseCall(req, expected, peerOf(ctx))
	return order{h, call}, err
}

// give hands the command to the machine, with what was answered to its request id
// before, and waits for its reply; then as in host.call.
func (o order) give(ctx context.Context, command func(pool.Call) pool.Input, then func(*pool.Machine, pool.Reply)) error {
	earlier, err := answers{o.host.table, o.host.tenure}.of(ctx, o.host.pool, o.call.RequestID)
	if err != nil {
		return err
	}
	call := o.call
	call.Earlier = earlier
	return o.host.call(ctx, func(token pool.Token) pool.Input {
		call.Token = token
		return command(call)
	}, then)
}
