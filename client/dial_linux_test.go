package client_test

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/buddyring/buddyring/client"
	"github.com/buddyring/buddyring/internal/connect/gone"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// watched tells when somebody has come.
type watched struct {
	routerv1.UnimplementedRouterServiceServer

	came chan struct{}
}

func (r *watched) Watch(_ *routerv1.WatchRequest, stream routerv1.RouterService_WatchServer) error {
	r.came <- struct{}{}
	<-stream.Context().Done()
	return context.Cause(stream.Context())
}

// TestFollow_HostsThatAreGoneDelayNobody: of a name that leads to several routers.
func TestFollow_HostsThatAreGoneDelayNobody(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &watched{came: make(chan struct{}, 1)}
	srv := grpc.NewServer()
	routerv1.RegisterRouterServiceServer(srv, r)
	go srv.Serve(lis)
	defer srv.Stop()
	pool, err := client.Open(client.Config{
		Pool: "web", Routers: []string{gone.Name(t, lis)}, Credentials: insecure.NewCredentials(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	select {
	case <-r.came:
	case <-time.After(1500 * time.Millisecond):
		t.Error("the router that is there was not reached in time")
	}
}
