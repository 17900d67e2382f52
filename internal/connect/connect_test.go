package connect_test

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/connect"
)

// What a RST refuses, the host refuses. Refusals by ICMP need a network of their own:
// TestRefusalByICMP of agent/prober.
func TestDial(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	conn, err := connect.Dial(ctx, net.Dialer{}, address)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	l.Close()
	if _, err = connect.Dial(ctx, net.Dialer{}, address); !errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, connect.ErrRefusedElsewhere) {
		t.Errorf("refused: %v", err)
	}
}
