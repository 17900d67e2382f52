package server

import (
	"context"
	"os"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"time"
)

const (
	// Thousands of streams at rest hold much memory and make little garbage: the
	// heap may then grow by restPercent before it is collected. While there is much
	// to do collections would take too long, and it may grow by busyPercent, which
	// is Go's own. What that has left would stay with the process for good, as far as
	// it is less than a tenth of the heap, and is returned to the system.
	restPercent, busyPercent = 18, 100
	// thriftEvery is how often is looked how much was allocated meanwhile: from the
	// busyShare-th part of the live heap on it is much, up to the restShare-th little.
	// The number of collections would not tell, since a machine that is too busy
	// does few.
	thriftEvery          = 5 * time.Second
	busyShare, restShare = 4, 16
)

// beThrifty keeps the heap small while there is little to do, until ctx ends.
// Where GOGC is set, that holds. It is for the program: all of the process shares
// one heap.
func beThrifty(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	// It starts as if it were busy: it will be when all agents come.
	before := debug.SetGCPercent(busyPercent)
	defer debug.SetGCPercent(before)
	tick := time.NewTicker(thriftEvery)
	defer tick.Stop()
	at := thrift{percent: busyPercent}
	last, _ := heap()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, live := heap()
		next := at.after(now-last, live)
		if next.percent != at.percent {
			debug.SetGCPercent(next.percent)
		}
		if next.returned && !at.returned {
			debug.FreeOSMemory()
		}
		at, last = next, now
	}
}

// thrift is by how much the heap may grow, and whether the system got back what was
// free when there was less to do.
type thrift struct {
	percent  int
	returned bool
}

// after is what follows once so much was allocated beside so much that is live.
// Memory is returned after a second time with little: pools of buffers still hold
// theirs at the first.
func (t thrift) after(allocated, live uint64) thrift {
	switch {
	case allocated >= live/busyShare:
		return thrift{percent: busyPercent}
	case allocated > live/restShare:
		return t
	case t.percent == busyPercent:
		return thrift{percent: restPercent}
	}
	return thrift{percent: restPercent, returned: true}
}

// heap is what was allocated so far and what the last collection has left, in bytes.
func heap() (allocated, live uint64) {
	samples := []runtimemetrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	runtimemetrics.Read(samples)
	return samples[0].Value.Uint64(), samples[1].Value.Uint64()
}
