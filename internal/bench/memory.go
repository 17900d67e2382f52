package bench

import (
	"bytes"
	"fmt"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// footprint is what this process holds.
type footprint struct {
	// heap is live and not yet collected objects; resident is what the kernel
	// counts. Both are the largest of a time.
	heap, resident float64
}

// watchFootprint samples until stop, which returns the largest values.
func watchFootprint() (stop func() footprint) {
	debug.FreeOSMemory()
	// The kernel's largest value starts anew; where that is not allowed, it is that
	// of the whole run.
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
	done, result := make(chan struct{}), make(chan footprint)
	go func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		var largest footprint
		for {
			largest.heap = max(largest.heap, heapBytes())
			select {
			case <-tick.C:
			case <-done:
				largest.resident = status("VmHWM")
				result <- largest
				return
			}
		}
	}()
	return func() footprint {
		close(done)
		return <-result
	}
}

func heapBytes() float64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return float64(sample[0].Value.Uint64())
}

// status returns a size that the kernel tells of this process, 0 where it does
// not.
func status(field string) float64 {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(data) {
		if rest, ok := strings.CutPrefix(string(line), field+":"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			if err != nil {
				return 0
			}
			return kib * 1024
		}
	}
	return 0
}

// processorTime is what this process has used so far, in seconds.
func processorTime() (float64, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds(), nil
}
