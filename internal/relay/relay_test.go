package relay_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/relay"
)

// patience is how long whatever must arrive may take.
const patience = 20 * time.Second

// listen listens on loopback until the test ends.
func listen(t *testing.T) net.Listener {
	t.Helper()
	lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lis.Close() })
	return lis
}

// start starts a relay to an address, and returns where it listens.
func start(t *testing.T, to string) (*relay.Path, string) {
	t.Helper()
	lis, path := listen(t), relay.To("tcp", to)
	r := relay.Start(lis, func(net.Addr) *relay.Path { return path })
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return path, lis.Addr().String()
}

func dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn.(*net.TCPConn)
}

// pair returns both ends of a connection through a relay.
func pair(t *testing.T) (*relay.Path, *net.TCPConn, *net.TCPConn) {
	t.Helper()
	lis := listen(t)
	path, address := start(t, lis.Addr().String())
	caller := dial(t, address)
	called, err := lis.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = called.Close() })
	for _, end := range []net.Conn{caller, called} {
		if err := end.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
	}
	return path, caller, called.(*net.TCPConn)
}

// send sends content in pieces, and says that it is all.
func send(t *testing.T, to *net.TCPConn, content []byte) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, uint64(len(content))))
	for len(content) > 0 {
		n := min(len(content), 1+rng.IntN(40_000))
		if _, err := to.Write(content[:n]); err != nil {
			t.Error(err)
			return
		}
		content = content[n:]
		if rng.IntN(4) == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	if err := to.CloseWrite(); err != nil {
		t.Error(err)
	}
}

// Whatever happens to the ways, all arrives that is sent, in its order, and then
// the end of it, also where the other side has said all before.
func TestAllArrivesInItsOrder(t *testing.T) {
	t.Parallel()
	path, caller, called := pair(t)
	question, answer := make([]byte, 2<<20), make([]byte, 3<<20)
	for i := range question {
		question[i] = byte(rand.Uint32())
	}
	for i := range answer {
		answer[i] = byte(rand.Uint32())
	}
	var ends sync.WaitGroup
	defer ends.Wait()
	ends.Go(func() { send(t, caller, question) })
	ends.Go(func() { send(t, called, answer) })
	for _, end := range []struct {
		from *net.TCPConn
		want []byte
	}{{called, question}, {caller, answer}} {
		ends.Go(func() {
			got, err := io.ReadAll(end.from)
			if err != nil || !bytes.Equal(got, end.want) {
				t.Errorf("%d of %d bytes, equal: %v, %v", len(got), len(end.want), bytes.Equal(got, end.want), err)
			}
		})
	}
	for range 5 {
		path.Slow(0, 20*time.Millisecond)
		time.Sleep(10 * time.Millisecond)
		path.Slow(10*time.Millisecond, 0)
		path.There.Shut()
		time.Sleep(10 * time.Millisecond)
		path.Slow(0, 0) // what comes now does not overtake
		path.Open()
		time.Sleep(5 * time.Millisecond)
	}
}

// A way that is slow makes everything late by as much, and not later with each
// message.
func TestSlowWayIsLate(t *testing.T) {
	t.Parallel()
	const late, messages = 100 * time.Millisecond, 50
	path, caller, called := pair(t)
	path.There.Slow(late, 0)
	begin := time.Now()
	var sent sync.WaitGroup
	defer sent.Wait()
	sent.Go(func() {
		for i := range messages {
			if _, err := caller.Write([]byte{byte(i)}); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Millisecond)
		}
	})
	var got [messages]byte
	if _, err := io.ReadFull(called, got[:1]); err != nil || time.Since(begin) < late {
		t.Errorf("the first came after %s, %v", time.Since(begin), err)
	}
	if _, err := io.ReadFull(called, got[1:]); err != nil || time.Since(begin) > messages*late/4 {
		t.Errorf("the last came after %s, %v", time.Since(begin), err)
	}
	for i, n := range got {
		if int(n) != i {
			t.Fatalf("got %v", got)
		}
	}
	// The other way is not slow; a test's machine may be.
	if _, err := called.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(caller, got[:1]); err != nil || path.Back.Passed().Before(begin) {
		t.Errorf("%v, passed at %s", err, path.Back.Passed())
	}
}

// A way that is shut lets nothing pass and breaks nothing: not the end either.
func TestShutWay(t *testing.T) {
	t.Parallel()
	path, caller, called := pair(t)
	path.Shut()
	if _, err := caller.Write([]byte("late")); err != nil {
		t.Fatal(err)
	}
	if err := caller.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := called.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := called.Read(make([]byte, 8)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes came, %v", n, err)
	}
	if err := called.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	path.Open()
	if got, err := io.ReadAll(called); string(got) != "late" || err != nil {
		t.Errorf("%q came, %v", got, err)
	}
}

// Who calls while a way is shut is passed on later.
func TestCallOnAShutWay(t *testing.T) {
	t.Parallel()
	lis := listen(t)
	path, address := start(t, lis.Addr().String())
	path.Back.Shut()
	dial(t, address)
	path.Open()
	called, err := lis.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = called.Close()
}

// Who calls somebody that is not there hears so at once, and a connection that
// breaks at one end breaks at the other.
func TestBrokenConnections(t *testing.T) {
	t.Parallel()
	nobody := listen(t)
	_ = nobody.Close()
	_, address := start(t, nobody.Addr().String())
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
		_ = conn.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("nobody is there: %v", err)
	}
	_, caller, called := pair(t)
	if err := errors.Join(caller.SetLinger(0), caller.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := called.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is not broken")
	}
}
