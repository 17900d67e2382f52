package server_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"google.golang.org/grpc/test/bufconn"

	"github.com/buddyring/buddyring/internal/quota"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// mailbox is a socket whose packets come and go through memory.
type mailbox struct {
	net.PacketConn

	questions, answers chan []byte
	closed             chan struct{}
}

func newMailbox() *mailbox {
	return &mailbox{questions: make(chan []byte), answers: make(chan []byte), closed: make(chan struct{})}
}

func (m *mailbox) LocalAddr() net.Addr { return &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 53} }

func (m *mailbox) Close() error {
	close(m.closed)
	return nil
}

func (m *mailbox) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case q := <-m.questions:
		return copy(b, q), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1234}, nil
	case <-m.closed:
		return 0, nil, net.ErrClosed
	}
}

func (m *mailbox) WriteTo(b []byte, _ net.Addr) (int, error) {
	m.answers <- b
	return len(b), nil
}

// lookup asks the DNS door for services, by UDP.
func (w *world) lookup(name string) *dns.Msg {
	w.t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeSRV)
	question, err := m.Pack()
	if err != nil {
		w.t.Fatal(err)
	}
	w.packets.questions <- question
	res := new(dns.Msg)
	if err := res.Unpack(<-w.packets.answers); err != nil {
		w.t.Fatal(err)
	}
	return res
}

func TestDNSDoorFollowsThePool(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.zone = "test."
		w.start()
		s := w.coordinators[first].next()
		if res := w.lookup("_http._tcp.default.test."); res.Rcode != dns.RcodeServerFailure {
			t.Errorf("before any state: %v", res)
		}
		s.send(catchUp(4)...)
		if res := w.lookup("_http._tcp.default.test."); len(res.Answer) != 4 {
			t.Errorf("4 servers: %v", res)
		}
		s.send(suspect(1, 1, "s001", time.Minute))
		if res := w.lookup("_http._tcp.default.test."); len(res.Answer) != 3 {
			t.Errorf("one is suspect: %v", res)
		}
		s.send(&pb.SubscribeResponse{Message: &pb.SubscribeResponse_PoolDeleted{PoolDeleted: &pb.PoolDeleted{Pool: "default", Epoch: 1}}})
		if res := w.lookup("_http._tcp.default.test."); res.Rcode != dns.RcodeNameError {
			t.Errorf("the pool is gone: %v", res)
		}
	}, first)
}

// The HTTP door is on the port of the metrics, and on its own without them.
func TestHTTPDoor(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		for _, path := range []string{"/v1/pools", "/v1/pools/default", "/sd/prometheus"} {
			if code, _ := w.get(path); code != http.StatusServiceUnavailable {
				t.Errorf("%s before any state: %d", path, code)
			}
		}
		s.send(catchUp(4)...)
		for _, lis := range []*bufconn.Listener{w.http, w.web} {
			for path, want := range map[string]string{
				"/v1/pools": `"active":4`, "/v1/pools/default": `"server_id":"s003"`, "/sd/prometheus?endpoint=admin": `"s003:81"`,
			} {
				if code, text := w.getFrom(lis, path); code != http.StatusOK || !strings.Contains(text, want) {
					t.Errorf("%s: %d %s", path, code, text)
				}
			}
		}
		if code, _ := w.get("/metrics"); code != http.StatusOK {
			t.Errorf("/metrics: %d", code)
		}
		for _, path := range []string{"/metrics", "/livez", "/readyz", "/"} {
			if code, _ := w.getFrom(w.web, path); code != http.StatusNotFound {
				t.Errorf("%s on the door's own port: %d", path, code)
			}
		}
		// Who waits hears of a suspect.
		_, text := w.get("/v1/pools/default")
		_, index, _ := strings.Cut(text, `"index":"`)
		index, _, _ = strings.Cut(index, `"`)
		time.AfterFunc(2*time.Second, func() { s.send(suspect(1, 1, "s001", time.Minute)) })
		began := time.Now()
		if _, text := w.getFrom(w.web, "/v1/pools/default?index="+index); time.Since(began) != 2*time.Second || !strings.Contains(text, `"suspect"`) {
			t.Errorf("after %v: %s", time.Since(began), text)
		}
	}, first)
}

// With the DNS door on, a change is acknowledged when the answers from before it
// have run out; without it at once.
func TestAckWaitsForTheTTL(t *testing.T) {
	t.Parallel()
	for zone, want := range map[string]time.Duration{"": 0, "test.": time.Second} {
		t.Run("zone "+zone, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				w.zone = zone
				w.start()
				s := w.coordinators[first].next()
				s.send(catchUp(4)...)
				time.Sleep(2500 * time.Millisecond)
				s.send(delta(&pb.Delta{Position: at(1, 11), Removed: crashed("s001")}))
				sent := time.Now()
				for s.acked() < 11 && time.Since(sent) < 10*time.Second {
					time.Sleep(time.Millisecond)
				}
				if took := time.Since(sent); took < want || took > want+10*time.Millisecond {
					t.Errorf("acknowledged after %v, want %v", took, want)
				}
			}, first)
		})
	}
}

// A change that comes while another waits for its TTL waits for its own, not for both.
func TestAckOfTheNextChangeWaitsForItsOwnTTL(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.zone = "test."
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(4)...)
		time.Sleep(2500 * time.Millisecond)
		s.send(delta(&pb.Delta{Position: at(1, 11), Removed: crashed("s001")}))
		time.Sleep(200 * time.Millisecond)
		s.send(delta(&pb.Delta{Position: at(1, 12), Removed: crashed("s002")}))
		sent := time.Now()
		for s.acked() < 12 && time.Since(sent) < 10*time.Second {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(sent); took < time.Second || took > time.Second+20*time.Millisecond {
			t.Errorf("acknowledged after %v, want a second", took)
		}
	}, first)
}

// A router that ends says goodbye without waiting for the TTL.
func TestGoodbyeDoesNotWaitForTheTTL(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.zone = "test."
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(4)...)
		stopped := time.Now()
		w.stopRouter()
		if took := time.Since(stopped); took > 100*time.Millisecond || !s.saidGoodbye() {
			t.Errorf("the router took %v to end; said goodbye: %v", took, s.saidGoodbye())
		}
	}, first)
}

// acked is the revision that was acknowledged last.
func (s *session) acked() uint64 {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.acks) == 0 {
		return 0
	}
	return s.acks[len(s.acks)-1].GetApplied()[0].GetRevision()
}

// Each listener has limits of its own: who fills one keeps nobody from another.
func TestConnectionsAreLimited(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.connections = quota.Limits{Total: 3, PerSource: 2}
		w.start()
		for name, lis := range map[string]*bufconn.Listener{"grpc": w.grpc, "http": w.http, "web": w.web} {
			var last net.Conn
			for range 3 {
				conn, err := lis.DialContext(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close() })
				last = conn
			}
			if err := last.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			// A listener of gRPC says something first.
			if n, err := last.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
				t.Errorf("%s: one too many got %d bytes, %v", name, n, err)
			}
		}
		if refused := w.value("buddyring_connections_refused_total"); refused != 3 {
			t.Errorf("%v were refused", refused)
		}
	})
}
