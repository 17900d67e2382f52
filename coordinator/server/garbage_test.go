package server

import "testing"

func TestThriftFollowsTheWork(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		percent     int
		collections int64
		want        int
	}{
		{restPercent, 0, restPercent},
		{restPercent, restCycles + 1, restPercent},
		{restPercent, busyCycles, busyPercent},
		{busyPercent, restCycles + 1, busyPercent},
		{busyPercent, restCycles, restPercent},
	} {
		if got := thrift(tt.percent, tt.collections); got != tt.want {
			t.Errorf("%d %% after %d collections: %d %%, want %d %%", tt.percent, tt.collections, got, tt.want)
		}
	}
}
