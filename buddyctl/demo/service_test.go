package demo

import (
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
)

// One port speaks HTTP and gRPC, and both say whose it is.
func TestService(t *testing.T) {
	t.Parallel()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := serve("web-1", lis)
	defer s.close()
	if err := get(&loopbackPlace{})(t.Context(), lis.Addr().String()); err != nil {
		t.Error(err)
	}
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	var header metadata.MD
	answer, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{}, grpc.Header(&header))
	if err != nil || answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Fatalf("health: %v, %v", answer, err)
	}
	if got := header.Get("server"); len(got) != 1 || got[0] != "web-1" {
		t.Errorf("answered by %q", got)
	}
}
