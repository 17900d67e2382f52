package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/buddyring/buddyring/internal/history"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const (
	// reasonPrefix begins the reasons of intents.
	reasonPrefix = "chaos reason "
	// removeTime is how long until the next server is removed, at most.
	removeTime = 4 * time.Second
)

// operator sets one intent after the other, each with a reason of its own, and
// takes members out. It repeats a request until it has an answer, or gives up.
type operator struct {
	site    *site
	ledger  *ledger
	history *history.Recorder
	rng     *rand.Rand
	calm    *atomic.Bool
}

// intend sets intents until ctx ends.
func (o *operator) intend(ctx context.Context) {
	for i := 0; ctx.Err() == nil && !o.calm.Load(); i++ {
		reason := fmt.Sprintf("%s%d.", reasonPrefix, i)
		request := &pb.SetIntentRequest{
			Pool: chaosPool, ServerId: "planned-" + strconv.Itoa(i%20), Wish: pb.Wish_WISH_MAINTENANCE,
			Reason: reason, RequestId: "chaos-" + strconv.Itoa(i),
		}
		done := o.insist(ctx, history.Operation{
			Kind: history.Intend, Pool: chaosPool, Server: request.GetServerId(), Client: "operator-1", Value: reason,
		}, func(ctx context.Context, c *coordinator) (uint64, error) {
			res, err := c.client.SetIntent(ctx, request)
			return res.GetRevision(), err
		})
		if done {
			o.ledger.intended(reason)
		}
		sleep(ctx, 10*time.Millisecond)
	}
}

// remove takes members out until ctx ends.
func (o *operator) remove(ctx context.Context) {
	for i := 0; !o.calm.Load(); i++ {
		sleep(ctx, time.Duration(o.rng.Int64N(int64(removeTime))))
		id, incarnation, ok := o.ledger.anyMember(o.rng)
		if ctx.Err() != nil {
			return
		}
		if !ok || o.calm.Load() {
			continue
		}
		request := &pb.RemoveServerRequest{
			Pool: chaosPool, ServerId: id, Incarnation: incarnation, RequestId: "chaos-remove-" + strconv.Itoa(i), Reason: "chaos",
		}
		o.insist(ctx, history.Operation{
			Kind: history.Remove, Pool: chaosPool, Server: id, Client: "operator-2", Incarnation: incarnation,
		}, func(ctx context.Context, c *coordinator) (uint64, error) {
			res, err := c.client.RemoveServer(ctx, request)
			return res.GetRevision(), err
		})
	}
}

// insist asks until there is an answer, and reports whether it was done. Now and
// then it gives up.
func (o *operator) insist(ctx context.Context, what history.Operation, ask func(context.Context, *coordinator) (uint64, error)) bool {
	call := o.history.Call(what, time.Now())
	for try := 0; ctx.Err() == nil && (try == 0 || o.rng.IntN(300) != 0); try++ {
		if try > 0 {
			call.Retry()
		}
		revision, err := o.once(ctx, try, ask)
		switch {
		case err == nil:
			call.Return(history.Result{Revision: revision}, time.Now())
			return true
		case errors.Is(err, member.ErrNotFound), errors.Is(err, member.ErrStale), errors.Is(err, member.ErrRefused):
			if try == 0 {
				call.Void()
			}
			return false
		}
		sleep(ctx, 20*time.Millisecond)
	}
	return false
}

func (o *operator) once(ctx context.Context, try int, ask func(context.Context, *coordinator) (uint64, error)) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	return ask(ctx, o.site.all[try%len(o.site.all)])
}
