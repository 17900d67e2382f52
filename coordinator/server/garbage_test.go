package server

import "testing"

func TestThriftFollowsTheWork(t *testing.T) {
	t.Parallel()
	const live = 160 << 20
	for _, tt := range []struct {
		percent   int
		allocated uint64
		want      int
	}{
		{restPercent, 0, restPercent},
		{restPercent, live / restShare * 2, restPercent},
		{restPercent, live / busyShare, busyPercent},
		{busyPercent, live / restShare * 2, busyPercent},
		{busyPercent, live / restShare, restPercent},
	} {
		if got := thrift(tt.percent, tt.allocated, live); got != tt.want {
			t.Errorf("%d %% after %d bytes: %d %%, want %d %%", tt.percent, tt.allocated, got, tt.want)
		}
	}
	if allocated, live := heap(); allocated == 0 || live > allocated {
		t.Errorf("%d bytes were allocated, and %d are live", allocated, live)
	}
}
