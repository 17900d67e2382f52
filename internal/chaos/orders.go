package chaos

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/buddyring/buddyring/internal/history"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const (
	// orderTime is how long until the next drain, resume, update, or change of a
	// pool, at most.
	orderTime = 400 * time.Millisecond
	// replaceTime is how long until the next server is replaced, at most.
	replaceTime = 2 * time.Second
	// noteLabel is the label that updates write.
	noteLabel = "note"
	// sidePrefix begins the names of the pools that come and go.
	sidePrefix = "side-"
)

// sidePools are the pools that come and go. Nobody joins them.
func sidePools() []string { return []string{sidePrefix + "1", sidePrefix + "2", sidePrefix + "3"} }

// drain drains a member and lets it work again, one after the other, until ctx ends.
func (o *operator) drain(ctx context.Context) {
	for o.pause(ctx, orderTime) {
		id, incarnation, ok := o.ledger.anyMember(o.rng)
		if !ok {
			continue
		}
		reason := o.reason()
		request := &pb.DrainServerRequest{
			Pool: chaosPool, ServerId: id, Incarnation: incarnation, RequestId: reason, Reason: reason,
			Timeout: durationpb.New(time.Duration(o.rng.IntN(2)) * orderTime),
		}
		err := o.insist(ctx, reason, history.Operation{
			Kind: history.Drain, Pool: chaosPool, Server: id, Incarnation: incarnation, Intent: history.Intent{Wish: "drain", Reason: reason},
		}, func(ctx context.Context, c *coordinator) (uint64, error) {
			res, err := c.client.DrainServer(ctx, request)
			return res.GetRevision(), err
		})
		if err == nil {
			sleep(ctx, time.Duration(o.rng.Int64N(int64(orderTime))))
		}
		o.resume(ctx, id)
	}
}

// resume ends a drain, if there is one.
func (o *operator) resume(ctx context.Context, id string) {
	reason := o.reason()
	request := &pb.ResumeServerRequest{Pool: chaosPool, ServerId: id, RequestId: reason, Reason: reason}
	_ = o.insist(ctx, reason, history.Operation{Kind: history.Resume, Pool: chaosPool, Server: id},
		func(ctx context.Context, c *coordinator) (uint64, error) {
			res, err := c.client.ResumeServer(ctx, request)
			return res.GetRevision(), err
		})
}

// update writes notes into the rows of members until ctx ends.
func (o *operator) update(ctx context.Context) {
	for o.pause(ctx, orderTime) {
		id, _, ok := o.ledger.anyMember(o.rng)
		if !ok {
			continue
		}
		reason := o.reason()
		note := strconv.Itoa(o.asked)
		request := &pb.UpdateServerRequest{
			Pool: chaosPool, ServerId: id, RequestId: reason, Reason: reason,
			Spec: &pb.ServerSpec{Labels: map[string]string{noteLabel: note}}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels"}},
		}
		_ = o.insist(ctx, reason, history.Operation{Kind: history.Update, Pool: chaosPool, Server: id, Value: note},
			func(ctx context.Context, c *coordinator) (uint64, error) {
				res, err := c.client.UpdateServer(ctx, request)
				return res.GetRevision(), err
			})
	}
}

// replace lets members take the places of others, and those join again, until ctx
// ends.
func (o *operator) replace(ctx context.Context) {
	for o.pause(ctx, replaceTime) {
		id, incarnation, ok := o.ledger.anyMember(o.rng)
		by, _, _ := o.ledger.anyMember(o.rng)
		if !ok || by == id {
			continue
		}
		o.ledger.doom(id, incarnation)
		reason := o.reason()
		request := &pb.ReplaceServerRequest{
			Pool: chaosPool, ServerId: id, Incarnation: incarnation, ReplacementId: by, Force: o.rng.IntN(2) == 0,
			RequestId: reason, Reason: reason,
		}
		_ = o.insist(ctx, reason, history.Operation{
			Kind: history.Replace, Pool: chaosPool, Server: id, Incarnation: incarnation, By: by,
			Intent: history.Intent{Wish: "banned", Reason: fmt.Sprintf("%s was replaced by %s: %s", id, by, reason)},
		}, func(ctx context.Context, c *coordinator) (uint64, error) {
			res, err := c.client.ReplaceServer(ctx, request)
			return res.GetRevision(), err
		})
		sleep(ctx, time.Duration(o.rng.Int64N(int64(replaceTime))))
		o.forgive(ctx, id)
	}
}

// forgive ends what is wanted for an id, for certain: its agent cannot join before.
func (o *operator) forgive(ctx context.Context, id string) {
	for ctx.Err() == nil && o.wantNothing(ctx, id) != nil {
		sleep(ctx, orderTime)
	}
}

func (o *operator) wantNothing(ctx context.Context, id string) error {
	reason := o.reason()
	request := &pb.SetIntentRequest{Pool: chaosPool, ServerId: id, Wish: pb.Wish_WISH_ACTIVE, Reason: reason, RequestId: reason}
	return o.insist(ctx, reason, history.Operation{Kind: history.Intend, Pool: chaosPool, Server: id},
		func(ctx context.Context, c *coordinator) (uint64, error) {
			res, err := c.client.SetIntent(ctx, request)
			return res.GetRevision(), err
		})
}

// rearrange creates, changes and deletes the side pools until ctx ends.
func (o *operator) rearrange(ctx context.Context) {
	there := map[string]bool{}
	for o.pause(ctx, orderTime) {
		pool := sidePools()[o.rng.IntN(len(sidePools()))]
		var err error
		switch {
		case !there[pool]:
			err = o.create(ctx, pool)
		case o.rng.IntN(3) == 0:
			err = o.delete(ctx, pool)
		case o.rng.IntN(2) == 0:
			err = o.configure(ctx, pool)
		default:
			err = o.plan(ctx, pool)
		}
		switch {
		case err == nil:
			there[pool] = o.ledger.promised(pool)
		case errors.Is(err, member.ErrNotFound):
			there[pool] = false
		case errors.Is(err, member.ErrAlreadyExists):
			there[pool] = true
		}
	}
}

// settings are some that nobody has asked for yet, and what the table says of them.
func (o *operator) settings() (*pb.PoolSettings, string) {
	d := 5*time.Minute + time.Duration(o.asked)*time.Millisecond
	return &pb.PoolSettings{HoldDownMax: durationpb.New(d)}, strconv.FormatInt(d.Nanoseconds(), 10)
}

func (o *operator) create(ctx context.Context, pool string) error {
	reason := o.reason()
	settings, value := o.settings()
	request := &pb.CreatePoolRequest{Pool: pool, Settings: settings, RequestId: reason, Reason: reason}
	return o.insist(ctx, reason, history.Operation{Kind: history.Create, Pool: pool, Value: value},
		func(ctx context.Context, c *coordinator) (uint64, error) {
			res, err := c.client.CreatePool(ctx, request)
			return res.GetPool().GetRevision(), err
		})
}

func (o *operator) configure(ctx context.Context, pool string) error {
	reason := o.reason()
	settings, value := o.settings()
	request := &pb.UpdatePoolRequest{Pool: pool, Settings: settings, RequestId: reason, Reason: reason}
	return o.insist(ctx, reason, history.Operation{Kind: history.Configure, Pool: pool, Value: value},
		func(ctx context.Context, c *coordinator) (uint64, error) {
			res, err := c.client.UpdatePool(ctx, request)
			return res.GetPool().GetRevision(), err
		})
}

// plan wants something for one of two ids.
func (o *operator) plan(ctx context.Context, pool string) error {
	reason := o.reason()
	request := &pb.SetIntentRequest{
		Pool: pool, ServerId: "planned-" + strconv.Itoa(o.rng.IntN(2)), Wish: pb.Wish_WISH_BANNED, Reason: reason, RequestId: reason,
	}
	return o.insist(ctx, reason, history.Operation{
		Kind: history.Intend, Pool: pool, Server: request.GetServerId(), Intent: history.Intent{Wish: "banned", Reason: reason},
	}, func(ctx context.Context, c *coordinator) (uint64, error) {
		res, err := c.client.SetIntent(ctx, request)
		return res.GetRevision(), err
	})
}

func (o *operator) delete(ctx context.Context, pool string) error {
	reason := o.reason()
	request := &pb.DeletePoolRequest{Pool: pool, RequestId: reason, Reason: reason}
	return o.insist(ctx, reason, history.Operation{Kind: history.Delete, Pool: pool},
		func(ctx context.Context, c *coordinator) (uint64, error) {
			res, err := c.client.DeletePool(ctx, request)
			return res.GetRevision(), err
		})
}
