package server

import (
	"context"
	"os"
	"runtime/debug"
	"time"
)

const (
	// Thousands of streams at rest hold much memory and make little garbage: the
	// heap may then grow by restPercent before it is collected. While there is much
	// to do collections would take too long, and it may grow by busyPercent, which
	// is Go's own.
	restPercent, busyPercent = 12, 100
	// thriftEvery is how often is looked what the collector has to do; from
	// busyCycles collections in that time on it is much, up to restCycles little.
	thriftEvery            = 5 * time.Second
	busyCycles, restCycles = 3, 1
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
	percent, last := busyPercent, cycles()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := cycles()
		if next := thrift(percent, now-last); next != percent {
			percent = next
			debug.SetGCPercent(percent)
		}
		last = now
	}
}

// thrift is by how much the heap may grow after so many collections.
func thrift(percent int, collections int64) int {
	switch {
	case collections >= busyCycles:
		return busyPercent
	case collections <= restCycles:
		return restPercent
	}
	return percent
}

// cycles counts the collections so far.
func cycles() int64 {
	var stats debug.GCStats
	debug.ReadGCStats(&stats)
	return stats.NumGC
}
