package output

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Age returns a length of time in its one largest unit: 12s, 3m, 5h, 2d.
// Lengths below a second, and negative ones, which clocks that differ cause,
// are 0s.
func Age(d time.Duration) string {
	switch {
	case d < time.Second:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

// Since returns the age of a moment at now, or "-" when it is unset.
func Since(now time.Time, t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return Age(now.Sub(t.AsTime()))
}

// Until returns the time left until a moment, to the nearest second, or "-" when
// it is unset.
func Until(now time.Time, t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return Age(t.AsTime().Sub(now).Round(time.Second))
}

// Milliseconds returns a length of time as 412 ms, or as 0.31 ms below ten.
func Milliseconds(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	if ms > -10 && ms < 10 && d%time.Millisecond != 0 {
		return fmt.Sprintf("%.2f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}

// RTT returns a round trip as Milliseconds does, or "-" when it is unset.
func RTT(d *durationpb.Duration) string {
	if d == nil {
		return "-"
	}
	return Milliseconds(d.AsDuration())
}
