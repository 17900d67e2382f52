package chaos

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestHoldings(t *testing.T) {
	t.Parallel()
	const good = ""
	for name, c := range map[string]struct {
		seen []holding
		want string
	}{
		"as it should be": {[]holding{
			{"s", 1, 3, 1}, {"s", 1, 5, 9}, {"s", 2, 5, 9}, {"s", 2, 5, 2}, {"s", 2, 5, 2}, {"s", 2, 6, 3}, {"s", 4, 6, 1}, {"s", 4, 6, 1},
		}, good},
		"another database":                  {[]holding{{"s", 7, 30, 9}, {"t", 1, 2, 1}, {"t", 1, 2, 2}}, good},
		"an epoch of the past":              {[]holding{{"s", 1, 3, 1}, {"s", 2, 3, 1}, {"s", 1, 3, 1}}, "went from epoch 2 to epoch 1"},
		"an assignment before a revision":   {[]holding{{"s", 2, 5, 1}, {"s", 2, 4, 9}}, "took an assignment of revision 4 after one of 5, in epoch 2"},
		"an assignment of another leader's": {[]holding{{"s", 1, 5, 9}, {"s", 2, 5, 1}, {"s", 2, 5, 10}, {"s", 2, 5, 2}}, "took assignment 2 after 10 of epoch 2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var h holdings
			var wrong []string
			for _, now := range c.seen {
				if w := h.see(now); w != "" {
					wrong = append(wrong, w)
				}
			}
			if got := strings.Join(wrong, "; "); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// What an agent writes is read.
func TestWhatAnAgentHolds(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "agent.json")
	if _, err := onDisk(path); err == nil {
		t.Error("there is nothing")
	}
	text := `{"format": 1, "sha256": "00", "state": {"pool": "real", "store_id": "s", "epoch": 4, "revision": 30, "assignment_seq": 7}}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if h, err := onDisk(path); err != nil || h != (holding{"s", 4, 30, 7}) {
		t.Errorf("%+v, %v", h, err)
	}
	log := `time=2026-11-26T18:05:36.102Z level=INFO msg="session accepted" incarnation=3 resumed=false epoch=1 revision=3
time=2026-11-26T18:05:43.152Z level=WARN msg="no session with a coordinator, watching goes on" session=failed next_try=0s
time=2026-11-26T18:05:43.156Z level=INFO msg="session accepted" incarnation=3 resumed=true epoch=2 revision=5
`
	if all, err := welcomes(strings.NewReader(log)); err != nil || !slices.Equal(all, []holding{{Epoch: 1, Revision: 3}, {Epoch: 2, Revision: 5}}) {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := welcomes(strings.NewReader(`msg="session accepted" epoch=x`)); err == nil {
		t.Error("a line that says no epoch")
	}
}
