package server

import (
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// parcel is a message for subscribers that is made and encoded when the first of
// them needs it, and then goes to all as the same bytes: after a change of the
// leader all routers may need the whole pool at once. It is safe for concurrent
// use.
type parcel struct {
	// leads is where who has it stands.
	leads member.Position

	once    sync.Once
	pack    func() *pb.SubscribeResponse
	encoded *rpc.Encoded
	err     error
}

// newParcel returns what pack makes, which is called once, on the goroutine of
// whoever needs it first.
func newParcel(leads member.Position, pack func() *pb.SubscribeResponse) *parcel {
	return &parcel{leads: leads, pack: pack}
}

// open returns the message, and whether it was encoded for this caller.
func (p *parcel) open() (message *rpc.Encoded, first bool, err error) {
	p.once.Do(func() {
		first = true
		raw, err := proto.Marshal(p.pack())
		if err != nil {
			p.err = fmt.Errorf("encode for subscribers: %w", err)
		}
		p.encoded, p.pack = rpc.NewEncoded(raw), nil
	})
	return p.encoded, first, p.err
}
