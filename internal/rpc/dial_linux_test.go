package rpc_test

import (
	"net"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/connect/gone"
	"github.com/buddyring/buddyring/internal/rpc"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// TestHostsThatAreGoneDelayNobody: a dial of package net waits for each address of a
// name for a part of the time that it has, 2 s at least.
func TestHostsThatAreGoneDelayNobody(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	serve(t, rpc.ServerConfig{}, fine, lis)
	conn := dial(t, rpc.DialConfig{Addresses: []string{gone.Name(t, lis)}})
	began := time.Now()
	_, err = routerv1.NewRouterServiceClient(conn).Pick(soon(t), &routerv1.PickRequest{})
	must(t, err)
	if took := time.Since(began); took > 1500*time.Millisecond {
		t.Errorf("it took %v", took)
	}
}
