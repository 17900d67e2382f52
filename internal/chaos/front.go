package chaos

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"

	"github.com/buddyring/buddyring/internal/relay"
)

// front is the way to a coordinator of those who are far from it: the real agents and
// routers, and every other scripted one. It is the address that is told to all.
type front struct {
	*relay.Path

	address string
	relay   *relay.Relay
}

func newFront(ctx context.Context, coordinator string) (*front, error) {
	lis, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("make front: %w", err)
	}
	f := &front{Path: relay.To("tcp", coordinator), address: lis.Addr().String()}
	f.relay = relay.Start(lis, func(net.Addr) *relay.Path { return f.Path }) //nolint:contextcheck // it lives until Close
	return f, nil
}

// isFar reports whether the scripted agent or router of a number is far.
func isFar(n int) bool { return n%2 == 1 }

// addresses are those that are told to all.
func (s *site) addresses() []string {
	list := make([]string, len(s.all))
	for i, c := range s.all {
		list[i] = c.front.address
	}
	return list
}

// reach connects to the coordinator of an address that was told.
func (s *site) reach(told string, far bool) (*grpc.ClientConn, error) {
	for _, c := range s.all {
		if told == c.front.address && !far {
			return s.dial(c.address)
		}
	}
	return s.dial(told)
}
