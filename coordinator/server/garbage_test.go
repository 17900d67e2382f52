package server

import (
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"testing"
	"testing/synctest"
	"time"
)

func TestThriftFollowsTheWork(t *testing.T) {
	t.Parallel()
	const live = 160 << 20
	busy, rest, lean := thrift{percent: busyPercent}, thrift{percent: restPercent}, thrift{percent: restPercent, returned: true}
	for _, tt := range []struct {
		at        thrift
		allocated uint64
		want      thrift
	}{
		{busy, live / restShare * 2, busy},
		{busy, live / restShare, rest},
		{rest, live / restShare * 2, rest},
		{rest, live / busyShare, busy},
		{rest, live / restShare, lean},
		{lean, 0, lean},
		{lean, live / restShare * 2, lean},
		{lean, live / busyShare, busy},
	} {
		if got := tt.at.after(tt.allocated, live); got != tt.want {
			t.Errorf("%+v after %d bytes: %+v, want %+v", tt.at, tt.allocated, got, tt.want)
		}
	}
	if allocated, live := heap(); allocated == 0 || live > allocated {
		t.Errorf("%d bytes were allocated, and %d are live", allocated, live)
	}
}

// What is free goes back to the system once there is little to do, and not again and
// again. The heap is the process's, so no other test runs meanwhile.
func TestThriftReturnsMemory(t *testing.T) {
	t.Setenv("GOGC", "")
	synctest.Test(t, func(t *testing.T) {
		debug.FreeOSMemory() // what the tests before have left
		before := collectionsForced()
		go beThrifty(t.Context())
		for i, want := range []uint64{0, 1, 1, 1} {
			time.Sleep(thriftEvery + time.Millisecond)
			synctest.Wait()
			if got := collectionsForced() - before; got != want {
				t.Errorf("memory was returned %d times after %d quiet intervals, not %d", got, i+1, want)
			}
		}
	})
}

func collectionsForced() uint64 {
	samples := []runtimemetrics.Sample{{Name: "/gc/cycles/forced:gc-cycles"}}
	runtimemetrics.Read(samples)
	return samples[0].Value.Uint64()
}
