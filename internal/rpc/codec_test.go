package rpc_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/buddyring/buddyring/internal/rpc"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// A client cannot tell parts that were encoded before from a message.
func TestEncodedIsSentAsItIs(t *testing.T) {
	t.Parallel()
	want := &routerv1.WatchResponse{
		Freshness: &routerv1.Freshness{Revision: 7},
		Message:   &routerv1.WatchResponse_Delta{Delta: &routerv1.WatchDelta{Removed: []string{"web-1"}}},
	}
	one, err := proto.Marshal(&routerv1.WatchResponse{Freshness: want.GetFreshness()})
	must(t, err)
	two, err := proto.Marshal(&routerv1.WatchResponse{Message: want.GetMessage()})
	must(t, err)
	lis := listen(t, newCredentials(t, rpc.Security{}))
	serve(t, rpc.ServerConfig{}, &service{watch: func(stream grpc.ServerStream) error {
		// The same value to the same client twice: nothing is used up.
		shared := rpc.NewEncoded(one, two)
		for range 2 {
			if err := stream.SendMsg(shared); err != nil {
				return err
			}
		}
		return stream.SendMsg(want)
	}}, lis)
	conn := dial(t, rpc.DialConfig{Addresses: []string{lis.Addr().String()}})
	stream, err := routerv1.NewRouterServiceClient(conn).Watch(context.Background(), &routerv1.WatchRequest{})
	must(t, err)
	for range 3 {
		got, err := stream.Recv()
		must(t, err)
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}
