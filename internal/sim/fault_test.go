package sim_test

import (
	"testing"

	"github.com/buddyring/buddyring/internal/sim"
)

// What faults do is told in the grammar of one and of several.
func TestFaultsAreTold(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"crash count=1":                           "1 server crashes, after 0s",
		"crash count=2":                           "2 servers crash, after 0s",
		"crash zone=zone-1":                       "zone-1 crashes, after 0s",
		"lose-ingress loss=80% servers=3":         "server 3 loses 80% of what it receives, after 0s",
		"lose-egress loss=80% count=2":            "2 servers lose 80% of what they send, after 0s",
		"deafen watchers=1":                       "both watchers of 1 server have an agent whose own probes all fail, after 0s",
		"deafen watchers=1 either":                "a watcher of 1 server has an agent whose own probes all fail, after 0s",
		"jump-clock count=1":                      "1 server has its wall clock set forward or back, after 0s",
		"drift-clock count=1":                     "1 server has a clock that runs fast or slow, after 0s",
		"starve-agent count=1":                    "1 server has an agent that gets the processor late, after 0s",
		"lengthen-bursts count=1 burst=2s for=5s": "1 server has bursts of loss of 2s on average, after 0s, for 5s",
		"cut-off share=100%":                      "all servers are cut off from the coordinator, after 0s",
	} {
		f, err := sim.ParseFault("fault", text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := f.Tell(); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}
