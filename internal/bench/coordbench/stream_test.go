package coordbench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// echoing is a coordinator that sends a big message, then a bookmark for every
// ack, and ends with an error.
type echoing struct {
	pb.UnimplementedMembershipServiceServer

	end error
}

func bigSnapshot() *pb.SubscribeResponse {
	s := &pb.Snapshot{Position: &pb.Position{Pool: "default", Revision: 7}}
	for i := range 1000 {
		s.Servers = append(s.Servers, &pb.Server{ServerId: fmt.Sprint(i), Pool: strings.Repeat("x", 1000)})
	}
	return &pb.SubscribeResponse{Message: &pb.SubscribeResponse_Snapshot{Snapshot: s}}
}

func bookmark(n uint64) *pb.SubscribeResponse {
	return &pb.SubscribeResponse{Message: &pb.SubscribeResponse_Bookmark{
		Bookmark: &pb.Bookmark{Positions: []*pb.Position{{Pool: "default", Revision: n}}},
	}}
}

// Subscribe serves one subscriber.
func (e *echoing) Subscribe(stream pb.MembershipService_SubscribeServer) error {
	first, err := stream.Recv()
	if err != nil || first.GetHello().GetRouterId() != "r1" {
		return fmt.Errorf("the first message is %v: %w", first, errors.Join(err, member.ErrInvalid))
	}
	if err := stream.Send(bigSnapshot()); err != nil {
		return err
	}
	for range 3 {
		ack, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := stream.Send(bookmark(ack.GetAck().GetSoftSeq())); err != nil {
			return err
		}
	}
	return e.end
}

// The stream without a gRPC client is understood by a gRPC server, and
// understands it.
func TestStreamSpeaksGRPC(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]error{
		"ended": nil,
		"removed": &member.RemovedError{
			ID: "web-1", Incarnation: 9, Cause: member.CauseCrashed,
		},
		"not leader": &member.NotLeaderError{Leader: "c2:7400"},
		"plain":      fmt.Errorf("%w: 100 %% of nothing: ü", member.ErrUnavailable),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			s, err := connect(ctx, sourceOf(3), serve(t, &echoing{end: end}), 64)
			if err != nil {
				t.Fatal(err)
			}
			defer s.close()
			defer context.AfterFunc(ctx, s.close)()
			hello := &pb.SubscribeRequest{Message: &pb.SubscribeRequest_Hello{Hello: &pb.SubscribeHello{RouterId: "r1"}}}
			if err := s.call(pb.MembershipService_Subscribe_FullMethodName, hello); err != nil {
				t.Fatal(err)
			}
			head, size, err := s.receive()
			if err != nil || len(head) != 64 || size != proto.Size(bigSnapshot()) {
				t.Fatalf("the snapshot has %d bytes, of which %d are kept; error %v", size, len(head), err)
			}
			if err := s.send(acks(1, 2, 3)...); err != nil {
				t.Fatal(err)
			}
			for n := range uint64(3) {
				var got pb.SubscribeResponse
				raw, _, err := s.receive()
				if err != nil || proto.Unmarshal(raw, &got) != nil || !proto.Equal(&got, bookmark(n+1)) {
					t.Fatalf("bookmark %d is %v, error %v", n+1, &got, err)
				}
			}
			_, _, err = s.receive()
			checkEnd(t, err, end)
		})
	}
}

func acks(seqs ...uint64) (all []proto.Message) {
	for _, n := range seqs {
		all = append(all, &pb.SubscribeRequest{Message: &pb.SubscribeRequest_Ack{Ack: &pb.Ack{SoftSeq: n}}})
	}
	return all
}

func checkEnd(t *testing.T, got, want error) {
	t.Helper()
	var leader *member.NotLeaderError
	var removed *member.RemovedError
	switch {
	case want == nil:
		if !errors.Is(got, io.EOF) {
			t.Errorf("ended with %v", got)
		}
	case errors.As(want, &leader):
		var named *member.NotLeaderError
		if !errors.As(got, &named) || named.Leader != leader.Leader {
			t.Errorf("ended with %v, want %v", got, want)
		}
	case errors.As(want, &removed):
		var by *member.RemovedError
		if !errors.As(got, &by) || *by != *removed {
			t.Errorf("ended with %v, want %v", got, want)
		}
	case got == nil || got.Error() != want.Error() || !errors.Is(got, member.ErrUnavailable):
		t.Errorf("ended with %v, want %v", got, want)
	}
}

// serve serves a coordinator's port for subscribers.
func serve(t *testing.T, svc pb.MembershipServiceServer) (address string) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	credentials, err := rpc.NewCredentials(rpc.Security{}, log)
	if err != nil {
		t.Fatal(err)
	}
	lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := rpc.NewServer(rpc.ServerConfig{Credentials: credentials, Logger: log})
	pb.RegisterMembershipServiceServer(server.GRPC(), svc)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, lis) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return lis.Addr().String()
}
