package xdsbench_test

import (
	"bytes"
	"context"
	"math"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buddyring/buddyring/internal/bench/xdsbench"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func phase(p pb.Phase) func(*pb.Server) { return func(s *pb.Server) { s.Phase = p } }

func weight(w uint32) func(*pb.Server) { return func(s *pb.Server) { s.Spec.Weight = &w } }

func TestADrainedServerEndsItsCallsAndGetsNoOthers(t *testing.T) {
	l := newLab(t, 3)
	l.must(xdsbench.Call(t.Context(), l.conn, 0))
	load := xdsbench.StartLoad(t.Context(), l.conn, 16, 100*time.Millisecond)
	l.called(l.servers...)
	l.acked(l.Put("web", l.servers[0].Row(phase(pb.Phase_PHASE_DRAINING))))
	// What the acknowledgement is for: the server may end now.
	l.servers[0].Stop()
	before := l.servers[0].Calls.Load()
	l.acked(l.Remove("web", pb.Cause_CAUSE_SHUTDOWN, "s1"))
	l.called(l.servers[1:]...)
	l.none(load)
	if after := l.servers[0].Calls.Load(); after != before {
		t.Errorf("%d calls after its end", after-before)
	}
}

// The last server that drains gets the work that nobody else could get.
func TestTheLastServerDrainsUnderLoad(t *testing.T) {
	l := newLab(t, 1)
	l.must(xdsbench.Call(t.Context(), l.conn, 0))
	load := xdsbench.StartLoad(t.Context(), l.conn, 2, 0)
	l.acked(l.Put("web", l.servers[0].Row(phase(pb.Phase_PHASE_DRAINING))))
	l.called(l.servers...)
	l.none(load)
}

func TestCallsGoOnWithoutTheRouter(t *testing.T) {
	l := newLab(t, 3)
	l.must(xdsbench.Call(t.Context(), l.conn, 0))
	load := xdsbench.StartLoad(t.Context(), l.conn, 2, 0)
	l.called(l.servers...)
	l.must(l.StopRouter())
	time.Sleep(2 * time.Second) // what is measured: time without a router
	l.called(l.servers...)
	l.must(l.StartRouter(context.WithoutCancel(t.Context())))
	l.acked(l.Remove("web", pb.Cause_CAUSE_CRASHED, "s3"))
	l.eventually("no call to s3", func() bool { return time.Since(l.servers[2].Last()) > 100*time.Millisecond })
	l.called(l.servers[:2]...)
	l.none(load)
}

// A router that is as new as its disk tells nobody that a pool is gone.
func TestARouterWithoutStateTakesNothingAway(t *testing.T) {
	l := newLab(t, 2)
	bootstrap := bytes.ReplaceAll(l.Bootstrap(), []byte(`,"ignore_resource_deletion"`), nil)
	conn, err := xdsbench.Dial(bootstrap, "xds:///web")
	l.must(err)
	defer func() { l.must(conn.Close()) }()
	l.must(xdsbench.Call(t.Context(), conn, 0))
	load := xdsbench.StartLoad(t.Context(), conn, 2, 0)
	l.must(l.StopRouter())
	l.must(l.Forget())
	l.must(l.StartRouter(context.WithoutCancel(t.Context())))
	l.eventually("the client's return", func() bool { return l.Confirmations() > 0 })
	l.acked(l.Remove("web", pb.Cause_CAUSE_SHUTDOWN, "s2"))
	l.called(l.servers[0])
	l.none(load)
}

func TestHalfOfAPoolGoesAtOnce(t *testing.T) {
	l := newLab(t, 4)
	l.must(xdsbench.Call(t.Context(), l.conn, 0))
	load := xdsbench.StartLoad(t.Context(), l.conn, 2, 0)
	l.called(l.servers...)
	l.acked(l.Remove("web", pb.Cause_CAUSE_CRASHED, "s1", "s2"))
	l.called(l.servers[2:]...)
	// More than half is held back, as a last resort: nobody else is called.
	l.acked(l.Remove("web", pb.Cause_CAUSE_CRASHED, "s3", "s4"))
	l.called(l.servers[2:]...)
	l.none(load)
}

func TestAPoolIsMadeLater(t *testing.T) {
	l := newLab(t, 0)
	server, err := l.Servers(t.Context(), 1)
	l.must(err)
	called := make(chan error, 1)
	go func() { called <- xdsbench.Call(context.WithoutCancel(t.Context()), l.conn, 0) }()
	l.eventually("a client that asks", func() bool { return l.metric("buddyring_router_xds_answers_total") > 0 })
	l.Put("web", server[0].Row())
	l.must(<-called)
}

func TestADeletedPoolIsGone(t *testing.T) {
	l := newLab(t, 1)
	bootstrap := bytes.ReplaceAll(l.Bootstrap(), []byte(`,"ignore_resource_deletion"`), nil)
	conn, err := xdsbench.Dial(bootstrap, "xds:///web")
	l.must(err)
	defer func() { l.must(conn.Close()) }()
	l.must(xdsbench.Call(t.Context(), conn, 0))
	l.Delete("web")
	l.eventually("failing calls", func() bool {
		return status.Code(xdsbench.Call(t.Context(), conn, 0)) == codes.Unavailable
	})
}

func TestASuspectIsUsedLast(t *testing.T) {
	l := newLab(t, 2)
	l.must(xdsbench.Call(t.Context(), l.conn, 0))
	load := xdsbench.StartLoad(t.Context(), l.conn, 2, 0)
	l.called(l.servers...)
	l.Suspect("web", "s1", true)
	l.eventually("no call to s1", func() bool { return time.Since(l.servers[0].Last()) > 100*time.Millisecond })
	l.Suspect("web", "s2", true)
	l.called(l.servers...)
	l.Suspect("web", "s2", false)
	l.eventually("no call to s1", func() bool { return time.Since(l.servers[0].Last()) > 100*time.Millisecond })
	l.none(load)
}

func TestWeightsAreHonoured(t *testing.T) {
	l := newLab(t, 3)
	l.acked(l.Put("web", l.servers[0].Row(weight(300)), l.servers[1].Row(weight(100)), l.servers[2].Row(weight(100))))
	l.must(xdsbench.Call(t.Context(), l.conn, 0))
	load := xdsbench.StartLoad(t.Context(), l.conn, 1, 0)
	l.called(l.servers...)
	before := l.calls()
	l.eventually("calls", func() bool { return l.calls()[2]-before[2] > 400 })
	l.none(load)
	after := l.calls()
	share := float64(after[0]-before[0]) / float64(sum(after)-sum(before))
	if math.Abs(share-0.6) > 0.05 {
		t.Errorf("the server of weight 300 of 500 got %.0f %% of the calls", share*100)
	}
}

func TestAnEndpointByItsName(t *testing.T) {
	l := newLab(t, 2)
	l.acked(l.Put("web", l.servers[0].Row(func(s *pb.Server) {
		s.Spec.Endpoints[0].Name = "first"
		s.Spec.Endpoints = append(s.Spec.Endpoints, &pb.Endpoint{Name: "admin", Address: l.servers[1].Address})
	})))
	l.acked(l.Remove("web", pb.Cause_CAUSE_SHUTDOWN, "s2"))
	conn := l.dial("xds:///web/admin")
	l.must(xdsbench.Call(t.Context(), conn, 0))
	if got := l.calls(); !slices.Equal(got, []int64{0, 1}) {
		t.Errorf("calls %v", got)
	}
}

func (l *lab) calls() []int64 {
	out := make([]int64, len(l.servers))
	for i, s := range l.servers {
		out[i] = s.Calls.Load()
	}
	return out
}

func sum(n []int64) (total int64) {
	for _, x := range n {
		total += x
	}
	return total
}

// metric returns the sum of a metric over its labels.
func (l *lab) metric(name string) float64 {
	l.t.Helper()
	families, err := l.Registry.Gather()
	l.must(err)
	total := 0.0
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				total += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return total
}

// A change of weight, as in a slow start, moves a server to another locality; calls
// under way there go on.
func TestAChangeOfWeightCutsNoCall(t *testing.T) {
	l := newLab(t, 2)
	l.must(xdsbench.Call(t.Context(), l.conn, 0))
	load := xdsbench.StartLoad(t.Context(), l.conn, 4, 50*time.Millisecond)
	l.called(l.servers...)
	for _, weight := range []uint32{10, 20, 50, 100} {
		l.acked(l.Put("web", l.servers[1].Row(func(s *pb.Server) { s.Spec.Weight = &weight })))
		l.called(l.servers[1])
	}
	l.none(load)
}
