package chaos

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// operator sets one intent after the other, each with a reason of its own, and
// repeats a request until it is acknowledged.
type operator struct {
	site   *site
	ledger *ledger
	calm   *atomic.Bool
}

// reasonPrefix begins the reasons of intents.
const reasonPrefix = "chaos reason "

func (o *operator) work(ctx context.Context) {
	for i := 0; ctx.Err() == nil && !o.calm.Load(); i++ {
		reason := fmt.Sprintf("%s%d.", reasonPrefix, i)
		request := &pb.SetIntentRequest{
			Pool: "default", ServerId: "planned-" + strconv.Itoa(i%20), Wish: pb.Wish_WISH_MAINTENANCE,
			Reason: reason, RequestId: "chaos-" + strconv.Itoa(i),
		}
		if o.insist(ctx, request) {
			o.ledger.intended(reason)
		}
		sleep(ctx, 10*time.Millisecond)
	}
}

func (o *operator) insist(ctx context.Context, request *pb.SetIntentRequest) bool {
	for ctx.Err() == nil {
		for _, c := range o.site.all {
			within, cancel := context.WithTimeout(ctx, askTime)
			_, err := c.client.SetIntent(within, request)
			cancel()
			if err == nil {
				return true
			}
		}
		sleep(ctx, 50*time.Millisecond)
	}
	return false
}
