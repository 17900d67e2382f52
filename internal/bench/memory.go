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
	bytes, err := Memory(os.Getpid(), field)
	if err != nil {
		return 0
	}
	return bytes
}

// Memory returns a size, such as VmRSS or VmHWM, that the kernel tells of a
// process, in bytes.
func Memory(pid int, field string) (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read memory of a process: %w", err)
	}
	for line := range bytes.Lines(data) {
		if rest, ok := strings.CutPrefix(string(line), field+":"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			return kib * 1024, err
		}
	}
	return 0, fmt.Errorf("read memory of a process: it has no %s", field)
}

// processorTime is what this process has used so far, in seconds.
func processorTime() (float64, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds(), nil
}
