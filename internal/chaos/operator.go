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
	// reasonPrefix begins the reasons of operators, of which there are no two alike.
	reasonPrefix = "chaos reason "
	// removeTime is how long until the next server is removed, at most.
	removeTime = 4 * time.Second
	// hasteTime is how long an answer may take for which hardly anybody waits, at most.
	hasteTime = 30 * time.Millisecond
)

// operator changes one thing after the other, each with a reason of its own. It
// repeats a request until it has an answer, or gives up.
type operator struct {
	name    string
	site    *site
	ledger  *ledger
	history *history.Recorder
	rng     *rand.Rand
	calm    *atomic.Bool
	// asked counts what it has asked for.
	asked int
}

// operators are what each of them does.
func operators() map[string]func(*operator, context.Context) {
	return map[string]func(*operator, context.Context){
		"intents": (*operator).intend, "removals": (*operator).remove, "drains": (*operator).drain,
		"updates": (*operator).update, "replacements": (*operator).replace, "pools": (*operator).rearrange,
	}
}

// reason is another one, and a request id.
func (o *operator) reason() string {
	o.asked++
	return fmt.Sprintf("%s%s-%d.", reasonPrefix, o.name, o.asked)
}

// pause waits before the next change, and reports whether there is to be one.
func (o *operator) pause(ctx context.Context, limit time.Duration) bool {
	sleep(ctx, time.Duration(o.rng.Int64N(int64(limit))))
	return ctx.Err() == nil && !o.calm.Load()
}

// intend sets intents until ctx ends.
func (o *operator) intend(ctx context.Context) {
	for ; ctx.Err() == nil && !o.calm.Load(); sleep(ctx, 10*time.Millisecond) {
		reason := o.reason()
		request := &pb.SetIntentRequest{
			Pool: chaosPool, ServerId: "planned-" + strconv.Itoa(o.asked%20), Wish: pb.Wish_WISH_MAINTENANCE, Reason: reason, RequestId: reason,
		}
		_ = o.insist(ctx, reason, history.Operation{
			Kind: history.Intend, Pool: chaosPool, Server: request.GetServerId(), Intent: history.Intent{Wish: "maintenance", Reason: reason},
		}, func(ctx context.Context, c *coordinator) (uint64, error) {
			res, err := c.client.SetIntent(ctx, request)
			return res.GetRevision(), err
		})
	}
}

// remove takes members out until ctx ends.
func (o *operator) remove(ctx context.Context) {
	for o.pause(ctx, removeTime) {
		id, incarnation, ok := o.ledger.anyMember(o.rng)
		if !ok {
			continue
		}
		o.ledger.doom(id, incarnation)
		reason := o.reason()
		request := &pb.RemoveServerRequest{Pool: chaosPool, ServerId: id, Incarnation: incarnation, RequestId: reason, Reason: reason}
		_ = o.insist(ctx, reason, history.Operation{Kind: history.Remove, Pool: chaosPool, Server: id, Incarnation: incarnation},
			func(ctx context.Context, c *coordinator) (uint64, error) {
				res, err := c.client.RemoveServer(ctx, request)
				return res.GetRevision(), err
			})
	}
}

// errGaveUp says that nobody knows whether a change was made.
var errGaveUp = errors.New("the operator has given up")

// refuses reports whether an answer says that a change is not made.
func refuses(kind history.Kind, err error) bool {
	return errors.Is(err, member.ErrNotFound) || errors.Is(err, member.ErrStale) || errors.Is(err, member.ErrRefused) ||
		kind == history.Create && errors.Is(err, member.ErrAlreadyExists)
}

// insist asks until there is an answer. The error is a refusal, or errGaveUp: that
// it does now and then.
func (o *operator) insist(
	ctx context.Context, reason string, what history.Operation, ask func(context.Context, *coordinator) (uint64, error),
) error {
	what.Client = o.name
	o.ledger.ordered(what, reason)
	call := o.history.Call(what, time.Now())
	for try := 0; ctx.Err() == nil && (try == 0 || o.rng.IntN(300) != 0); try++ {
		if try > 0 {
			call.Retry()
		}
		revision, err := o.once(ctx, try, ask)
		switch {
		case err == nil:
			call.Return(history.Result{Revision: revision}, time.Now())
			o.ledger.done(what, reason)
			return nil
		case refuses(what.Kind, err):
			if try == 0 {
				call.Void()
			}
			return err
		}
		sleep(ctx, 20*time.Millisecond)
	}
	return errGaveUp
}

func (o *operator) once(ctx context.Context, try int, ask func(context.Context, *coordinator) (uint64, error)) (uint64, error) {
	limit := askTime
	if o.rng.IntN(8) == 0 {
		// The answer may be lost, and the change made.
		limit = time.Duration(o.rng.Int64N(int64(hasteTime)))
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return ask(ctx, o.site.all[try%len(o.site.all)])
}
