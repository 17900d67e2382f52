package quota

import "testing"

// What is left of a small number of files is shared out among the listeners, and a
// source that was not to have all does not get all.
func TestLimitsWithinTheFiles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		wanted           Limits
		files, listeners int
		want             Limits
	}{
		{Limits{1000, 1000}, 4000, 3, Limits{1000, 1000}},
		{Limits{1000, 1000}, 3300, 3, Limits{1000, 1000}},
		{Limits{1000, 1000}, 3000, 3, Limits{900, 900}},
		{Limits{1000, 500}, 3000, 3, Limits{900, 500}},
		{Limits{1000, 700}, 3000, 3, Limits{900, 675}},
		{Limits{1000, 500}, 256, 3, Limits{1, 1}},
		{Limits{10_000, 5000}, 10_300, 1, Limits{10_000, 5000}},
	} {
		if got := c.wanted.within(c.files, c.listeners); got != c.want {
			t.Errorf("%v of %d files for %d: %v, want %v", c.wanted, c.files, c.listeners, got, c.want)
		}
	}
}
