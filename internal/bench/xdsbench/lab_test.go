package xdsbench_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/buddyring/buddyring/internal/bench/xdsbench"
	"github.com/buddyring/buddyring/internal/leak"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func TestMain(m *testing.M) {
	// grpc's xDS client never closes what watches its certificate files.
	leak.Main(m, goleak.IgnoreTopFunction("google.golang.org/grpc/credentials/tls/certprovider/pemfile.(*watcher).run"))
}

// lab is a lab with servers in pool web, a router and a client of that pool.
type lab struct {
	*xdsbench.Lab

	t       *testing.T
	servers []*xdsbench.Server
	conn    *grpc.ClientConn
}

func newLab(t *testing.T, n int, change ...func(*pb.Server)) *lab {
	t.Helper()
	l := &lab{t: t}
	var err error
	l.Lab, err = xdsbench.NewLab(t.Context(), xdsbench.Config{Dir: filepath.Join(t.TempDir(), "state")})
	l.must(err)
	t.Cleanup(func() { l.must(l.Close()) })
	l.servers, err = l.Servers(t.Context(), n)
	l.must(err)
	if n > 0 {
		rows := make([]*pb.Server, n)
		for i, s := range l.servers {
			rows[i] = s.Row(change...)
		}
		l.Put("web", rows...)
	}
	l.must(l.StartRouter(context.WithoutCancel(t.Context())))
	l.conn = l.dial("xds:///web")
	return l
}

func (l *lab) dial(target string) *grpc.ClientConn {
	l.t.Helper()
	conn, err := xdsbench.Dial(l.Bootstrap(), target)
	l.must(err)
	l.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// acked waits until the router has acknowledged a revision of pool web.
func (l *lab) acked(revision uint64) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 20*time.Second)
	defer cancel()
	l.must(l.Acked(ctx, "web", revision))
}

// eventually waits for what must become true.
func (l *lab) eventually(what string, ok func() bool) {
	l.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// called waits until each of the servers has had another call.
func (l *lab) called(servers ...*xdsbench.Server) {
	l.t.Helper()
	for _, s := range servers {
		before := s.Calls.Load()
		l.eventually("a call to "+s.ID, func() bool { return s.Calls.Load() > before })
	}
}

// none fails if calls did.
func (l *lab) none(load *xdsbench.Load) {
	l.t.Helper()
	if failed, first := load.Stop(); failed > 0 {
		l.t.Errorf("%d of %d calls failed, the first with %v", failed, failed+load.OK.Load(), first)
	}
}

func TestFirstCall(t *testing.T) {
	l := newLab(t, 2)
	l.must(xdsbench.Call(t.Context(), l.conn, 0))
	load := xdsbench.StartLoad(t.Context(), l.conn, 2, 0)
	l.called(l.servers...)
	l.none(load)
}

func TestARemovedServerGetsNoCallAfterTheAcknowledgement(t *testing.T) {
	l := newLab(t, 3)
	l.must(xdsbench.Call(t.Context(), l.conn, 0))
	load := xdsbench.StartLoad(t.Context(), l.conn, 2, 0)
	l.called(l.servers...)
	l.acked(l.Remove("web", pb.Cause_CAUSE_CRASHED, "s2"))
	removed := time.Now()
	l.called(l.servers[0], l.servers[2])
	l.eventually("no call to s2", func() bool { return time.Since(l.servers[1].Last()) > 100*time.Millisecond })
	l.none(load)
	// Calls that were under way then may arrive late on a machine with other work.
	if late := l.servers[1].Last().Sub(removed); late > 2*time.Second {
		t.Errorf("last call %v after the acknowledgement", late)
	}
}
