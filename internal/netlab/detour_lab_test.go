//go:build lab && linux

package netlab_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/netlab"
)

// TestDetourDelays pings over a detour, and sends over it by TCP what takes many
// segments.
func TestDetourDelays(t *testing.T) {
	t.Parallel()
	lab := newLab(t, netlab.Config{Hosts: []string{"a", "b", "c", "slow"}})
	a, b, c := lab.Host("a"), lab.Host("b"), lab.Host("c")
	took := func(to *netlab.Host) time.Duration {
		begin := time.Now()
		if err := ping(a, "udp4", to.Addr(), patience); err != nil {
			t.Fatal(err)
		}
		return time.Since(begin)
	}
	least := func(to *netlab.Host) time.Duration {
		return min(took(to), took(to), took(to), took(to), took(to)) // the machine may be busy
	}
	detour, err := lab.Host("slow").Detour()
	if err != nil {
		t.Fatal(err)
	}
	const delay = 100 * time.Millisecond
	if err := detour.Between(a, b, delay); err != nil {
		t.Fatal(err)
	}
	if rtt := took(b); rtt < 2*delay {
		t.Errorf("to and fro in %v", rtt)
	}
	if rtt := least(c); rtt >= 2*delay {
		t.Errorf("past the detour: to and fro in %v", rtt)
	}
	lis, err := b.Listen(t.Context(), "tcp", b.Addr().String()+":80")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	text := bytes.Repeat([]byte("0123456789abcdef"), 16<<10)
	sent := make(chan error, 1)
	go func() {
		conn, err := lis.Accept()
		if err == nil {
			_, err = conn.Write(text)
			_ = conn.Close()
		}
		sent <- err
	}()
	conn, err := a.Dial(t.Context(), "tcp", lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, text) {
		t.Errorf("%d of %d bytes arrived, %v", len(got), len(text), err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if err := detour.Close(); err != nil {
		t.Fatal(err)
	}
	if rtt := least(b); rtt >= 2*delay {
		t.Errorf("after the detour: to and fro in %v", rtt)
	}
}
